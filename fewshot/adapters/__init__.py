"""Adapters by name."""

from fewshot.adapters.auto import AutoAdapter
from fewshot.adapters.base import Adapter
from fewshot.adapters.basic import BasicAdapter
from fewshot.adapters.classification import ClassificationAdapter
from fewshot.adapters.contrastive import ContrastiveAdapter
from fewshot.adapters.knn import NearestNeighbours
from fewshot.adapters.prototypes import LocalPrototypes
from fewshot.adapters.samples import Samples

ADAPTERS: dict[str, type[Adapter]] = {
    adapter.name: adapter
    for adapter in (
        AutoAdapter,
        BasicAdapter,
        ClassificationAdapter,
        ContrastiveAdapter,
        NearestNeighbours,
        LocalPrototypes,
    )
}

__all__ = ["ADAPTERS", "Adapter", "Samples"]
