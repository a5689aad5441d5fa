"""Which studies are meant, by folder, file or list."""

import json

import nibabel as nib
import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.pretraining import open_studies


@pytest.fixture
def place(tmp_path):
    """A folder ``a`` with two volumes, and a dataset ``b`` with one volume and its labels."""
    for name in ("a/one.nii.gz", "a/two.nii.gz", "b/images/one.nii.gz", "b/labels/one.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) % 2
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / name)
    (tmp_path / "b" / "dataset.json").write_text(json.dumps({"labels": {"x": 1}, "modality": "CT"}))
    return tmp_path


def test_folders_datasets_and_files_are_groups(place):
    readers = open_studies([place / "a", place / "b"])
    assert list(readers) == ["a/one", "a/two", "b/one"]
    assert readers["b/one"]().modality == "CT"
    assert readers["a/two"]().shape == (3, 4, 5)
    assert list(open_studies([place / "a" / "two.nii.gz"])) == ["a/two"]


def test_a_list_names_groups_and_paths(place):
    listed = place / "list.json"
    listed.write_text(json.dumps({"pretraining": {"mixed": ["a/one.nii.gz"], "b": ["b/images/one.nii.gz"]}}))
    assert list(open_studies([listed])) == ["mixed/one", "b/one"]
    moved = place / "elsewhere" / "list.json"
    moved.parent.mkdir()
    listed.rename(moved)
    with pytest.raises(
        FewshotError,
        match=r"2 of the 2 studies of .*list.json are not in .*elsewhere.* a/one.nii.gz; .*--root",
    ):
        open_studies([moved])
    assert open_studies([moved], root=place)["mixed/one"]().shape == (3, 4, 5)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pretraining": ["a"]}', '{"pretraining": {"a": 3}}'])
def test_a_list_of_another_form_is_refused(place, content):
    (place / "list.json").write_text(content)
    with pytest.raises(FewshotError, match=r'list.json is no list of studies .*write \{"pretraining"'):
        open_studies([place / "list.json"])


def test_missing_and_empty_places_are_refused(place):
    (place / "empty").mkdir()
    (place / "none.json").write_text('{"pretraining": {}}')
    for studies, said in (
        ([place / "gone"], "There is no folder .*gone"),
        ([place / "empty"], "empty holds no volume that can be read"),
        ([place / "none.json"], "There is no study to learn from"),
        ([], "There is no study to learn from"),
        (
            [place / "a", place / "a" / "one.nii.gz"],
            r"Two studies are called a/one \(the second in .*one.nii.gz\)",
        ),
    ):
        with pytest.raises(FewshotError, match=said):
            open_studies(studies)
