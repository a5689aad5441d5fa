"""`fewshot fit` and `fewshot predict` with landmarks, on files, as a person calls them."""

from __future__ import annotations

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from fewshot import cli
from fewshot.features import FeatureBank, load_backbone
from fewshot.landmarks import LandmarkTemplate, Mark, fit_landmarks
from fewshot.landmarks.files import read_points
from fewshot.volumes import read_labels, read_volume
from tests.unit.conftest import blobs

CENTRES = {"bright": (24.0, 28.0, 24.0), "dark": (56.0, 40.0, 18.0)}
"""RAS+ mm of the balls of `blobs`."""
TEN = 10.0
"""mm; half a patch of these small images."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three volumes with two landmarks, as files."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "images").mkdir()
    (folder / "landmarks").mkdir()
    for seed in range(3):
        volume, _ = blobs(seed)
        nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / "images" / f"case_{seed}.nii.gz")
        (folder / "landmarks" / f"case_{seed}.json").write_text(json.dumps(CENTRES))
    (folder / "dataset.json").write_text('{"modality": "MR"}')
    return folder


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


@pytest.fixture(scope="module")
def fitted(dataset, bank, tmp_path_factory):
    """A model file."""
    volume = read_volume(dataset / "images" / "case_0.nii.gz")
    template = LandmarkTemplate(volume, {name: Mark(point) for name, point in CENTRES.items()})
    model = fit_landmarks(
        [template],
        method="classification",
        radius=10,
        backbone=load_backbone("embedded"),
        bank=FeatureBank(bank),
    )
    file = tmp_path_factory.mktemp("model") / "landmarks.safetensors"
    model.save(file)
    return file


@pytest.fixture
def run(bank, monkeypatch, capsys):
    """Call the script's main with arguments; returns its exit code and what it printed on stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fewshot", *map(str, arguments)])
        monkeypatch.setenv("FEWSHOT_BANK", str(bank))
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, capsys.readouterr()

    return run


def test_fit_then_predict(run, dataset, tmp_path):
    model, told, out = tmp_path / "m.safetensors", tmp_path / "fit.json", tmp_path / "found.mrk.json"
    code, said = run(
        "fit", dataset, "--templates", "case_0,case_1", "--adapter", "classification", "--radius", 10,
        "--out", model, "--json", told,
    )  # fmt: skip
    assert code == 0, said.err
    assert "classification model of 2 landmarks bright, dark (boxes of 20 mm)" in said.out
    facts = json.loads(told.read_text())
    assert (facts["landmarks"], facts["templates"], facts["radius"]) == (
        ["bright", "dark"],
        ["case_0", "case_1"],
        10,
    )
    image = dataset / "images" / "case_2.nii.gz"
    code, said = run("predict", image, "--model", model, "--out", out, "--picture")
    assert code == 0, said.err
    assert f"{out}: 2 of 2 landmarks, confidence bright 0." in said.out
    marks, absent = read_points(out, read_volume(image))
    assert not absent
    for name, centre in CENTRES.items():
        assert np.linalg.norm(np.subtract(marks[name].point, centre)) < TEN
    assert np.ptp(imread(tmp_path / "found.overlay.png")[..., :3]) > 0.5


def test_measures_are_printed_and_written(run, dataset, fitted, tmp_path):
    out, numbers = tmp_path / "found.json", tmp_path / "p.json"
    code, said = run(
        "predict", dataset / "images" / "case_1.nii.gz", "--model", fitted, "--out", out, "--json", numbers,
        "--distance", "bright,dark",
    )  # fmt: skip
    assert code == 0, said.err
    content = json.loads(out.read_text())
    assert json.loads(numbers.read_text()) == {str(out): content}
    (measure,) = content["measures"]
    places = [content["landmarks"][name]["ras"] for name in CENTRES]
    assert measure["value"] == pytest.approx(np.linalg.norm(np.subtract(*places)), abs=1e-3)
    assert (measure["landmarks"], measure["unit"]) == (["bright", "dark"], "mm")
    assert f"distance bright,dark: {measure['value']:.2f} mm" in said.out
    assert content["label_names"] == {"bright": 1, "dark": 2}


def test_balls_in_a_label_map(run, dataset, fitted, tmp_path):
    image, out = dataset / "images" / "case_1.nii.gz", tmp_path / "balls.nii.gz"
    sizes = []
    for radius in ([], ["--radius", 4], ["--radius", 14]):
        code, said = run("predict", image, "--model", fitted, "--out", out, "--overwrite", *radius)
        assert code == 0, said.err
        labels = read_labels(out, read_volume(image))
        assert set(np.unique(labels)) == {0, 1, 2}
        sizes.append(int((labels == 1).sum()))
    assert sizes[1] < sizes[0] < sizes[2]  # the model's boxes have a radius of 10 mm


