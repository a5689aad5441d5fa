"""Which refinements an evaluation tries: refiners by name, those that take prompts once per strategy."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.refine import REFINERS, UNREFINED, Refiner, create_refiner, options_of_refiner, refine
from fewshot.refine.choice import AUTO
from fewshot.settings import checked_options
from fewshot.support import Template
from fewshot.volumes import SliceSpec, Volume

PROMPTS_OPTION = "prompts"
"""The setting of refiners that take prompts: a strategy's name."""

Record = dict[str, Any]


def method_name(method: str, refine: str) -> str:
    """How tables call an adapter or baseline with a refinement."""
    return method if refine == UNREFINED else f"{method}+{refine}"


@dataclass(frozen=True, eq=False)
class Refinement:
    """What may follow a prediction.

    Attributes:
        name: ``none``, a refiner, or ``REFINER:STRATEGY`` where strategies were asked for.
        refiner: None for ``none``.
    """

    name: str
    refiner: Refiner | None = None

    def identity(self) -> Record:
        """What its rows depend on besides the prediction: settings, and name and digest of weights."""
        if self.refiner is None:
            return {}
        return _plain({"options": asdict(self.refiner.options), **self.refiner.identity()})

    def remember(self, templates: Sequence[Template]) -> None:
        """Be told the templates of a seed."""
        if self.refiner is not None:
            self.refiner.remember(templates)

    def apply(
        self, volume: Volume, found: Prediction, *, spec: SliceSpec, seed: int, progress: Progress = silent
    ) -> tuple[Prediction, Record | None]:
        """A refined prediction, and what results.json says of how it came about; None where nothing was done.

        Args:
            volume: what was predicted.
            found: the prediction, which stays as it is.
            spec: how the templates are cut.
            seed: of the prompts.
            progress: told of slices.
        """
        if self.refiner is None:
            return found, None
        refined = refine(volume, found, self.refiner, spec=spec, seed=seed, progress=progress)
        if "refine" not in refined.provenance:  # nothing was found, so there was nothing to refine
            return refined, None
        known = {"refiner", "why", *self.refiner.identity()}
        record = {key: value for key, value in refined.provenance["refine"].items() if key not in known}
        if notes := refined.notes[len(found.notes) :]:
            record["notes"] = notes
        return refined, _plain(record)


def check_refiners(refiners: Sequence[str], prompts: Sequence[str] | None) -> None:
    """Refuse what cannot be meant, before anything is loaded.

    Raises:
        FewshotError: no or unknown refiners, unknown strategies, or strategies that no refiner takes.
    """
    if unknown := [name for name in refiners if name not in REFINERS] or ([] if refiners else [""]):
        raise FewshotError(
            f"There is no refinement {', '.join(unknown)}: choose among {', '.join(REFINERS)}."
        )
    if prompts is None:
        return
    from fewshot.refine.prompts import PROMPTS

    if strange := [name for name in prompts if name not in PROMPTS] or ([] if prompts else [""]):
        raise FewshotError(
            f"There is no prompt strategy {', '.join(strange)}: choose among {', '.join(PROMPTS)}."
        )
    if not any(name == AUTO or takes_prompts(name) for name in refiners):
        raise FewshotError(
            f"Prompts {', '.join(prompts)} were given, but refinement {', '.join(refiners)} takes none: "
            "leave them out or refine with sam."
        )


def create_refinements(
    refiners: Sequence[str],
    prompts: Sequence[str] | None,
    options: Mapping[str, Mapping[str, Any]],
    *,
    sam: str,
    bank: FeatureBank,
    device: str,
    progress: Progress = silent,
) -> list[Refinement]:
    """All refinements of an evaluation, in order; weights are loaded once, whatever the number of strategies.

    Args:
        refiners: names that `check_refiners` let pass; ``auto`` is called by the name of what it chooses.
        prompts: strategies, for the refiners that take them; None for each one's own.
        options: refiner -> its settings that differ from the defaults.
        sam: which weights, as in `create_refiner`.
        bank: where embeddings of slices are kept.
        device: where refiners compute.
        progress: told of a download.

    Raises:
        FewshotError: an unknown option, or weights that cannot be had.
    """
    made: dict[str, Refinement] = {}
    for asked in dict.fromkeys(refiners):
        refiner = create_refiner(
            asked, sam=sam, bank=bank, device=device, options=options.get(asked), progress=progress
        )
        if refiner is None:
            found = [Refinement(asked)]
        elif prompts is None or PROMPTS_OPTION not in _settings(type(refiner).Options):
            found = [Refinement(refiner.name, refiner)]
        else:
            found = [Refinement(f"{refiner.name}:{name}", _prompted(refiner, name)) for name in prompts]
        for of in found:
            made.setdefault(of.name, of)
    return list(made.values())


def takes_prompts(name: str) -> bool:
    """Whether a refiner has strategies to choose from."""
    kind = options_of_refiner(name)
    return kind is not None and PROMPTS_OPTION in _settings(kind)


def in_order(names: Iterable[str]) -> list[str]:
    """Refinements as results list them: by refiner as registered, strategies as they were asked for."""
    order = list(REFINERS)

    def place(name: str) -> int:
        refiner = name.partition(":")[0]
        return order.index(refiner) if refiner in order else len(order)

    return sorted(names, key=place)


def _prompted(refiner: Refiner, strategy: str) -> Refiner:
    """The same refiner, sharing its weights, with another strategy."""
    settings = {name: getattr(refiner.options, name) for name in _settings(type(refiner.options))}
    other = copy.copy(refiner)
    other.options = checked_options(
        f"refinement {refiner.name}", type(refiner.options), settings | {PROMPTS_OPTION: strategy}
    )
    return other


def _settings(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind)]


def _plain(values: Mapping[str, Any]) -> Record:
    """As results.json gives them back."""
    return json.loads(json.dumps(values))
