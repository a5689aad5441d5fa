"""POST /infer/wsi/{model}: whole-slide images, which no model here takes."""

from __future__ import annotations

from fastapi import HTTPException


def refuse(model: str) -> None:
    """Say so; MONAI Label would compute at once, past the queue."""
    raise HTTPException(
        404, f"{model} takes no whole-slide images: this app segments volumes, at /infer/{model}."
    )
