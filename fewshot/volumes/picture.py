"""Two-dimensional pictures: PNG, JPG and TIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fewshot.errors import FewshotError
from fewshot.volumes.raw import Raw, damaged

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Columns run to the patient's left and rows to the back: the axial slice shows the picture as it is."""


def read_picture(path: Path, *, labels: bool = False) -> Raw:
    """Read a picture as [X, Y, 1] with X the column and Y the row; colour as channels.

    Args:
        path: The file.
        labels: Whether the numbers of a palette are meant, not its colours.

    Raises:
        FewshotError: The file is damaged or has several pages.
    """
    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1:
                raise FewshotError(f"{path} has {pages} pages; save the one to work on as its own picture.")
            array = _pixels(ImageOps.exif_transpose(picture), labels=labels)
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, error) from error
    channels = array.ndim == 3
    array = array.swapaxes(0, 1)[:, :, np.newaxis]
    return Raw(array, AFFINE.copy(), channels=channels, placed=False, calibrated=False)


def write_picture(path: Path, array: np.ndarray) -> None:
    """Write unsigned integers [X, Y, 1] as a grey PNG of 8 or 16 bits."""
    Image.fromarray(np.ascontiguousarray(array[:, :, 0].T)).save(path)


def _pixels(picture: Image.Image, *, labels: bool) -> np.ndarray:
    """Pixels [rows, cols] or [rows, cols, C]; transparency dropped."""
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in ("LA", "La"):
        return np.asarray(picture.convert("LA"))[..., 0]
    if labels and picture.mode == "P":
        return np.asarray(picture)
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        return np.asarray(picture)
    return np.asarray(picture.convert("RGB"))
