"""Train tasks."""

from lib.trainers.adapter import AdapterTrainer
from lib.trainers.backbone import BackboneTrainer
from lib.trainers.landmarks import LandmarkTrainer

__all__ = ["AdapterTrainer", "BackboneTrainer", "LandmarkTrainer"]
