"""Templates as an atlas: where a structure should lie in another volume, by registration."""

from fewshot.atlas.atlas import Atlas, AtlasTemplate
from fewshot.atlas.prior import Prior
from fewshot.atlas.registration import Registered, register

__all__ = ["Atlas", "AtlasTemplate", "Prior", "Registered", "register"]
