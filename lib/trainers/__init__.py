"""Train tasks."""

from lib.trainers.adapter import AdapterTrainer
from lib.trainers.backbone import BackboneTrainer

__all__ = ["AdapterTrainer", "BackboneTrainer"]
