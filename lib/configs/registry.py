"""The tasks in the order of `/info/`."""

from monailabel.interfaces.config import TaskConfig

from lib.configs.fewshot import FewshotConfig
from lib.configs.fewshot_basic import FewshotBasicConfig
from lib.configs.fewshot_classification import FewshotClassificationConfig

CONFIGS: dict[str, type[TaskConfig]] = {
    "fewshot": FewshotConfig,
    "fewshot_classification": FewshotClassificationConfig,
    "fewshot_basic": FewshotBasicConfig,
}
"""Slicer runs the first model by itself at Next Sample, so the best one comes first."""

__all__ = ["CONFIGS"]
