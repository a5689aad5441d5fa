"""Datasets with labels or landmarks, in three layouts: what `fewshot fit` and `fewshot evaluate` read."""

from fewshot.dataset.case import Case
from fewshot.dataset.dataset import Dataset
from fewshot.dataset.facts import Facts, read_facts
from fewshot.dataset.files import list_files
from fewshot.dataset.readers import study_readers

__all__ = ["Case", "Dataset", "Facts", "list_files", "read_facts", "study_readers"]
