"""The tasks in the order of `/info/`."""

from monailabel.interfaces.config import TaskConfig

from lib.configs.backbone import BackboneConfig
from lib.configs.fewshot import FewshotConfig
from lib.configs.fewshot_basic import FewshotBasicConfig
from lib.configs.fewshot_classification import FewshotClassificationConfig
from lib.configs.fewshot_contrastive import FewshotContrastiveConfig

CONFIGS: dict[str, type[TaskConfig]] = {
    "fewshot": FewshotConfig,
    "fewshot_contrastive": FewshotContrastiveConfig,
    "fewshot_classification": FewshotClassificationConfig,
    "fewshot_basic": FewshotBasicConfig,
    "backbone": BackboneConfig,
}
"""Slicer runs the first model by itself at Next Sample, so the best one comes first."""

LONG = frozenset({"backbone"})
"""Tasks whose training takes so long that *train all* leaves them out."""

__all__ = ["CONFIGS", "LONG"]
