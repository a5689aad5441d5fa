"""Makes torchvision importable where its compiled operators do not fit the installed torch.

MONAI Label pulls torchvision in, and timm imports it. Beside a CPU build of torch its compiled library cannot load
and ``import torchvision`` fails, because it describes operators that nobody defined. We use none of these
operators; declaring their names is enough. With a matching pair of torch and torchvision nothing is changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache

import torch

MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def ensure() -> object | None:
    """Import torchvision, declaring its missing operators first where its own library did not load.

    Returns:
        The library handle that keeps the declarations alive, or None where nothing had to be done.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported leftovers of the failed attempt
    library = torch.library.Library("torchvision", "DEF")
    for schema in MISSING_SCHEMAS:
        library.define(schema)
    importlib.import_module("torchvision")
    return library
