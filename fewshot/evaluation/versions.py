"""Which programs made the numbers."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from fewshot import __version__

PACKAGES = ("torch", "monai", "numpy", "scipy", "simpleitk")


def versions() -> dict[str, str]:
    """Package -> version, Python's and our own included."""
    found = {"python": platform.python_version(), "fewshot": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
