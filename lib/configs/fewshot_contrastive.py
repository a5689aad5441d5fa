"""The contrastive adapter, the paper's."""

from typing import ClassVar

from lib.configs.adapter import AdapterConfig


class FewshotContrastiveConfig(AdapterConfig):
    """Finds what the templates show, by a small network that compares pixels with theirs."""

    adapter: ClassVar[str] = "contrastive"
    description: ClassVar[str] = (
        "Finds what the templates show, by a small network that compares pixels with theirs"
    )
    trained: ClassVar[bool] = True
