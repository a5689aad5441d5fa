"""Infer tasks."""

from lib.infers.points import Points
from lib.infers.segmentation import Segmentation

__all__ = ["Points", "Segmentation"]
