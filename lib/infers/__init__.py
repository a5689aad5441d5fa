"""Infer tasks."""

from lib.infers.segmentation import Segmentation

__all__ = ["Segmentation"]