def test_several_images_go_into_a_folder(run, dataset, fitted, tmp_path):
    images = [dataset / "images" / f"case_{seed}.nii.gz" for seed in (1, 2)]
    code, said = run("predict", *images, "--model", fitted, "--out", tmp_path / "found", "--radius", 5)
    assert code == 0, said.err
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "case_1.mrk.json", "case_1.nii.gz", "case_2.mrk.json", "case_2.nii.gz",
    ]  # fmt: skip
    for arguments in (["--out", tmp_path / "found"], ["--out", tmp_path / "one.json"]):
        code, said = run("predict", *images, "--model", fitted, *arguments)
        assert code == 1
        assert "--overwrite" in said.err or "give a folder" in said.err


def test_an_image_is_never_overwritten(run, dataset, fitted):
    image = dataset / "images" / "case_1.nii.gz"
    before = image.read_bytes()
    for out in (image, dataset / "images"):
        code, said = run("predict", image, "--model", fitted, "--out", out, "--radius", 5, "--overwrite")
        assert (code, "would overwrite the image" in said.err) == (1, True)
    assert image.read_bytes() == before
    assert not list((dataset / "images").glob("*.json"))


@pytest.mark.parametrize(
    ("out", "arguments", "sentence"),
    [
        ("x.json", ["--distance", "bright,nose"], "no landmark nose; known are bright, dark"),
        ("x.json", ["--angle", "bright,dark"], "--angle bright,dark does not name 3"),
        ("x.json", ["--radius", "5"], "--radius is for label maps"),
        ("x.nii.gz", ["--radius", "0"], "--radius is 0"),
        ("x.jpg", [], "is of no kind that landmarks are written to"),
        ("x.fcsv", [], "is of no kind that landmarks are written to"),
        ("x.json", ["--seed", "3"], "--seed"),
        ("x.json", ["--refine", "none"], "--refine has no meaning here"),
        ("x.json", ["--min-ml", "1"], "--min-ml has no meaning here"),
        ("x.json", ["--set", "quality=1"], "--set has no meaning here"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_computed(
    run, dataset, fitted, tmp_path, out, arguments, sentence
):
    image = dataset / "images" / "case_1.nii.gz"
    code, said = run("predict", image, "--model", fitted, "--out", tmp_path / out, *arguments)
    assert (code, said.out) == (1, "")
    assert sentence in said.err
    assert not (tmp_path / out).exists()


def test_a_segmentation_adapter_measures_nothing(run, tmp_path, dataset, bank):
    from fewshot.pipeline import fit
    from fewshot.support import Template

    volume, labels = blobs(0)
    template = Template(volume, labels, {"bright": 1, "dark": 2})
    model = fit([template], adapter="basic", backbone=load_backbone("embedded"), bank=FeatureBank(bank))
    model.save(tmp_path / "adapter.safetensors")
    image = dataset / "images" / "case_1.nii.gz"
    arguments = [
        "predict",
        image,
        "--model",
        tmp_path / "adapter.safetensors",
        "--out",
        tmp_path / "x.nii.gz",
    ]
    code, said = run(*arguments, "--distance", "bright,dark")
    assert (code, "--distance has no meaning here" in said.err) == (1, True)
    code, said = run(*arguments[:2], "--model", tmp_path / "none.safetensors", *arguments[4:], "--radius", 3)
    assert (code, "There is no model file" in said.err) == (1, True)


def test_wrong_fits_are_refused(run, dataset, tmp_path):
    arguments = ["fit", dataset, "--templates", "case_0", "--out", tmp_path / "m.safetensors"]
    for more, sentence in (
        (["--landmarks", "nose"], "no landmark in"),
        (["--landmarks", "dark", "--labels", "dark"], "not for both"),
        (["--radius", "-1"], "--radius is -1"),
        (["--adapter", "magic"], "magic"),
    ):
        code, said = run(*arguments, *more)
        assert (code, sentence in said.err) == (1, True), said.err
    assert not (tmp_path / "m.safetensors").exists()


def test_centres_of_labels(run, tmp_path):
    """A dataset of labels becomes one of landmarks by asking."""
    volume, labels = blobs(0)
    for part, array in (("images", volume.array), ("labels", labels)):
        (tmp_path / part).mkdir()
        nib.save(nib.Nifti1Image(array, volume.affine), tmp_path / part / "a.nii.gz")
    (tmp_path / "dataset.json").write_text('{"labels": {"bright": 1, "dark": 2}, "modality": "MR"}')
    arguments = [
        "fit",
        tmp_path,
        "--templates",
        "a",
        "--adapter",
        "basic",
        "--out",
        tmp_path / "m.safetensors",
    ]
    code, said = run(*arguments, "--landmarks", "dark")
    assert code == 0, said.err
    assert "model of 1 landmark dark" in said.out
    code, said = run(*arguments, "--radius", 3)
    assert (code, "--radius is for landmarks" in said.err) == (1, True)


def test_slices_are_cut_as_a_landmark_model_wants_them(run, dataset, fitted):
    code, said = run("extract", dataset, "--like", fitted)
    assert code == 0, said.err
    assert "3" in said.out


def test_info_tells_of_landmarks(run):
    code, said = run("info")
    assert (code, "landmarks:" in said.out) == (0, True)
