"""Official weights by name: downloaded once, checked, and used without network from then on."""

import time

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load as load_tensors

from fewshot.errors import FewshotError
from fewshot.features import BACKBONES, load_backbone
from fewshot.features.download import Weights, cached, fetch, present

NAME = "dinov2_vits14_reg"
WEIGHTS = BACKBONES[NAME].weights
WHAT_TO_DO = r"give a checkpoint file \(--backbone FILE, or --conf backbone FILE\), or use embedded"


def test_a_name_is_downloaded_with_progress_and_loads(hub, cache, weights_file, capfd):
    told = []
    backbone = load_backbone(
        NAME,
        device="cpu",
        dtype=torch.float32,
        progress=lambda stage, done, total, **_: told.append((stage, done, total)),
    )
    assert (backbone.name, backbone.patch, backbone.size) == (NAME, 14, 448)
    assert backbone.features(torch.rand(1, 28, 42)).shape == (1, 2, 3, 128)
    megabytes = -(-len(weights_file) // 1_000_000)
    assert told[0] == ("download", 0, megabytes)
    assert told[-1] == ("download", megabytes, megabytes)
    assert {path for _, path, _ in hub.requests} == {
        "/timm/vit_small_patch14_reg4_dinov2.lvd142m/resolve/main/model.safetensors"
    }
    assert capfd.readouterr().out == ""
    assert [path.name for path in cache.rglob("*.safetensors")] == ["model.safetensors"]


def test_without_a_listener_a_bar_appears_on_stderr(hub, monkeypatch, capfd):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # the hub's word for: draw though this is no terminal
    fetch(NAME, WEIGHTS)
    shown = capfd.readouterr()
    assert "model.safetensors" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


def test_what_is_in_the_cache_needs_no_network(hub, monkeypatch):
    path = fetch(NAME, WEIGHTS)
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(NAME, WEIGHTS) == path
    assert load_backbone(NAME, device="cpu").name == NAME
    assert len(hub.requests) == asked


def test_a_file_with_another_checksum_is_removed_and_told(hub, cache):
    hub.checksum = "ab" * 32
    with pytest.raises(
        FewshotError, match=r"weights of dinov2_vits14_reg do not have the checksum.*was removed"
    ):
        fetch(NAME, WEIGHTS)
    assert not list(cache.rglob("*.safetensors"))
    assert not [path for path in cache.rglob("blobs/*") if path.is_file()]
    assert cached(WEIGHTS) is None


def test_a_file_that_was_damaged_in_the_cache_is_downloaded_again(hub, weights_file, caplog):
    path = fetch(NAME, WEIGHTS)
    blob = path.resolve()
    blob.write_bytes(weights_file[:-1] + b"!")
    again = fetch(NAME, WEIGHTS)
    assert "does not have its checksum any more" in caplog.text
    assert again.read_bytes() == weights_file
    assert len(hub.transfers) == 2


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, weights_file, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.broken = 1
    assert fetch(NAME, WEIGHTS).read_bytes() == weights_file
    first, second = hub.transfers
    assert first is None
    assert (
        len(weights_file) // 2 - (1 << 16)
        < int(second.removeprefix("bytes=").rstrip("-"))
        <= len(weights_file) // 2
    )


def test_an_abandoned_download_leaves_nothing_that_is_taken_for_weights(hub, cache, weights_file):
    def cancel(stage, done, total, **_):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, WEIGHTS, progress=cancel)
    assert not list(cache.rglob("*.safetensors"))
    assert load_tensors(fetch(NAME, WEIGHTS).read_bytes())


@pytest.mark.parametrize(("name", "licence"), [("dinov3_vits16", "the DINOv3 licence"), (NAME, "a licence")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_licence_that_must_be_accepted_is_told(hub, name, licence, status):
    hub.status = status
    with pytest.raises(
        FewshotError, match=f"answers {status}: accept {licence} at .*hf auth login.*{WHAT_TO_DO}"
    ):
        load_backbone(name)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_hub_that_does_not_have_it_is_told(hub, status):
    hub.status = status
    with pytest.raises(FewshotError, match=f"answers {status}.*{WHAT_TO_DO}") as caught:
        load_backbone(NAME)
    assert "\n" not in str(caught.value)


def test_a_file_without_checksum_is_not_downloaded(hub):
    hub.checksum = "0123456789abcdef"
    with pytest.raises(FewshotError, match="tells no SHA-256"):
        fetch(NAME, WEIGHTS)
    assert not hub.transfers


def test_no_network_is_told_at_once(no_network):
    start = time.monotonic()
    with pytest.raises(FewshotError, match=f"cannot be downloaded.*{WHAT_TO_DO}"):
        load_backbone(NAME)
    assert time.monotonic() - start < 3


def test_a_hub_that_does_not_answer_is_not_waited_for(hub):
    hub.answers.clear()
    start = time.monotonic()
    with pytest.raises(FewshotError, match=r"no answer|timed out"):
        fetch(NAME, WEIGHTS, patience=0.3)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("said", ["1", "true", "YES"])
def test_offline_mode_is_honoured(hub, monkeypatch, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", said)
    with pytest.raises(FewshotError, match=f"HF_HUB_OFFLINE is set.*{WHAT_TO_DO}"):
        load_backbone(NAME)
    assert not hub.requests


def test_a_cache_without_links_is_used(hub, cache):
    """Where links are switched off, the cache holds copies that do not tell their checksum."""
    path = fetch(NAME, WEIGHTS)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    asked = len(hub.requests)
    assert fetch(NAME, WEIGHTS) == path
    assert len(hub.requests) == asked


def test_only_safetensors_are_downloaded():
    from fewshot.features import download

    assert download.FILE.endswith(".safetensors")
    assert all(isinstance(entry.weights, Weights | None) for entry in BACKBONES.values())
    assert {entry.weights.file for entry in BACKBONES.values() if entry.weights} == {download.FILE}


def test_another_file_of_a_repository_can_be_named(hub, weights_file):
    other = Weights("somebody/something", file="other.bin", option="--sam FILE")
    assert not present(other)
    assert fetch("it", other).read_bytes() == weights_file
    assert {path for _, path, _ in hub.requests} == {"/somebody/something/resolve/main/other.bin"}
    assert present(other)
    assert not present(Weights("somebody/something"))
    hub.status = 404
    with pytest.raises(FewshotError, match=r"give a checkpoint file \(--sam FILE\), or use embedded"):
        fetch("it", Weights("somebody/else", option="--sam FILE"))
