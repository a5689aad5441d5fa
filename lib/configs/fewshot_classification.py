"""The classification adapter."""

from typing import ClassVar

from lib.configs.adapter import AdapterConfig


class FewshotClassificationConfig(AdapterConfig):
    """Finds what the templates show, by a small network that classifies pixels."""

    adapter: ClassVar[str] = "classification"
    description: ClassVar[str] = "Finds what the templates show, by a small network that classifies pixels"
    trained: ClassVar[bool] = True
