"""Made-up studies for the demo and the tests."""

from fewshot.phantoms.anatomy import ORGANS
from fewshot.phantoms.studies import make_study, write_studies

__all__ = ["ORGANS", "make_study", "write_studies"]
