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


QUICK = ("mobile_sam", "sam2.1_hiera_tiny", "sam2.1_hiera_small")
"""Those that encode a slice in a second or two without a GPU; a ViT-B takes half a minute."""


def choose_sam(kind: str | None = None, *, quick: bool = False) -> str | None:
    """The best official model that can be loaded without network.

    The embedded one never counts: it does less than the ways that need no weights (docs/results.md), so who wants it
    names it.

    Args:
        kind: ``sam`` or ``sam2``; None for any.
        quick: only models that a person can wait for without a GPU.

    Returns:
        A name of ``SAMS`` whose weights are in the cache of downloads, or None.
    """
    names = [name for name in OFFICIAL if kind in (None, SAMS[name].kind) and (name in QUICK or not quick)]
    return next((name for name in names if sam_at_hand(name)), None)
