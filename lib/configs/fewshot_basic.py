"""The basic adapter."""

from typing import ClassVar

from lib.configs.adapter import AdapterConfig


class FewshotBasicConfig(AdapterConfig):
    """Finds what looks like the templates; needs no training."""

    adapter: ClassVar[str] = "basic"
    description: ClassVar[str] = "Finds what looks like the templates; needs no training"
    trained: ClassVar[bool] = False
