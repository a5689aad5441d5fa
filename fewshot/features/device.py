"""Where and in which precision a backbone runs."""

from __future__ import annotations

import os

import torch

from fewshot.errors import FewshotError

DTYPE_VARIABLE = "FEWSHOT_DTYPE"
DTYPES = ("auto", "float32", "bfloat16")


def choose_device(name: str = "auto") -> torch.device:
    """The GPU when there is one and nothing else was asked for.

    Raises:
        FewshotError: if the device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise FewshotError(f"There is no device '{name}'; use auto, cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FewshotError(f"Device '{name}' was asked for, but this torch sees no GPU; use cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FewshotError(f"Device '{name}' was asked for, but there are {torch.cuda.device_count()} GPUs.")
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (there it is 2 to 4 times faster), else float32.

    The environment variable FEWSHOT_DTYPE (auto, float32 or bfloat16) decides for all devices; with float32 processors
    with and without bfloat16 give the same results up to rounding.

    Raises:
        FewshotError: if the variable says something else.
    """
    name = os.environ.get(DTYPE_VARIABLE, "auto")
    if name not in DTYPES:
        raise FewshotError(f"{DTYPE_VARIABLE} is '{name}'; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
