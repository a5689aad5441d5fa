"""The loop on real studies through the server, with the calls of Slicer's client."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot.volumes import read_labels, read_volume
from tests.server.conftest import Server

pytestmark = pytest.mark.server

NAMES = ["hippocampus_anterior", "hippocampus_posterior"]
TEMPLATE, QUERIES = "hippocampus_003", ["hippocampus_006", "hippocampus_007"]


@pytest.fixture(scope="module")
def server(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    studies = root / "studies"
    studies.mkdir()
    for name in (TEMPLATE, *QUERIES):
        shutil.copy(data / "mr_hippocampus_msd" / "images" / f"{name}.nii.gz", studies)
    server = Server(root, studies, conf={"backbone": "embedded", "max_epochs": "24"})
    try:
        yield server.wait()
    finally:
        server.stop()


def test_submit_train_infer(server, data):
    labels = data / "mr_hippocampus_msd" / "labels"
    saved = server.client.save_label(
        TEMPLATE,
        str(labels / f"{TEMPLATE}.nii.gz"),
        params={"label_info": [{"name": name, "idx": number} for number, name in enumerate(NAMES)]},
    )
    assert saved["image"] == TEMPLATE
    seen = server.train("fewshot")
    assert seen[-1]["best_metric"] > 0.8
    scores = []
    for query in QUERIES:
        file, result = server.segment("fewshot", query)
        assert result["label_names"] == {name: value for value, name in enumerate(NAMES, start=1)}
        volume = read_volume(server.studies / f"{query}.nii.gz")
        truth = read_labels(labels / f"{query}.nii.gz", volume)
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).transpose(2, 1, 0)
        scores += [
            2 * ((found == v) & (truth == v)).sum() / ((found == v).sum() + (truth == v).sum())
            for v in (1, 2)
        ]
    assert np.mean(scores) > 0.5, scores
