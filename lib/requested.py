"""What requests may call things that become files here, and what they may tell of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

RESERVED = frozenset({"ts", "name", "SeriesInstanceUID"})
"""What only the server says of a label."""


def require_tag(tag: str) -> None:
    """Refuse a tag that cannot be the name of a folder of labels.

    Raises:
        HTTPException: 422.
    """
    if not re.fullmatch(r"\w[\w.-]*", tag or ""):
        raise HTTPException(422, f"A label cannot have the tag {tag!r}: use final or original.")


def millimetres(request: Mapping[str, Any], key: str) -> float | None:
    """A length that a viewer sent; None where the field is empty, 0 or not there.

    Raises:
        HTTPException: 422 if it is no length.
    """
    value = request.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if math.isnan(number):  # an emptied field of OHIF
        return None
    if not 0 <= number < math.inf:
        raise HTTPException(
            422, f"{key} is {value!r:.60}: give millimetres above 0, or nothing for the usual."
        )
    return number or None


def require_image_id(image_id: str) -> None:
    """Refuse an image id that cannot be the name of a file; blanks may be in it.

    Raises:
        HTTPException: 422.
    """
    if not re.fullmatch(r"[^\W.][^/\\\x00-\x1f]*", image_id):
        raise HTTPException(
            422, f"An image cannot be called {image_id!r}: begin with a letter or digit, and use no slash."
        )


def tellable(info: Any) -> dict[str, Any]:
    """What a request tells of an image or a label, without what only the server says.

    Raises:
        HTTPException: 422 if it is no JSON object.
    """
    if not isinstance(info, Mapping):
        raise HTTPException(422, 'info must be a JSON object such as {"status": "approved"}.')
    return {str(key): value for key, value in info.items() if key not in RESERVED}
