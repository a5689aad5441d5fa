"""results.json of landmarks: units are the views of a case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fewshot.evaluation.landmarks.summary import summarise, summarise_all
from fewshot.evaluation.landmarks.views import HALVES, WHOLE
from fewshot.evaluation.store import ResultStore


class LandmarkStore(ResultStore):
    """The results of one evaluation of landmarks; its variants are the views."""

    TASK: ClassVar[str] = "landmarks"
    VARIANT: ClassVar[str] = "view"
    VARIANTS: ClassVar[str] = "views"

    def condensed(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"summary": summarise(rows), "overall": summarise_all(rows)}

    def in_order(self) -> list[str]:
        return [view for view in (WHOLE, *HALVES) if view in self.refiners]
