"""Adapters by name."""

from fewshot.adapters.base import Adapter
from fewshot.adapters.basic import BasicAdapter
from fewshot.adapters.classification import ClassificationAdapter
from fewshot.adapters.contrastive import ContrastiveAdapter
from fewshot.adapters.samples import Samples

ADAPTERS: dict[str, type[Adapter]] = {
    adapter.name: adapter for adapter in (BasicAdapter, ClassificationAdapter, ContrastiveAdapter)
}

__all__ = ["ADAPTERS", "Adapter", "Samples"]
