"""An inference in MONAI Label's form: the image's grid, the dictionary's values, the form asked for."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.volumes import Volume, read_labels, read_volume
from lib.infers import Segmentation
from lib.infers.writing import default_extension, write_result
from lib.models import FittedModels, PublishedModels
from tests.unit.conftest import blobs

LABELS = blobs(0)[1]


@pytest.fixture
def project(open_project, submit):
    project = open_project(labels="other")
    submit(project, "a", LABELS, ["dark side", "bright", "dark"][1:])
    return project


@pytest.fixture
def task(project):
    return Segmentation(FittedModels("basic", project), project, description="test")


def test_the_result_is_the_images_own_grid_in_the_apps_values(task, project, studies):
    file, result = task({"image": str(studies / "b.nii.gz"), "result_extension": ".nrrd", "device": "cpu"})
    image, answer = sitk.ReadImage(str(studies / "b.nii.gz")), sitk.ReadImage(file)
    assert answer.GetSize() == image.GetSize()
    np.testing.assert_allclose(answer.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(answer.GetDirection(), image.GetDirection(), atol=1e-6)
    assert answer.GetPixelID() == sitk.sitkUInt8
    assert result["label_names"] == {"other": 1, "bright": 2, "dark": 3}
    assert set(np.unique(sitk.GetArrayFromImage(answer))) <= {0, 2, 3}
    assert set(result["confidence"]) == {"bright", "dark"}
    assert {"empty_slices", "timings", "provenance", "notes", "latencies"} <= set(result)
    assert {"pre", "infer", "post", "write", "total"} <= set(result["latencies"])
    assert result["provenance"]["templates"] == ["a"]
    json.dumps(result)


def test_it_finds_what_the_template_shows(task, studies):
    file, _ = task({"image": str(studies / "a.nii.gz"), "device": ["cpu"], "components": ["largest"]})
    found = read_labels(file, read_volume(studies / "a.nii.gz"))
    for value, label in ((2, 1), (3, 2)):
        overlap = ((found == value) & (label == LABELS)).sum()
        assert overlap > 0.3 * (label == LABELS).sum()


@pytest.mark.parametrize("dtype", [None, "uint8", "uint16", "float32"])
@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd"])
def test_the_form_asked_for(task, studies, extension, dtype):
    file, _ = task(
        {
            "image": str(studies / "b.nii.gz"),
            "result_extension": extension,
            "result_dtype": dtype,
            "device": "cpu",
        }
    )
    assert file.endswith(extension)
    assert sitk.GetArrayFromImage(sitk.ReadImage(file)).dtype == (dtype or "uint8")


def test_compression(project, tmp_path):
    volume, labels = blobs(0)
    sizes = {}
    for compress in (True, False):
        file = write_result(labels.astype(np.uint8), volume, extension=".nrrd", compress=compress)
        sizes[compress] = len(open(file, "rb").read())
    assert sizes[True] < sizes[False] / 5


def test_without_a_file_the_array_is_handed_over(task, studies):
    labels, _ = task({"image": str(studies / "b.nii.gz"), "result_write_to_file": False, "device": "cpu"})
    assert labels.shape == LABELS.shape


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"image": ""}, "no image"),
        ({"image": "nowhere.nii.gz"}, "does not exist"),
        ({"result_extension": ".xyz"}, "cannot be written as .xyz"),
        ({"result_extension": ".png"}, "holds one slice"),
        ({"result_extension": ".jpg"}, "cannot be written as .jpg"),
        ({"result_dtype": "int7"}, "no voxel type int7"),
        ({"components": "many"}, "many"),
    ],
)
def test_what_cannot_be_done_is_told(task, studies, request_, sentence):
    with pytest.raises(HTTPException, match=sentence) as refusal:
        task({"image": str(studies / "b.nii.gz"), "device": "cpu", **request_})
    assert 400 <= refusal.value.status_code < 500


def test_an_unreadable_image_is_told(task, studies):
    (studies / "c.nii.gz").write_bytes(b"no image")
    with pytest.raises(HTTPException, match="cannot be read") as refusal:
        task({"image": str(studies / "c.nii.gz"), "device": "cpu"})
    assert refusal.value.status_code == 422


def test_an_adapter_keeps_its_meaning_when_labels_are_renamed(project, studies):
    templates = project.templates(project.submissions())
    model = project.engine.fit(
        templates, adapter="classification", labels=project.drawn_labels(templates), options={"epochs": 3}
    )
    models = PublishedModels("fewshot", project)
    version = models.publish(model)
    content = json.loads(project.labels.path.read_text())
    content["labels"] = {"dark": 1, "hell": 2, "other": 3}
    project.labels.path.write_text(json.dumps(content))
    task = Segmentation(models, project, description="test")
    file, result = task({"image": str(studies / "a.nii.gz"), "device": "cpu"})
    assert result["label_names"] == {"dark": 1, "hell": 2, "other": 3}
    assert set(result["confidence"]) == {"dark", "hell"}
    found = read_labels(file, read_volume(studies / "a.nii.gz"))
    for label, (now, other) in {1: (2, 1), 2: (1, 2)}.items():
        assert (found[label == LABELS] == now).sum() > (found[label == LABELS] == other).sum()
    assert set(np.unique(found)) <= {0, 1, 2}
    assert task.config()["version"] == ["latest", version]


def test_the_default_adapter_tells_what_to_expect_and_where_place_was_of_no_help(project, submit, studies):
    submit(project, "b", blobs(1)[1], ["bright", "dark"])
    templates = project.templates(project.submissions())
    model = project.engine.fit(
        templates, adapter="auto", labels=project.drawn_labels(templates), options={"epochs": 2}
    )
    models = PublishedModels("fewshot", project)
    models.publish(model)
    task = Segmentation(models, project, description="test")
    noise = np.random.default_rng(0).normal(100, 20, LABELS.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, np.diag([2.0, 2, 6, 1])), studies / "noise.nii.gz")
    said = {}
    for name in ("a", "noise"):
        _, result = task({"image": str(studies / f"{name}.nii.gz"), "device": "cpu"})
        said[name] = any("could not be registered" in note for note in result["notes"])
        assert result["provenance"]["adapter"] == "auto"
        assert result["provenance"]["expected_dice"] == round(model.scores["expected_dice"], 3)
        json.dumps(result)
    assert said == {"a": False, "noise": True}


def test_it_is_listed_before_anything_is_there(open_project):
    project = open_project()
    task = Segmentation(PublishedModels("fewshot", project), project, description="test")
    assert task.is_valid()
    info = task.info()
    assert (info["type"], info["labels"]) == ("segmentation", {})
    for choices in info["config"].values():
        assert not isinstance(choices, list) or all(isinstance(choice, str) for choice in choices)


@pytest.mark.parametrize(
    ("image", "extension"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.NRRD", ".nrrd"),
        ("x.jpg", ".png"),
        ("x.png", ".png"),
        ("series", ".nii.gz"),
    ],
)
def test_the_default_form(image, extension):
    assert default_extension(image) == extension


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=9, max_size=9),
    st.permutations([0, 1, 2]),
    st.sampled_from([".nii.gz", ".nrrd"]),
)
def test_every_geometry_comes_back(lean, order, extension):
    steps = (np.eye(3) + np.reshape(lean, (3, 3)) * [[0, 1, 1], [1, 0, 1], [1, 1, 0]])[:, order] * [
        -0.7,
        1.1,
        3,
    ]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, (12.5, -40.25, 7)
    if abs(np.linalg.det(steps / np.linalg.norm(steps, axis=0))) < 0.1:
        return
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1, 2, 3] = 4
    volume = Volume(array=np.zeros(labels.shape, np.float32), affine=affine)
    file = write_result(labels, volume, extension=extension)
    np.testing.assert_array_equal(read_labels(file, volume), labels)
    np.testing.assert_allclose(read_volume(file).affine, affine, atol=1e-4)


def test_a_picture_comes_back_as_a_picture(project, studies, tmp_path):
    from PIL import Image

    labels = np.zeros((9, 7, 1), np.uint8)
    labels[2, 5] = 3
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(tmp_path / "p.png")
    volume = read_volume(tmp_path / "p.png")
    file = write_result(labels, volume, extension=".png")
    np.testing.assert_array_equal(read_labels(file, volume), labels)
    assert nib.load(write_result(labels, volume, extension=".nii.gz")).shape == (9, 7, 1)
