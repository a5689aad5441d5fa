"""Refinement of what an adapter localised: a random walker that needs no weights, or Segment Anything."""

from fewshot.refine.apply import refine
from fewshot.refine.base import Refined, Refiner, Region
from fewshot.refine.choice import REFINERS, UNREFINED, create_refiner, options_of_refiner

__all__ = [
    "REFINERS",
    "UNREFINED",
    "Refined",
    "Refiner",
    "Region",
    "create_refiner",
    "options_of_refiner",
    "refine",
]
