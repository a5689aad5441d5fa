"""Which Segment Anything is used where nobody names one."""

from __future__ import annotations

from fewshot.refine.sam.registry import SAMS, sam_at_hand

OFFICIAL = (
    "sam_vit_b",
    "mobile_sam",
    "sam_vit_l",
    "sam_vit_h",
    "medsam",
    "sam2.1_hiera_tiny",
    "sam2.1_hiera_small",
    "sam2.1_hiera_base_plus",
    "sam2.1_hiera_large",
)
"""Downloaded ones, in order of preference: larger ones cost more time than they gain. MedSAM was trained with boxes
only, so it comes after those that take points."""


def choose_sam(kind: str | None = None) -> str | None:
    """The best model that can be loaded without network.

    Args:
        kind: ``sam`` or ``sam2``; None for any.

    Returns:
        A name of ``SAMS``: an official one from the cache of downloads, else ``embedded``, else None.
    """
    names = [name for name in (*OFFICIAL, "embedded") if kind in (None, SAMS[name].kind)]
    return next((name for name in names if sam_at_hand(name)), None)
