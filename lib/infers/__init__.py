"""Infer tasks."""

from lib.infers.landmarks import LandmarkFinder
from lib.infers.points import Points
from lib.infers.segmentation import Segmentation

__all__ = ["LandmarkFinder", "Points", "Segmentation"]
