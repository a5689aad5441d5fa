"""The tasks in the order of `/info/`."""

from monailabel.interfaces.config import TaskConfig

from lib.configs.backbone import BackboneConfig
from lib.configs.fewshot import FewshotConfig
from lib.configs.fewshot_basic import FewshotBasicConfig
from lib.configs.fewshot_classification import FewshotClassificationConfig
from lib.configs.fewshot_contrastive import FewshotContrastiveConfig
from lib.configs.landmarks import LandmarksConfig
from lib.configs.points import PointsConfig, PointsVolumeConfig

CONFIGS: dict[str, type[TaskConfig]] = {
    "fewshot": FewshotConfig,
    "fewshot_contrastive": FewshotContrastiveConfig,
    "fewshot_classification": FewshotClassificationConfig,
    "fewshot_basic": FewshotBasicConfig,
    "landmarks": LandmarksConfig,
    "points": PointsConfig,
    "points_volume": PointsVolumeConfig,
    "backbone": BackboneConfig,
}
"""Slicer runs the first model by itself at Next Sample: the best one comes first, those that wait for clicks after all
that do not."""

LONG = frozenset({"backbone"})
"""Tasks whose training takes so long that *train all* leaves them out."""

__all__ = ["CONFIGS", "LONG"]
