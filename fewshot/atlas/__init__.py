"""Templates as an atlas: where a structure should lie in another volume, by registration."""

from fewshot.atlas.atlas import Atlas
from fewshot.atlas.prior import Prior
from fewshot.atlas.registration import Registered, register
from fewshot.atlas.template import AtlasTemplate

__all__ = ["Atlas", "AtlasTemplate", "Prior", "Registered", "register"]
