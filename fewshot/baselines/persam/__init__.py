"""PerSAM: Segment Anything, pointed to the place that looks most like the template, without training."""

from fewshot.baselines.persam.baseline import PerSAM

__all__ = ["PerSAM"]
