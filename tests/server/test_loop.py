"""The annotator's loop: next sample, submit, train, infer, as 3D Slicer and OHIF do it."""

from __future__ import annotations

import json
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk

from fewshot.phantoms import make_study
from tests.server.conftest import LABELS, TRAINED, Server, partial, sentence, wait_for

pytestmark = pytest.mark.server
MODELS = ["fewshot", "fewshot_contrastive", "fewshot_classification", "fewshot_basic"]
LANDMARKS = "landmarks"
CLICKED = ["points", "points_volume"]


class TestBeforeAnything:
    def test_all_models_are_listed_in_their_order(self, fresh: Server):
        info = fresh.client.info()
        assert list(info["models"]) == [*MODELS, LANDMARKS, *CLICKED]
        types = {name: model["type"] for name, model in info["models"].items()}
        assert types == dict.fromkeys([*MODELS, LANDMARKS], "segmentation") | dict.fromkeys(
            CLICKED, "deepgrow"
        )
        assert list(info["trainers"]) == [*MODELS[:3], LANDMARKS, "backbone"]
        assert set(info["strategies"]) == {"random", "first"}
        assert info["scoring"] == {}
        assert info["labels"] == []
        for task in (*info["models"].values(), *info["trainers"].values()):
            for choices in task["config"].values():
                assert not isinstance(choices, list | dict) or all(
                    isinstance(choice, str) for choice in choices
                )

    @pytest.mark.parametrize("model", MODELS)
    def test_an_inference_says_what_to_do_first(self, fresh: Server, model: str):
        detail = sentence(fresh.infer(model, "ct_0"), 409)
        assert detail.startswith("No template yet: label a structure in one study, submit it, ")
        assert ("press Train" in detail) is (model != "fewshot_basic")

    @pytest.mark.parametrize(
        "path", ["train/fewshot", "train/fewshot_contrastive", "train/", "batch/infer/fewshot"]
    )
    def test_a_training_is_refused_at_once(self, fresh: Server, path: str):
        answer = requests.post(f"{fresh.url}/{path}", json={}, timeout=300)
        assert "No template yet" in sentence(answer, 409)
        assert not fresh.client.train_status(check_if_running=True)

    @pytest.mark.parametrize("strategy", ["random", "first"])
    def test_the_next_sample(self, fresh: Server, strategy: str):
        sample = fresh.client.next_sample(strategy, {})
        assert sample["id"] in {"ct_0", "ct_1", "ct_2", "ct_3"}
        if strategy == "first":
            assert sample["id"] == "ct_0"
        assert sample["path"] == str((fresh.studies / f"{sample['id']}.nii.gz").resolve())

    def test_the_next_sample_twice_within_a_second(self, fresh: Server):
        for _ in range(4):
            fresh.client.next_sample("random", {})


