"""3D Slicer's plugin without its window: what it asks a server for, and what it does with the answers.

The calls are those of the plugin's own client, which comes with MONAI Label. What the plugin does around them was
read in its source (version 0.8.5): which labels it sends, which model it runs by itself, how it shows results.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient

SKIPPED = ("background", "foreground_scribbles", "background_scribbles")
"""Segments that the plugin never sends."""


@dataclass
class Slicer:
    """One window of Slicer, connected to a server.

    Args:
        url: the server.
        folder: for the files that Slicer downloads.
    """

    url: str
    folder: Path
    info: dict[str, Any] = field(default_factory=dict)
    progress: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.client = MONAILabelClient(self.url, str(self.folder), "user-xyz")

    def connect(self) -> dict[str, Any]:
        """The green arrow beside the server's address."""
        assert not self.client.auth_enabled()
        self.info = self.client.info()
        return self.info

    @property
    def can_train(self) -> bool:
        """Whether the button *Train* is enabled."""
        return self.info["datastore"]["completed"] > 0

    def automatic_model(self) -> str | None:
        """The model that the plugin runs by itself on the next sample: the first that knows the first label."""
        for label in self.info["labels"][:1]:
            for name, model in self.info["models"].items():
                if model["type"] == "segmentation" and label in model["labels"]:
                    return name
        return None

    def next_sample(self) -> tuple[str, Path]:
        """The button *Next Sample*; returns the image's id and the file that Slicer opens."""
        sample = self.client.next_sample("random", {})
        if Path(sample["path"]).is_file():
            return sample["id"], Path(sample["path"])
        answer = requests.get(
            f"{self.url}/datastore/image", params={"image": sample["id"]}, timeout=300, stream=True
        )
        assert answer.status_code == 200, answer.text
        file = self.folder / f"{sample['id']}.nii.gz"
        file.write_bytes(answer.content)
        return sample["id"], file

    def original_label(self, image: str) -> np.ndarray | None:
        """What somebody or a model drew before, which Slicer shows with the next sample; None where there is nothing."""
        if requests.get(
            f"{self.url}/datastore/label", params={"label": image, "tag": "original"}, timeout=300
        ).ok:
            return np.asarray(nib.load(self.client.download_label(image, "original")).dataobj)
        return None

    def submit(
        self, image: str, like: Path, segments: dict[str, np.ndarray], tag: str = ""
    ) -> dict[str, Any]:
        """The button *Submit Label*: one segmentation as Slicer keeps it, name -> mask of the image's voxels."""
        shape = nib.load(like).shape
        drawn, told = np.zeros(shape, np.uint8), []
        for place, (name, mask) in enumerate(segments.items(), start=1):
            if name in SKIPPED:
                continue
            told.append({"name": name, "idx": place})  # idx counts those that are not sent as well
            drawn[mask] = len(told)
        file = self.folder / "label.nii.gz"
        nib.save(nib.Nifti1Image(drawn, nib.load(like).affine), file)
        answer = self.client.save_label(image, str(file), tag=tag, params={"label_info": told})
        self.info = self.client.info()
        return answer

    def train(self, model: str, **options: Any) -> None:
        """The button *Train*, to the end; `progress` is what its bars showed meanwhile."""
        config = {
            key: value[0] if isinstance(value, list) else value
            for key, value in self.info["trainers"][model]["config"].items()
        }
        task = self.client.train_start(model, {**config, **options})
        assert task["status"] in ("SUBMITTED", "RUNNING")
        self.progress = []
        while True:
            status = self.client.train_status()
            self.info = self.client.info()
            self.progress.append(next(iter(self.info["train_stats"].values()), {}))
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                assert status["status"] == "DONE", status
                return
            time.sleep(0.1)

    def segment(self, model: str, image: str, like: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The button *Run* of the automatic segmentation.

        Returns:
            The segments as Slicer shows them, name -> mask, and the result's parameters. Slicer takes names in the
            order of their values for the values 1, 2, 3 ...
        """
        config = {
            key: value[0] if isinstance(value, list) else value
            for key, value in self.info["models"][model]["config"].items()
        }
        file, told = self.client.infer(
            model, image, {**config, "result_extension": ".nrrd", "result_dtype": "uint8"}
        )
        result = sitk.ReadImage(str(file))
        asked = sitk.ReadImage(str(like))
        assert result.GetPixelID() == sitk.sitkUInt8
        assert result.GetSize() == asked.GetSize()
        for grid in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(result, grid)(), getattr(asked, grid)(), atol=1e-3)
        values = sitk.GetArrayFromImage(result).transpose(2, 1, 0)
        names = told.get("label_names") or self.info["models"][model]["labels"]
        ordered = [
            name for name, _ in sorted(names.items(), key=lambda item: item[1]) if name != "background"
        ]
        assert values.max() <= len(ordered), "a segment would be lost"
        json.dumps(told)
        return {name: values == place for place, name in enumerate(ordered, start=1)}, told


def dice(found: np.ndarray, true: np.ndarray) -> float:
    """Overlap of two masks."""
    return float(2 * (found & true).sum() / max(1, found.sum() + true.sum()))


def play(
    slicer: Slicer,
    truth: dict[str, dict[str, np.ndarray]],
    learned: tuple[str, ...] = ("liver", "Segment_1", "spleen"),
) -> None:
    """The whole loop of an annotator in 3D Slicer, on any studies that nobody has labelled yet.

    Args:
        slicer: not connected yet.
        truth: image id -> organ -> mask of the voxels of the image as the server hands it out; organs "liver",
            "spleen" and "spine" on the same at least three images.
        learned: names that the server knows after the first label, in the order of their values; a PACS keeps no
            segment that is empty.
    """
    known = len(learned)
    # a server that nobody has taught anything
    info = slicer.connect()
    assert info["labels"] == []
    assert not slicer.can_train
    assert slicer.automatic_model() is None
    assert requests.get(f"{slicer.url}/train/", timeout=300).status_code == 404, "no training yet: no bar"

    # the first image: a template drawn by hand, with a segment that stays empty and scribbles in between
    first, file = slicer.next_sample()
    assert slicer.original_label(first) is None
    drawn = truth[first]
    empty = np.zeros_like(drawn["liver"])
    segments = {
        "background": empty,
        "liver": drawn["liver"],
        "Segment_1": empty,
        "foreground_scribbles": drawn["spine"],
        "spleen": drawn["spleen"],
    }
    assert slicer.submit(first, file, segments)["image"] == first
    assert slicer.info["labels"][:known] == list(learned)
    assert slicer.info["datastore"]["completed"] == 1
    assert slicer.can_train

    # Train; the bars follow the first entry of the statistics
    model = slicer.automatic_model()
    assert model == "fewshot"
    slicer.train(model, max_epochs=8)
    assert_bars(slicer, model)
    assert slicer.automatic_model() == model

    # the next image comes with a first result
    second, file = slicer.next_sample()
    assert second != first, "what is submitted does not come again"
    before, told = slicer.segment(model, second, file)
    assert told["label_names"] == {name: value for value, name in enumerate(learned, start=1)}
    assert told["provenance"]["templates"] == [first]
    assert {name for name, mask in before.items() if mask.any()} == {"liver", "spleen"}
    assert dice(before["liver"], truth[second]["liver"]) > 0.6

    # set aside as somebody's first draft, which whoever gets the image sees
    slicer.submit(second, file, before, tag="original")
    kept = slicer.original_label(second)
    assert kept is not None
    np.testing.assert_array_equal(kept == 1, before["liver"])
    np.testing.assert_array_equal(kept == known, before["spleen"])
    assert slicer.info["datastore"]["completed"] == 1, "a draft is no template"

    # corrected, with a structure that the server has not heard of, and taught
    slicer.submit(second, file, {name: truth[second][name] for name in ("spleen", "spine", "liver")})
    assert slicer.info["labels"][: known + 1] == [*learned, "spine"], "values stay what they were"
    slicer.train(model, max_epochs=8)
    assert_bars(slicer, model)

    # where it was corrected, the result is another one, and a good one however good the first was
    after, told = slicer.segment(model, second, file)
    assert sorted(told["provenance"]["templates"]) == sorted([first, second])
    assert list(told["label_names"].values()) == list(range(1, known + 2))
    assert told["label_names"]["spine"] == known + 1
    for organ in ("liver", "spleen"):
        assert (after[organ] != before[organ]).any()
        assert dice(after[organ], truth[second][organ]) > 0.7
    assert dice(after["spine"], truth[second]["spine"]) > 0.5

    # and an image that nobody has drawn on shows all of it
    third, file = slicer.next_sample()
    assert third not in (first, second)
    segments, _ = slicer.segment(model, third, file)
    assert {name for name, mask in segments.items() if mask.any()} == {"liver", "spleen", "spine"}
    assert all(dice(segments[organ], truth[third][organ]) > 0.5 for organ in ("liver", "spleen", "spine"))


def assert_bars(slicer: Slicer, model: str) -> None:
    """The progress that Slicer shows rises to its end, and is only then taken for finished."""
    running = [entry for entry in slicer.progress if entry and "total_time" not in entry]
    assert {entry["model"] for entry in running} == {model}, "the first is the one that runs"
    percent = [entry["epoch"] / entry["total_epochs"] for entry in running]
    assert percent == sorted(percent)
    assert percent[0] < 1
    assert len(set(percent)) > 2, "it is seen to advance"
    last = slicer.progress[-1]
    assert last["total_time"]
    assert last["epoch"] == last["total_epochs"]
    assert 0 < last["best_metric"] <= 1
    assert "error" not in last
