"""Clicks and refinement through a real server, as 3D Slicer and OHIF ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
import requests
import SimpleITK as sitk

from fewshot.phantoms import ORGANS
from tests.server.conftest import LABELS, Server, partial, sentence, write_studies
from tests.server.test_loop import assert_on_the_grid_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def clicked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one template that refines and answers clicks with a small SAM."""
    root = tmp_path_factory.mktemp("clicked")
    truth = write_studies(root / "studies", count=3)
    server = Server(root, root / "studies", conf={"sam": "random-tiny"})
    try:
        server.wait()
        answer = server.submit("ct_0", partial(truth["ct_0"]), list(LABELS))
        assert answer.status_code == 200, answer.text
        yield server
    finally:
        server.stop()


def liver(truth: dict[str, np.ndarray], image: str) -> list[list[int]]:
    """Voxels of the liver, the first one in the middle of its largest slice."""
    shown = truth[image] == ORGANS["liver"]
    largest = int(shown.sum((0, 1)).argmax())
    inside = np.argwhere(shown[:, :, largest])
    order = ((inside - inside.mean(0)) ** 2).sum(1).argsort()
    return [[int(i), int(j), largest] for i, j in inside[order]]


class TestPoints:
    def test_viewers_find_them(self, clicked: Server):
        models = clicked.client.info()["models"]
        assert list(models)[-2:] == ["points", "points_volume"]
        assert {models[name]["type"] for name in ("points", "points_volume")} == {"deepgrow"}
        assert [models[name]["dimension"] for name in ("points", "points_volume")] == [2, 3]
        assert models["points"]["labels"] == models["fewshot"]["labels"]

    def test_slicer_clicks_on_a_slice_again_and_again(self, clicked: Server, truth: dict):
        inside = liver(truth, "ct_1")
        for count in (1, 2, 4):
            sent = {"label": "liver", "foreground": inside[:count], "background": [[0, 0, inside[0][2]]]}
            file, result = clicked.segment("points", "ct_1", **sent, slice=inside[0][2], reset_state=True)
            found = assert_on_the_grid_of(clicked, "ct_1", file).transpose(2, 1, 0)
            assert set(np.unique(found)) <= {0, 1}
            assert set(np.flatnonzero(found.any((0, 1)))) <= {inside[0][2]}
            assert result["label_names"] == {"liver": 1}
            assert result["how"] == "sam"
            assert result["provenance"]["sam"] == "random-tiny"
            assert result["provenance"]["foreground"] == count
            assert isinstance(result["notes"], list)
            json.dumps(result)

    def test_through_the_volume(self, clicked: Server, truth: dict):
        inside = liver(truth, "ct_1")
        file, result = clicked.segment("points_volume", "ct_1", label="a new one", foreground=inside[:2])
        found = assert_on_the_grid_of(clicked, "ct_1", file)
        assert set(np.unique(found)) <= {0, 1}
        assert result["label_names"] == {"a new one": 1}
        assert "a new one" not in clicked.client.info()["labels"]

    def test_as_ohif_asks(self, clicked: Server, truth: dict):
        answer = requests.post(
            f"{clicked.url}/infer/points",
            params={"image": "ct_1", "output": "image"},
            data={
                "params": json.dumps(
                    {
                        "foreground": liver(truth, "ct_1")[:1],
                        "background": [],
                        "result_extension": ".nrrd",
                        "result_dtype": "uint8",
                        "result_compress": False,
                        "restore_label_idx": False,
                    }
                )
            },
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        (clicked.root / "ohif.nrrd").write_bytes(answer.content)
        assert_on_the_grid_of(clicked, "ct_1", clicked.root / "ohif.nrrd")

    def test_a_session_image_and_one_that_was_opened_are_made_ready(self, clicked: Server, truth: dict):
        file = clicked.studies / "ct_2.nii.gz"
        session = clicked.client.create_session(str(file))["session_id"]
        sent = {"result_extension": ".nrrd", "foreground": liver(truth, "ct_2")[:1]}
        answer, _ = clicked.client.infer("points", "", sent, session_id=session)
        assert_on_the_grid_of(clicked, "ct_2", answer)
        clicked.client.remove_session(session)
        sample = clicked.client.next_sample("first", {})
        image = requests.get(f"{clicked.url}/datastore/image", params={"image": sample["id"]}, timeout=60)
        assert image.content == (clicked.studies / f"{sample['id']}.nii.gz").read_bytes()
        assert requests.head(f"{clicked.url}/datastore/image", params={"image": "ct_2"}, timeout=60).ok
        end = time.monotonic() + 30
        while f"{sample['id']}.nii.gz is ready for clicks" not in clicked.log.read_text():
            assert time.monotonic() < end
            time.sleep(0.1)

    @pytest.mark.parametrize(
        ("image", "sent", "status", "words"),
        [
            ("ct_1", {}, 422, "no foreground point"),
            ("ct_1", {"foreground": [[4, 4, 4]], "slice": 5}, 422, "no foreground point on slice 5"),
            ("ct_1", {"foreground": [[4, 4, 99]]}, 422, "[4, 4, 99] lies outside of the image"),
            ("ct_1", {"foreground": [[4, 4]]}, 422, "is no voxel"),
            ("ct_1", {"foreground": "here"}, 422, "send a list of points"),
            ("ct_1", {"foreground": [[4, 4, 4]], "background": [[4, 4, 4]]}, 422, "at once"),
            ("ct_1", {"foreground": [[4, 4, 4]], "label": "background"}, 422, "cannot be called background"),
            ("zz", {"foreground": [[4, 4, 4]]}, 404, "no image zz"),
        ],
    )
    def test_what_is_no_click_is_told(self, clicked: Server, image: str, sent: dict, status: int, words: str):
        assert words in sentence(clicked.infer("points", image, **sent), status)

    def test_a_batch_of_clicks_is_refused(self, clicked: Server):
        answer = requests.post(f"{clicked.url}/batch/infer/points", json={}, timeout=60)
        assert "answers clicks" in sentence(answer, 422)


class TestRefinement:
    def test_viewers_find_the_choices(self, clicked: Server):
        config = clicked.client.info()["models"]["fewshot"]["config"]
        assert config["refine"] == ["auto", "none", "walker", "sam", "sam2"]
        assert config["prompts"][0] == "random"

    def test_as_slicer_asks_with_all_options(self, clicked: Server):
        config = clicked.client.info()["models"]["fewshot_basic"]["config"]
        sent = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
        _, plain = clicked.segment("fewshot_basic", "ct_1", **{**sent, "refine": "none"})
        file, refined = clicked.segment("fewshot_basic", "ct_1", **sent)  # auto: the model that was named
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        assert "refine" not in plain["provenance"]
        said = refined["provenance"]["refine"]
        assert (said["refiner"], said["sam"], said["prompts"]) == ("sam", "random-tiny", "random")
        assert set(np.unique(values)) <= {0, *refined["label_names"].values()}
        assert refined["timings"]["refine"] > 0

    def test_what_cannot_be_refined_is_told(self, clicked: Server):
        assert "no refinement snake" in sentence(clicked.infer("fewshot_basic", "ct_1", refine="snake"), 422)

    def test_the_default_adapter_without_weights(self, trained: Server):
        file, result = trained.segment("fewshot", "ct_1")
        assert_on_the_grid_of(trained, "ct_1", file)
        assert result["provenance"]["refine"]["refiner"] == "walker"
