"""Segment Anything models: by name or from a checkpoint file, all behind one interface."""

from fewshot.refine.sam.at_hand import choose_sam
from fewshot.refine.sam.model import Embedding, Frame, Masks, SamModel
from fewshot.refine.sam.registry import SAMS, check_sam, load_sam, sam_at_hand

__all__ = [
    "SAMS",
    "Embedding",
    "Frame",
    "Masks",
    "SamModel",
    "check_sam",
    "choose_sam",
    "load_sam",
    "sam_at_hand",
]
