"""--backbone auto: official weights where they are or can be had, else the embedded backbone, and it is said."""

import time
from dataclasses import replace

import pytest
import torch

from fewshot import console, options
from fewshot.adapters import ADAPTERS
from fewshot.errors import FewshotError
from fewshot.features import BACKBONES, choose_backbone, load_backbone
from fewshot.features import choice as module
from fewshot.features.choice import FALLBACK, ON_CPU, ON_GPU
from fewshot.model import Model, load_model
from fewshot.volumes import SliceSpec


@pytest.fixture(autouse=True)
def _stderr_of_now(monkeypatch):
    """Rich keeps the stream that another test may have given it."""
    monkeypatch.setattr(console.errors, "_file", None)


def test_what_auto_may_choose_exists():
    assert {ON_CPU, ON_GPU, FALLBACK} <= set(BACKBONES)
    assert BACKBONES[ON_CPU].weights.licence is BACKBONES[ON_GPU].weights.licence is None


def test_a_network_brings_the_official_weights_and_then_they_are_there(hub):
    first = choose_backbone("cpu")
    assert (first.name, first.reason) == (ON_CPU, "its weights were downloaded now")
    transfers = len(hub.transfers)
    second = choose_backbone("cpu")
    assert (second.name, second.reason) == (ON_CPU, "its weights are on this machine")
    assert len(hub.transfers) == transfers


def test_a_gpu_gets_the_larger_one(hub, monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("cuda"))
    assert choose_backbone().name == ON_GPU


@pytest.mark.parametrize("trouble", ["no network", "offline", "no answer", "refused"])
def test_without_them_it_is_the_embedded_one_within_seconds(hub, monkeypatch, trouble):
    if trouble == "no network":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif trouble == "refused":
        hub.status = 403
    else:
        monkeypatch.setattr(module, "PATIENCE", 0.3)
        hub.answers.clear()
    start = time.monotonic()
    choice = choose_backbone("cpu")
    assert time.monotonic() - start < 3
    assert choice.name == FALLBACK
    assert ON_CPU in choice.reason
    assert module.PATIENCE <= 3


def test_a_device_that_is_not_there_is_an_error(no_network):
    with pytest.raises(FewshotError, match="no device 'abacus'"):
        choose_backbone("abacus")


def test_the_command_line_says_what_it_took(hub, capfd):
    backbone = options.open_backbone("auto", "cpu")
    assert backbone.name == ON_CPU
    said = capfd.readouterr()
    assert f"Backbone {ON_CPU}: its weights were downloaded now." in said.err
    assert "Downloading the weights" in said.err
    assert said.out == ""


def test_python_may_say_auto_too(hub):
    assert load_backbone("auto", device="cpu").name == ON_CPU


def test_a_model_keeps_its_backbone_when_auto_is_asked_for(no_network, tiny, tmp_path):
    """Another choice could not read its adapter."""
    model = Model(
        adapter=ADAPTERS["basic"].create(tiny.dim, 1, {}),
        labels={"a": 1},
        spec=SliceSpec(),
        backbone="random-tiny",
        backbone_digest=tiny.digest,
        layers=tiny.layers,
        parts=[1],
        templates=[],
        scores={},
    )
    for asked in ("auto", None):
        model.require(options.open_backbone_of(model, asked, "cpu"))
    assert (
        options.open_backbone_of(replace(model, backbone="gone.pth"), "random-tiny", "cpu").name
        == "random-tiny"
    )


def test_the_model_file_holds_the_name_that_was_chosen(hub, tmp_path):
    from fewshot.features import FeatureBank
    from fewshot.pipeline import fit
    from fewshot.support import Template
    from tests.unit.conftest import blobs

    volume, labels = blobs(0)
    template = Template(volume, labels, names={"bright": 1, "dark": 2})
    model = fit(
        [template],
        adapter="basic",
        backbone=options.open_backbone("auto", "cpu"),
        bank=FeatureBank(tmp_path / "bank"),
        spec=SliceSpec(size=56),
    )
    model.save(tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").backbone == ON_CPU
