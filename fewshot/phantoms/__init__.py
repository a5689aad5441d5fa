"""Made-up studies for the demo and the tests."""

from fewshot.phantoms.anatomy import LANDMARKS, ORGANS
from fewshot.phantoms.studies import Phantom, make_phantom, make_study, write_studies

__all__ = ["LANDMARKS", "ORGANS", "Phantom", "make_phantom", "make_study", "write_studies"]
