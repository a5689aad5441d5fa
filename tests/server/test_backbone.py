"""The train task `backbone` on a real server: killed, taken up again, published, followed by everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

pytest.importorskip("lightly", reason="fewshot[pretrain] is not installed")

from tests.backbones import write_blind_backbone
from tests.server.conftest import LABELS, Server, partial, sentence, wait_for, write_studies

pytestmark = pytest.mark.server

RECIPE = {
    "batch": 4,
    "global_pixels": 32,
    "local_pixels": 16,
    "local_crops": 1,
    "prototypes": 8,
    "size": 64,
    "save_seconds": 0,
}
"""Small, and with a checkpoint after every step."""
MODELS = ("fewshot", "fewshot_basic", "backbone")
"""Those that the tests need: *train all*, which leaves the backbone out, starts a process for each trainer."""
PLAN = {"images": 240, "start": "random-tiny", "settings": RECIPE}
"""So much work, not so much time: on a busy machine it must not be over before it is killed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("backbone")
    write_studies(root / "studies", count=3)
    blind = root / "blind.safetensors"
    write_blind_backbone(blind)
    server = Server(
        root,
        root / "studies",
        conf={
            "size": "64",
            "backbone": str(blind),
            "models": ",".join(MODELS),
        },
    )
    try:
        yield server.wait()
    finally:
        server.stop()


def stats(server: Server) -> dict[str, Any]:
    return server.client.info()["train_stats"]["backbone"]


def test_the_whole_way(server: Server, truth: dict[str, Any]) -> None:
    assert server.client.info()["trainers"]["backbone"]["config"]["start"] == ["current", "scratch"]
    assert "no model backbone" in sentence(server.infer("backbone", "ct_0"), 404)
    for image in ("ct_0", "ct_1"):
        assert server.submit(image, partial(truth[image]), list(LABELS)).status_code == 200
    told = server.train("fewshot")[-1]
    assert 0 < told["expected_dice"] <= 1
    assert "other patients" in told["expected_dice_of"]
    server.segment("fewshot", "ct_2")
    _, before = server.segment("fewshot", "ct_2")
    assert before["provenance"]["expected_dice"] == told["expected_dice"]
    features = set((server.root / "bank").glob("*.safetensors"))

    (server.studies / "broken.nii.gz").write_bytes(b"no image")
    wait_for(lambda: "broken" in server.client.datastore()["objects"])
    server.client.train_start("backbone", PLAN)
    assert "training is running" in sentence(
        requests.post(f"{server.url}/train/fewshot", json={}, timeout=300), 429
    )
    wait_for(lambda: "pretrain" in stats(server))
    wait_for(lambda: list(server.workspace.rglob("checkpoint.pt")))
    running = stats(server)
    assert running["stage"] == "pretrain"
    assert {"images_per_second", "seconds_left"} <= set(running["pretrain"])
    assert list(running["skipped"]) == ["broken"]
    assert not running["resumed"]
    _, during = server.segment("fewshot", "ct_2")
    server.kill_training()
    reached = stats(server)["pretrain"]["images"]

    changed = requests.post(f"{server.url}/train/backbone", json={"images": 8}, timeout=300)
    assert "begun with other images" in sentence(changed, 409)
    seen = server.train("backbone")
    _, new = server.segment("fewshot", "ct_2")
    assert before["provenance"] == during["provenance"]
    assert (
        min(entry["pretrain"]["images"] for entry in seen if entry.get("resumed") and "pretrain" in entry)
        >= reached
    ), "it went on from its last checkpoint"
    result = stats(server)
    assert result["resumed"]
    assert result["outcome"] == "published", result
    assert all(result["dice"]["new"][label] > result["dice"]["old"][label] for label in LABELS)
    assert list(result["versions"]) == ["fewshot"]
    old_backbone, new_backbone = (found["provenance"]["backbone"] for found in (before, new))
    assert new_backbone["name"].startswith(str(server.workspace / "backbones"))
    assert new_backbone["digest"] != old_backbone["digest"]
    _, chosen = server.segment(
        "fewshot", "ct_2", version=server.client.info()["models"]["fewshot"]["config"]["version"][2]
    )
    assert chosen["provenance"]["model"] == before["provenance"]["model"]
    _, basic = server.segment("fewshot_basic", "ct_2")
    assert basic["provenance"]["backbone"] == new_backbone

    wait_for(lambda: stats(server).get("bank", {}).get("done") == 4)
    assert list(stats(server)["bank"]["failed"]) == ["broken"]
    left = features & set((server.root / "bank").glob("*.safetensors"))
    assert len(left) < len(features), "features of the old backbone were dropped"


def test_train_all_leaves_it_out_and_a_restarted_server_keeps_it(server: Server) -> None:
    started = requests.post(f"{server.url}/train/", json={}, timeout=300).json()
    assert list(started) == ["fewshot"]
    wait_for(lambda: server.client.train_status()["status"] not in ("SUBMITTED", "RUNNING"))
    assert server.client.train_status()["status"] == "DONE"
    _, before = server.segment("fewshot", "ct_2")
    assert before["provenance"]["backbone"]["name"].startswith(str(server.workspace / "backbones"))
    again = Server(
        server.root,
        server.studies,
        conf={
            "size": "64",
            "backbone": str(server.root / "blind.safetensors"),
            "models": "fewshot,backbone",
            "train_all": "backbone",
        },
    )
    try:
        again.wait()
        _, after = again.segment("fewshot", "ct_2")
        assert after["provenance"] == before["provenance"] | {"features_from_bank": True}
        assert list(again.client.info()["trainers"]) == ["fewshot", "backbone"]
        refused = requests.post(f"{again.url}/train/", json={"backbone": {"minutes": "many"}}, timeout=300)
        assert "minutes" in sentence(refused, 422)
    finally:
        again.stop()
