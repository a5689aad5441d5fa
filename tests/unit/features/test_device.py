"""In which precision is computed, and what is said where that cannot be."""

import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.features import load_backbone
from fewshot.features.device import DTYPE_VARIABLE, choose_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_processor_computes_in_what_it_has(monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    for name in (None, "auto"):
        monkeypatch.delenv(DTYPE_VARIABLE, raising=False)
        if name:
            monkeypatch.setenv(DTYPE_VARIABLE, name)
        assert choose_dtype(CPU) == dtype


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_environment_decides_on_every_processor(monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    monkeypatch.setenv(DTYPE_VARIABLE, str(dtype).removeprefix("torch."))
    assert choose_dtype(CPU) == dtype
    backbone = load_backbone("random-tiny", device="cpu")
    assert backbone.dtype == dtype
    assert torch.isfinite(backbone.features(torch.rand(1, 56, 56))).all()


def test_another_precision_is_refused(monkeypatch):
    monkeypatch.setenv(DTYPE_VARIABLE, "float16")
    with pytest.raises(FewshotError, match="FEWSHOT_DTYPE is 'float16'; use auto, float32 or bfloat16"):
        choose_dtype(CPU)
