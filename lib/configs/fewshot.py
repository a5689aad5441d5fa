"""The default adapter."""

from typing import ClassVar

from lib.configs.adapter import AdapterConfig


class FewshotConfig(AdapterConfig):
    """Finds what the templates show, by how it looks and by where it lies in the registered templates."""

    adapter: ClassVar[str] = "auto"
    description: ClassVar[str] = (
        "Finds what the templates show, by how it looks and by where it lies in the registered templates"
    )
    trained: ClassVar[bool] = True
