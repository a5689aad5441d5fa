"""Templates are read by label name, and only what people submitted is one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.errors import FewshotError
from lib.studies import StudiesDescription, describe_studies
from lib.templates import voxel_names
from tests.unit.conftest import blobs
from tests.unit.dataset.made import msd, nnunet
from tests.unit.lib.conftest import write_label

LABELS = blobs(0)[1]
NOTHING = StudiesDescription()


@given(
    st.permutations(["liver", "spleen", "aorta", "background"]),
    st.lists(st.integers(0, 99), min_size=4, max_size=4),
)
def test_the_voxel_value_is_the_position_in_the_list(names, numbers):
    info = {"label_info": [{"name": name, "idx": idx} for name, idx in zip(names, numbers, strict=True)]}
    read = voxel_names(info, "It", NOTHING, {})
    assert [read[value] for value in range(1, 5)] == [
        None if name == "background" else name for name in names
    ]


def test_without_names_dataset_json_goes_before_the_dictionary():
    described = StudiesDescription(labels={"spleen": 7})
    assert voxel_names({}, "It", described, {"liver": 1}) == {7: "spleen"}
    assert voxel_names({}, "It", NOTHING, {"liver": 1}) == {1: "liver"}
    with pytest.raises(FewshotError, match="It does not name its structures: .*dataset.json.*--conf labels"):
        voxel_names({}, "It", NOTHING, {})


def test_values_become_the_apps(open_project, submit):
    project = open_project(labels="dark,other")
    submit(project, "a", LABELS, ["bright", "dark"])
    (template,) = project.templates(project.submissions())
    assert project.labels.read() == {"dark": 1, "other": 2, "bright": 3}
    np.testing.assert_array_equal(template.labels, np.array([0, 3, 1])[LABELS])
    assert template.names == {"bright": 3, "dark": 1}
    assert project.drawn_labels([template]) == {"dark": 1, "bright": 3}


def test_an_empty_first_segment_keeps_its_number(open_project, submit):
    project = open_project()
    submit(project, "a", np.where(LABELS, LABELS + 1, 0), ["Segment_1", "bright", "dark"])
    (template,) = project.templates(project.submissions())
    assert project.labels.read() == {"Segment_1": 1, "bright": 2, "dark": 3}
    np.testing.assert_array_equal(template.labels > 0, LABELS > 0)
    assert project.drawn_labels([template]) == {"bright": 2, "dark": 3}


def test_segments_that_are_no_labels_are_left_out(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["background", "dark"])
    (template,) = project.templates(project.submissions())
    np.testing.assert_array_equal(template.labels, LABELS == 2)


def test_two_segments_of_one_name_are_one_label(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["spot", "spot"])
    (template,) = project.templates(project.submissions())
    np.testing.assert_array_equal(template.labels, LABELS > 0)


def test_a_models_own_result_is_no_template(open_project, submit, tmp_path, studies):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"], tag="original")
    assert project.submissions() == []
    file = write_label(tmp_path / "x.nii.gz", LABELS, studies / "b.nii.gz")
    said = {"model": "fewshot", "params": {"label_names": {"bright": 1, "dark": 2}}}
    project.datastore.save_label("b", str(file), "final", said)
    assert project.submissions() == []


def test_a_plain_label_file_is_read_by_dataset_json(open_project, studies):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True)
    write_label(folder / "a.nii.gz", LABELS, studies / "a.nii.gz")
    (studies / "dataset.json").write_text(json.dumps({"labels": {"dark": 2, "bright": 1}, "complete": True}))
    project = open_project()
    (template,) = project.templates(project.submissions())
    names = project.labels.read()
    np.testing.assert_array_equal(template.labels == names["dark"], LABELS == 2)
    assert template.complete


def test_a_plain_label_file_without_any_names_is_told(open_project, studies):
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True)
    write_label(folder / "a.nii.gz", LABELS, studies / "a.nii.gz")
    with pytest.raises(FewshotError, match="The label of a does not name its structures"):
        open_project().submissions()


def test_a_renamed_label_is_found_in_old_templates(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    content = json.loads(project.labels.path.read_text())
    content["labels"] = {"hell": 1, "dark": 2}
    project.labels.path.write_text(json.dumps(content))
    (template,) = project.templates(project.submissions())
    assert template.names == {"hell": 1, "dark": 2}


@pytest.mark.parametrize("told", [None, "false"])
def test_conf_goes_before_dataset_json(open_project, submit, studies, told):
    (studies / "dataset.json").write_text(json.dumps({"labels": {"x": 1}, "complete": True}))
    project = open_project(**({"complete": told} if told else {}))
    assert project.complete is (told is None)


def test_dataset_json_may_lie_in_the_folder_above(studies: Path):
    (studies.parent / "dataset.json").write_text(
        json.dumps({"labels": {"x": 1, "background": 0}, "modality": "MRI"})
    )
    said = describe_studies(str(studies))
    assert (said.labels, said.modality, said.complete) == ({"x": 1}, "MR", None)


@pytest.mark.parametrize(
    "said", [{"labels": {"x": "1"}}, {"labels": {"x": 1, "y": 1}}, {"labels": {"x": 1}, "complete": "yes"}]
)
def test_a_wrong_dataset_json_is_told(studies, said):
    (studies / "dataset.json").write_text(json.dumps(said))
    with pytest.raises(FewshotError, match=r"dataset\.json"):
        describe_studies(str(studies))


@pytest.mark.parametrize("layout", [msd, nnunet])
def test_the_images_of_a_decathlon_set_are_served_with_its_labels(tmp_path, layout):
    layout(tmp_path)
    said = describe_studies(str(tmp_path / "imagesTr"))
    assert said.labels == {"liver": 1, "cancer": 2}
    assert said.modality == {msd: "CT", nnunet: "MR"}[layout]
    assert said.complete is None, "what people draw in a viewer is not complete because the data set is"


def test_labels_of_a_decathlon_set_that_cannot_be_read_are_left_out(tmp_path, caplog):
    msd(tmp_path, labels={"background": 0, "whole": [1, 2]})
    said = describe_studies(str(tmp_path / "imagesTr"))
    assert (said.labels, said.modality) == ({}, "CT")
    assert "regions may overlap" in caplog.text


def test_a_foreign_dataset_json_is_left_alone(studies):
    (studies / "dataset.json").write_text(json.dumps({"labels": ["x"]}))
    assert describe_studies(str(studies)) == StudiesDescription()


def test_dicomweb_has_no_description():
    assert describe_studies("http://pacs/dicom-web") == StudiesDescription()
