"""Train tasks."""

from lib.trainers.adapter import AdapterTrainer

__all__ = ["AdapterTrainer"]
