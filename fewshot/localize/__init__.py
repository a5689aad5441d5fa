"""From class maps to structures."""

from fewshot.localize.components import MAX_PARTS, count_parts, keep_components

__all__ = ["MAX_PARTS", "count_parts", "keep_components"]
