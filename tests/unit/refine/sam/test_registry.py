"""Models by name: what there is, what is on this machine, downloads."""

import hashlib
import re

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from fewshot.errors import FewshotError
from fewshot.refine.sam import SAMS, check_sam, choose_sam, load_sam, registry, sam_at_hand
from tests.unit.features.hub import COMMIT, serve_hub
from tests.unit.refine.sam.published import same_parameters

WHAT_TO_DO = r"give a checkpoint file \(--sam FILE\), or use embedded"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads, and no embedded SAM."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(registry, "EMBEDDED", tmp_path / "embedded-sam.safetensors")
    return tmp_path / "hub"


def put(cache, name, content: bytes = b"x") -> None:
    """What a download leaves in the cache."""
    weights = SAMS[name].weights
    folder = cache / f"models--{weights.repository.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / weights.file).symlink_to(blob)


def test_names_that_were_agreed():
    assert set(SAMS) == {
        "embedded",
        "sam_vit_b",
        "sam_vit_l",
        "sam_vit_h",
        "medsam",
        "mobile_sam",
        "sam2.1_hiera_tiny",
        "sam2.1_hiera_small",
        "sam2.1_hiera_base_plus",
        "sam2.1_hiera_large",
        "random-tiny",
        "random-tiny-2",
    }
    assert {name for name, entry in SAMS.items() if entry.kind == "sam2"} == {
        name for name in SAMS if name.startswith("sam2.1") or name == "random-tiny-2"
    }


def test_sam2_files_are_those_that_its_package_names():
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    official = {repository: file for repository, (_, file) in HF_MODEL_ID_TO_FILENAMES.items()}
    ours = [entry.weights for name, entry in SAMS.items() if name.startswith("sam2.1")]
    assert len(ours) == 4
    assert all(official[weights.repository] == weights.file for weights in ours)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sam_vit_x", "There is no SAM 'sam_vit_x': give a checkpoint file .*or sam_vit_b would come close"),
        ("SAM2.1_hiera_tinny", "sam2.1_hiera_tiny"),
        ("nothing at all", "one of embedded, sam_vit_b"),
        ("weights/sam.pth", "no SAM file or folder weights/sam.pth; check the path"),
    ],
)
def test_unknown_names_are_told(name, words):
    for ask in (check_sam, load_sam):
        with pytest.raises(FewshotError, match=words) as caught:
            ask(name)
        assert "\n" not in str(caught.value)


def test_names_and_files_pass(file, monkeypatch):
    assert check_sam("mobile_sam") == "mobile_sam"
    assert check_sam("auto") == "auto"
    monkeypatch.chdir(file.parent)
    assert check_sam(file.name) == str(file.resolve())


def test_the_random_one_is_the_same_everywhere(tiny_sam):
    again = load_sam("random-tiny", device="cpu")
    assert tiny_sam.digest == again.digest == "babd0067fd182868"
    assert (again.name, again.kind, again.size, again.patch) == ("random-tiny", "sam", 64, 8)
    assert again.note == "random weights"


def test_the_digest_is_of_the_values(loaded, file, tmp_path):
    state = torch.load(file)
    state["mask_decoder.iou_token.weight"][0, 0] += 1
    torch.save(state, tmp_path / "other.pth")
    other = load_sam(str(tmp_path / "other.pth"), device="cpu")
    assert re.fullmatch("[0-9a-f]{16}", loaded.digest)
    assert load_sam(str(file), device="cpu").digest == loaded.digest != other.digest


def test_an_installation_without_the_embedded_one_is_told(cache):
    assert not sam_at_hand("embedded")
    with pytest.raises(FewshotError, match="embedded SAM is not part of this installation.*give another"):
        load_sam("embedded", device="cpu")


def test_what_is_at_hand(cache, file):
    assert not sam_at_hand("sam_vit_b")
    assert sam_at_hand("random-tiny")
    assert sam_at_hand(str(file))
    assert not sam_at_hand(str(file) + "x")
    put(cache, "sam_vit_b")
    assert sam_at_hand("sam_vit_b")
    assert not sam_at_hand("sam_vit_l")


def test_the_choice_where_nobody_names_one(cache):
    assert choose_sam(None) is choose_sam("sam") is choose_sam("sam2") is None
    with pytest.raises(FewshotError, match="No SAM weights are on this machine; give a name"):
        load_sam("auto")
    registry.EMBEDDED.write_bytes(b"")
    assert sam_at_hand("embedded")
    assert choose_sam(None) is choose_sam("sam") is None, "what needs no weights does better"
    assert choose_sam("sam2") is None
    put(cache, "sam2.1_hiera_large")
    assert (choose_sam("sam"), choose_sam("sam2"), choose_sam(None)) == (
        None,
        "sam2.1_hiera_large",
        "sam2.1_hiera_large",
    )
    put(cache, "sam2.1_hiera_tiny")
    assert choose_sam("sam2") == "sam2.1_hiera_tiny"
    put(cache, "sam_vit_h")
    assert choose_sam("sam") == "sam_vit_h"
    put(cache, "sam_vit_b")
    assert choose_sam("sam") == choose_sam(None) == "sam_vit_b"
    assert choose_sam("sam", quick=True) is None, "nobody waits half a minute for a click"
    assert choose_sam(quick=True) == "sam2.1_hiera_tiny"


def test_a_name_is_downloaded_once(cache, original, monkeypatch):
    told = []
    with serve_hub(save(original.state_dict())) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        model = load_sam("sam_vit_b", device="cpu", progress=lambda stage, *_, **__: told.append(stage))
        assert {path for _, path, _ in hub.requests} == {
            "/facebook/sam-vit-base/resolve/main/model.safetensors"
        }
    assert same_parameters(model, original)
    assert model.name == "sam_vit_b"
    assert set(told) == {"download"}
    assert load_sam("sam_vit_b", device="cpu").digest == model.digest  # the hub is gone


def test_another_files_name_is_asked_for(cache, original, file, monkeypatch):
    with serve_hub(file.read_bytes()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        model = load_sam("medsam", device="cpu", progress=lambda *_, **__: None)
        assert {path for _, path, _ in hub.requests} == {
            "/wanglab/medsam-vit-base/resolve/main/pytorch_model.bin"
        }
    assert model.digest.endswith("-unit")
    assert model.note is None
    assert sam_at_hand("medsam")


def test_no_network_is_told(cache):
    for name in ("sam_vit_b", "mobile_sam", "sam2.1_hiera_tiny"):
        with pytest.raises(FewshotError, match=f"weights of {name} .*cannot be downloaded.*{WHAT_TO_DO}"):
            load_sam(name, device="cpu")
