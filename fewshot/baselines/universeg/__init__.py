"""UniverSeg: a network that is shown labelled images and segments another one accordingly, without training."""

from fewshot.baselines.universeg.baseline import UniverSeg

__all__ = ["UniverSeg"]
