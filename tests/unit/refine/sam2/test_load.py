from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.refine.sam2 import load_sam2
from fewshot.refine.sam2.architecture import Architecture, build, recognise


def configurations():
    import sam2
    from omegaconf import OmegaConf

    folder = Path(sam2.__file__).parent / "configs"
    return {
        f"{path.parent.name}/{path.name}": OmegaConf.load(path).model
        for path in sorted(folder.glob("sam2*/sam2*_hiera_?*.yaml"))
        if path.parent.name in ("sam2", "sam2.1")
    }


def outline(model):
    """Names and sizes of the tensors that tell an architecture."""
    trunk = model.image_encoder.trunk
    state = {
        "image_encoder.trunk.patch_embed.proj.weight": torch.empty(
            trunk.get("embed_dim", 96), 3, 7, 7, device="meta"
        )
    }
    for block in range(sum(trunk.get("stages", (2, 3, 16, 3)))):
        state[f"image_encoder.trunk.blocks.{block}.norm1.weight"] = torch.empty(1, device="meta")
    if model.get("proj_tpos_enc_in_obj_ptrs"):
        state["obj_ptr_tpos_proj.weight"] = torch.empty(1, device="meta")
    return state


def test_every_architecture_of_the_package_is_recognised(sam):
    found = {file: recognise("some.pt", outline(model)) for file, model in configurations().items()}
    assert len(found) == 8
    assert {file: architecture.file for file, architecture in found.items()} == {file: file for file in found}


def test_medsam2_is_known_by_its_name_and_has_smaller_images(sam):
    state = outline(configurations()["sam2.1/sam2.1_hiera_t.yaml"])
    assert recognise("/models/MedSAM2_latest.pt", state).changes == {"image_size": 512}
    assert recognise("med-sam2.pt", state).changes == {"image_size": 512}
    assert recognise("sam2.1_hiera_tiny", state).changes == {}
    assert recognise("/medsam2/sam2.1_hiera_tiny.pt", state).changes == {}


@pytest.fixture(scope="module")
def tiny_state(sam):
    torch.manual_seed(0)
    return build(Architecture("sam2.1/sam2.1_hiera_t.yaml", {})).state_dict()


def test_an_official_size_is_loaded_from_its_tensors(tiny_state):
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    model = load_sam2("sam2.1_hiera_tiny", tiny_state, device="cpu", dtype=torch.float32)
    assert (model.kind, model.size, model.note, model.name) == ("sam2", 1024, None, "sam2.1_hiera_tiny")
    assert all(torch.equal(value, tiny_state[key]) for key, value in model.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert GlobalHydra.instance().hydra is before


def test_medsam2_encodes_images_of_512(tiny_state):
    model = load_sam2("MedSAM2_latest.pt", tiny_state, device="cpu", dtype=torch.float32)
    embedding = model.encode(np.zeros((1, 512, 384), np.float32))[0]
    assert {key: value.shape for key, value in embedding.items()} == {
        "features": (256, 32, 32),
        "fine": (32, 128, 128),
        "medium": (64, 64, 64),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.pop("no_mem_embed"),
            "1 tensors missing, 0 unknown, 0 of another shape, first no_mem_embed",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), "0 tensors missing, 1 unknown"),
        (lambda s: s.update(no_mem_embed=torch.zeros(1)), "0 unknown, 1 of another shape"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tiny_state, change, said):
    state = dict(tiny_state)
    change(state)
    with pytest.raises(FewshotError, match=f"broken.pt looks like a SAM 2 .*{said}"):
        load_sam2("broken.pt", state, device="cpu")


def test_other_networks_are_refused(tiny_state):
    with pytest.raises(FewshotError, match="other.pt holds no SAM 2 model"):
        load_sam2("other.pt", {"blocks.0.weight": torch.zeros(2)}, device="cpu")
    odd = {key: value for key, value in tiny_state.items() if ".blocks.11." not in key}
    with pytest.raises(FewshotError, match="odd.pt holds no SAM 2 model"):
        load_sam2("odd.pt", odd, device="cpu")
    with pytest.raises(FewshotError, match="no weights of sam2.1_hiera_tiny"):
        load_sam2("sam2.1_hiera_tiny", None)


def test_random_weights_are_the_same_each_time_and_said_to_be_random(sam):
    again = load_sam2("random-tiny-2", None, device="cpu")
    assert again.digest == sam.digest
    assert sam.note == "random weights"
    assert sam.size % sam.patch == 0