def assert_on_the_grid_of(server: Server, image: str, file) -> np.ndarray:
    """The result lies on the image's own grid; returns its values."""
    asked, answered = sitk.ReadImage(str(server.studies / f"{image}.nii.gz")), sitk.ReadImage(str(file))
    assert answered.GetSize() == asked.GetSize()
    np.testing.assert_allclose(answered.GetSpacing(), asked.GetSpacing(), atol=1e-5)
    np.testing.assert_allclose(answered.GetOrigin(), asked.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(answered.GetDirection(), asked.GetDirection(), atol=1e-6)
    assert answered.GetPixelID() == sitk.sitkUInt8
    return sitk.GetArrayFromImage(answered)


class TestLoop:
    def test_submitted_names_are_the_apps_labels(self, annotated: Server):
        info = annotated.client.info()
        assert info["labels"][:3] == ["Segment_1", *LABELS]
        assert info["models"]["fewshot"]["labels"] == {n: v for v, n in enumerate(info["labels"], start=1)}
        assert info["datastore"]["completed"] == 1

    def test_features_of_a_submitted_image_are_computed_in_the_background(self, annotated: Server):
        wait_for(lambda: list((annotated.root / "bank").glob("*.safetensors")), seconds=60)

    def test_basic_works_right_after_the_first_submit(self, annotated: Server):
        file, result = annotated.segment("fewshot_basic", "ct_1")
        values = assert_on_the_grid_of(annotated, "ct_1", file)
        assert set(np.unique(values)) <= {0, 2, 3}
        assert result["provenance"]["templates"] == ["ct_0"]

    def test_the_statistics_change_during_a_training(self, trained: Server):
        for seen in trained.training_seen.values():  # type: ignore[attr-defined]
            running = [entry for entry in seen if entry and "total_time" not in entry]
            assert len({(entry["epoch"], entry["stage"]) for entry in running}) > 1
            last = seen[-1]
            assert 0 < last["epoch"] <= last["total_epochs"] == 6
            assert 0.5 < last["best_metric"] <= 1
            assert last["total_time"]
            assert abs(last["start_ts"] - time.time()) < 600

    def test_the_training_that_started_last_is_shown_first(self, trained: Server):
        stats = trained.client.info()["train_stats"]
        starts = [entry.get("start_ts", 0) for entry in stats.values()]
        assert starts == sorted(starts, reverse=True)

    def test_the_dice_to_expect_is_told(self, trained: Server):
        """A few slices of one study say nothing of other patients; that is said, and in the training's log as well."""
        stats = trained.client.info()["train_stats"]
        assert stats["fewshot"]["expected_dice"] is None
        assert "label a second study" in stats["fewshot"]["expected_dice_of"]
        assert "expected_dice" not in stats["fewshot_contrastive"]
        assert "Expected Dice of fewshot: None, too little is labelled" in trained.log.read_text()

    @pytest.mark.parametrize("model", [*TRAINED, "fewshot_basic"])
    def test_an_inference(self, trained: Server, truth: dict, model: str):
        file, result = trained.segment(model, "ct_1")
        values = assert_on_the_grid_of(trained, "ct_1", file)
        names = result["label_names"]
        assert list(names.values()) == list(range(1, len(names) + 1))
        assert set(np.unique(values)) <= {0, names["liver"], names["spleen"]}
        assert {"pre", "infer", "post", "write", "total"} <= set(result["latencies"])
        assert set(result["confidence"]) == set(result["empty_slices"]) == set(LABELS)
        assert result["provenance"]["templates"]
        assert isinstance(result["notes"], list)
        json.dumps(result)

    def test_the_template_itself_is_found_again(self, trained: Server, truth: dict):
        file, result = trained.segment("fewshot", "ct_0")
        values = assert_on_the_grid_of(trained, "ct_0", file).transpose(2, 1, 0)
        drawn = partial(truth["ct_0"])
        shown = drawn.any((0, 1))
        for number, name in enumerate(LABELS, start=1):
            found, true = values[..., shown] == result["label_names"][name], drawn[..., shown] == number
            assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.5

    def test_as_ohif_asks(self, trained: Server):
        answer = requests.post(
            f"{trained.url}/infer/fewshot",
            params={"image": "ct_2", "output": "image"},
            data={
                "params": json.dumps(
                    {
                        "result_extension": ".nrrd",
                        "result_dtype": "uint8",
                        "result_compress": False,
                        "restore_label_idx": False,
                        "number": None,
                    }
                )
            },
            timeout=300,
        )
        assert answer.status_code == 200
        (trained.root / "ohif.nrrd").write_bytes(answer.content)
        assert_on_the_grid_of(trained, "ct_2", trained.root / "ohif.nrrd")

    def test_an_uploaded_image_and_a_session(self, trained: Server):
        image = trained.studies / "ct_3.nii.gz"
        session = trained.client.create_session(str(image))["session_id"]
        file, _ = trained.client.infer("fewshot", "", {"result_extension": ".nrrd"}, session_id=session)
        assert_on_the_grid_of(trained, "ct_3", file)
        trained.client.remove_session(session)
        file, _ = trained.client.infer("fewshot", "", {"result_extension": ".nii.gz"}, file=str(image))
        np.testing.assert_allclose(nib.load(file).affine, nib.load(image).affine, atol=1e-4)

    def test_the_old_adapter_works_during_a_training_and_after_it_was_killed(self, trained: Server):
        _, before = trained.segment("fewshot", "ct_1")
        trained.client.train_start("fewshot", {"max_epochs": 100000})
        busy = requests.post(f"{trained.url}/train/fewshot_contrastive", json={}, timeout=300)
        assert "training is running" in sentence(busy, 429)
        wait_for(lambda: "total_time" not in trained.client.info()["train_stats"]["fewshot"])
        _, during = trained.segment("fewshot", "ct_1")
        assert trained.client.train_status(check_if_running=True)
        trained.kill_training()
        _, after = trained.segment("fewshot", "ct_1")
        assert before["provenance"]["model"] == during["provenance"]["model"] == after["provenance"]["model"]
        for file in (*trained.workspace.rglob("*.json"), trained.studies / "datastore_v2.json"):
            json.loads(file.read_text())

        # the next training works, and one can choose between the two versions
        version = trained.client.info()["models"]["fewshot"]["config"]["version"][1]
        trained.train("fewshot", max_epochs=2)
        choices = trained.client.info()["models"]["fewshot"]["config"]["version"]
        assert choices[0] == "latest"
        assert choices[1] > choices[2] == version
        _, new = trained.segment("fewshot", "ct_1", version=choices)
        _, chosen = trained.segment("fewshot", "ct_1", version=version)
        assert chosen["provenance"]["model"] == before["provenance"]["model"] != new["provenance"]["model"]
        assert "no version 7" in sentence(trained.infer("fewshot", "ct_1", version="7"), 404)

    def test_a_failed_training_says_why(self, trained: Server):
        label = trained.studies / "labels" / "final" / "ct_0.nii.gz"
        content = label.read_bytes()
        _, before = trained.segment("fewshot", "ct_1")
        label.write_bytes(b"broken")
        try:
            trained.client.train_start("fewshot", {})
            while (status := trained.client.train_status())["status"] in ("SUBMITTED", "RUNNING"):
                time.sleep(0.2)
        finally:
            label.write_bytes(content)
        assert status["status"] == "ERROR"
        assert "cannot be read" in " ".join(status["details"])
        assert "cannot be read" in trained.client.info()["train_stats"]["fewshot"]["error"]
        _, after = trained.segment("fewshot", "ct_1")
        assert before["provenance"]["model"] == after["provenance"]["model"]

    def test_a_batch_with_the_default_body_saves_pre_annotations_that_are_no_templates(self, trained: Server):
        answer = requests.post(
            f"{trained.url}/batch/infer/fewshot", params={"images": "unlabeled"}, timeout=300
        )
        assert answer.status_code == 200, answer.text
        while (status := requests.get(f"{trained.url}/batch/infer", timeout=300).json())["status"] in (
            "SUBMITTED",
            "RUNNING",
        ):
            time.sleep(0.2)
        assert status["status"] == "DONE", status
        # another process wrote the files; the server notices them a moment later

        def predicted() -> set[str]:
            objects = trained.client.datastore()["objects"]
            return {image for image, entry in objects.items() if "original" in entry["labels"]}

        wait_for(lambda: predicted() == {"ct_1", "ct_2", "ct_3"}, seconds=60)
        objects = trained.client.datastore()["objects"]
        assert objects["ct_0"]["labels"]["final"]["info"]["label_info"][1]["name"] == "liver"
        _, result = trained.segment("fewshot_basic", "ct_1")
        assert result["provenance"]["templates"] == ["ct_0"]

    def test_a_second_template_is_used_at_once_by_basic(self, trained: Server, truth: dict):
        assert trained.submit("ct_2", partial(truth["ct_2"]), list(LABELS)).status_code == 200
        _, result = trained.segment("fewshot_basic", "ct_1")
        assert result["provenance"]["templates"] == ["ct_0", "ct_2"]
        assert result["label_names"]["liver"] == 2

    def test_an_image_is_uploaded_labelled_and_removed(self, trained: Server, truth: dict):
        trained.client.upload_image(str(trained.studies / "ct_3.nii.gz"), "new one")
        assert trained.client.datastore()["objects"]["new one"]
        _, result = trained.segment("fewshot", "new one")
        assert result["label_names"]
        (trained.studies / "new one.nii.gz").rename(trained.studies / "new two.nii.gz")
        wait_for(lambda: "new two" in trained.client.datastore()["objects"], seconds=60)
        assert trained.submit("new two", partial(truth["ct_3"]), list(LABELS)).status_code == 200
        answer = requests.delete(f"{trained.url}/datastore/image", params={"id": "new two"}, timeout=300)
        assert answer.status_code == 200
        wait_for(lambda: {"new one", "new two"}.isdisjoint(trained.client.datastore()["objects"]), seconds=60)
        _, result = trained.segment("fewshot_basic", "ct_1")
        assert "new two" not in result["provenance"]["templates"]

    def test_others_are_answered_while_an_inference_runs(self, trained: Server):
        volume, _ = make_study(9, shape=(160, 130, 80))
        file = trained.root / "large.nii.gz"
        nib.save(nib.Nifti1Image(volume.array.astype(np.int16), volume.affine), file)
        finished: list[float] = []

        def infer() -> None:
            trained.client.infer("fewshot", "", {"result_extension": ".nrrd"}, file=str(file))
            finished.append(time.monotonic())

        inference = threading.Thread(target=infer)
        inference.start()
        time.sleep(0.3)
        answers = []
        while not finished:
            requests.get(f"{trained.url}/info/", timeout=300).raise_for_status()
            answers.append(time.monotonic())
            time.sleep(0.05)
        inference.join()
        assert len([answer for answer in answers if answer < finished[0] - 0.1]) >= 3
