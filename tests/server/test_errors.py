"""Every expected failure of the server is a sentence, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import requests

from tests.server.conftest import LABELS, Server, partial, sentence, wait_for

pytestmark = pytest.mark.server


class TestErrors:
    """Every expected failure is a sentence, and changes nothing."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "words"),
        [
            ("POST", "infer/unet?image=ct_0", 404, "no model unet"),
            ("POST", "infer/fewshot_basic?image=zz", 404, "no image zz"),
            ("POST", "infer/fewshot_basic?session_id=gone", 404, "no image"),
            ("POST", "train/unet", 404, "no model unet"),
            ("POST", "train/fewshot_basic", 404, "no model fewshot_basic to train"),
            ("POST", "batch/infer/unet", 404, "no model unet"),
            ("POST", "activelearning/best", 404, "no strategy best"),
            ("PUT", "datastore/image/info?image=zz", 404, "no image zz"),
            ("PUT", "datastore/label/info?label=zz&tag=final", 404, "no label zz"),
            ("DELETE", "datastore/image?id=zz", 404, "zz not found"),
            ("POST", "scoring/dice?run_sync=true", 404, "dice"),
        ],
    )
    def test_what_is_unknown(self, annotated: Server, method: str, path: str, status: int, words: str):
        form = (
            {"data": {"params": "{}", "info": "{}"}} if "infer/" in path or "info" in path else {"json": {}}
        )
        if path.startswith("batch"):
            form = {"json": {}}
        answer = requests.request(method, f"{annotated.url}/{path}", timeout=300, **form)
        assert words in sentence(answer, status)

    def test_params_that_are_no_json(self, annotated: Server):
        answer = requests.post(
            f"{annotated.url}/infer/fewshot_basic",
            params={"image": "ct_0"},
            data={"params": "{"},
            timeout=300,
        )
        assert "not JSON" in sentence(answer, 422)

    def test_an_unreadable_image(self, annotated: Server):
        (annotated.studies / "broken.nii.gz").write_bytes(b"no image")
        try:
            wait_for(lambda: "broken" in annotated.client.datastore()["objects"], seconds=60)
            assert "cannot be read" in sentence(annotated.infer("fewshot_basic", "broken"), 422)
        finally:
            (annotated.studies / "broken.nii.gz").unlink()

    @pytest.mark.parametrize("params", [{"max_epochs": "many"}, {"max_epochs": -1}])
    def test_options_that_cannot_be(self, annotated: Server, params: dict):
        answer = requests.post(f"{annotated.url}/train/fewshot", json=params, timeout=300)
        assert "max_epochs" in sentence(answer, 422)

    def test_a_label_that_cannot_be_one_leaves_the_old_one(self, annotated: Server, truth: dict):
        file = annotated.studies / "labels" / "final" / "ct_0.nii.gz"
        drawn, names = partial(truth["ct_0"], first=2), ["Segment_1", *LABELS]
        garbage = annotated.root / "garbage.nii.gz"
        garbage.write_bytes(b"no label")
        before = file.read_bytes(), annotated.client.datastore(), annotated.client.info()["labels"]
        refusals = [
            annotated.submit("ct_0", drawn[:-1], names),
            annotated.submit("ct_0", drawn, names, affine=np.diag([9.0, 9, 9, 1])),
            annotated.submit("ct_0", drawn * 0, names),
            annotated.submit("ct_0", drawn, names[:2]),
            annotated.submit("ct_0", drawn, [*names, *(f"more {n}" for n in range(300))]),
            annotated.submit_file("ct_0", garbage, names),
        ]
        for refusal, words in zip(
            refusals, ["grid", "grid", "empty", "has no name", "8-bit", "cannot be read"], strict=True
        ):
            assert words in sentence(refusal, 422)
        sentence(annotated.submit("ct_0", drawn, names, tag="../x"), 422)
        answer = requests.put(
            f"{annotated.url}/datastore/label",
            params={"image": "zz"},
            files={"label": garbage.open("rb")},
            timeout=300,
        )
        assert "no image zz" in sentence(answer, 404)
        assert (file.read_bytes(), annotated.client.datastore(), annotated.client.info()["labels"]) == before

    def test_a_model_that_is_not_trained_yet(self, annotated: Server):
        if annotated.client.info()["train_stats"]["fewshot"]:
            pytest.skip("the shared server is trained already")
        assert "press Train" in sentence(annotated.infer("fewshot", "ct_1"), 409)
