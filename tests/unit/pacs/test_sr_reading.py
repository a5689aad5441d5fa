"""Landmarks in structured reports: what was written here, and what other programs write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from pydicom import Dataset

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.volumes import Volume
from lib.landmarks.results import marked
from lib.pacs.sr_reading import read_sr
from lib.pacs.sr_writing import write_sr
from tests.pacs.making_sr import VOXELS, make_prediction
from tests.unit.pacs.test_seg_writing import save_series

VOXEL = (3.25, 2.5, 2)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def volume(series: Path) -> Volume:
    return save_series(series, tilt=0.6)


def written(volume: Volume, series: Path, **voxels: tuple[float, float, float]) -> Dataset:
    out = series.parent / "sr.dcm"
    write_sr(make_prediction(volume, voxels or None), series, out)
    return pydicom.dcmread(out)


def item(kind: str, code: tuple[str, str], **values: object) -> Dataset:
    made, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator = code
    made.ValueType, made.ConceptNameCodeSequence = kind, [name]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(code: tuple[str, str], meaning: str) -> Dataset:
    value = Dataset()
    value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning = "X", "99X", meaning
    return item("CODE", code, ConceptCodeSequence=[value])


def by_ohif(image: Dataset, *, finding: str | None, site: str | None = None, points: int = 1) -> Dataset:
    """A point as OHIF writes one: its tool as tracking identifier, pixels below a number."""
    told = [item("TEXT", ("112039", "DCM"), TextValue="Cornerstone3DTools@^0.1.0:ArrowAnnotate")]
    if finding:
        told.append(coded(("121071", "DCM"), finding))
    if site:
        told.append(coded(("G-C0E3", "SRT"), site))
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        image.SOPClassUID,
        image.SOPInstanceUID,
    )
    picture = item("IMAGE", ("121112", "DCM"), ReferencedSOPSequence=[reference])
    at = [VOXEL[0] + 0.5, VOXEL[1] + 0.5]
    for shift in range(points):
        where = item("SCOORD", ("111030", "DCM"), GraphicType="POINT", GraphicData=[at[0] + 2 * shift, at[1]])
        where.ContentSequence = [picture]
        told.append(item("NUM", ("121206", "DCM"), ContentSequence=[where]))
    group = item("CONTAINER", ("125007", "DCM"), ContentSequence=told)
    report = Dataset()
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.3"
    report.ContentSequence = [item("CONTAINER", ("126010", "DCM"), ContentSequence=[group])]
    return report


def slice_of(series: Path, number: int) -> Dataset:
    files = (pydicom.dcmread(path) for path in series.iterdir())
    return next(file for file in files if file.InstanceNumber == number + 1)


@pytest.mark.parametrize("given", [True, False])
def test_what_was_written_comes_back(volume, series, given):
    read = read_sr(written(volume, series), series if given else None)
    assert list(read) == list(VOXELS)  # without what was not found
    for name, voxel in VOXELS.items():
        np.testing.assert_allclose(read[name], apply_affine(volume.affine, voxel), atol=1e-3)


def test_what_was_marked_by_hand_comes_back(volume, series):
    marks = {name: Mark(point) for name, point in make_prediction(volume).points.items()}
    prediction = marked(LandmarkTemplate(volume, marks, frozenset({"chin"})))
    write_sr(prediction, series, series.parent / "sr.dcm")
    read = read_sr(pydicom.dcmread(series.parent / "sr.dcm"), series)
    assert list(read) == list(VOXELS)
    for name, point in prediction.points.items():
        np.testing.assert_allclose(read[name], point, atol=1e-3)


def test_pixels_of_a_radiograph_come_back(series):
    volume = save_series(series, slices=1, placed=False)
    report = written(volume, series, tip=(3.25, 2.5, 0))
    np.testing.assert_allclose(
        read_sr(report, series)["tip"], apply_affine(volume.affine, (3.25, 2.5, 0)), atol=1e-3
    )
    with pytest.raises(FewshotError, match="landmark 'tip' counts pixels of an image; give the folder"):
        read_sr(report)


def test_a_point_that_ohif_wrote(volume, series):
    report = by_ohif(slice_of(series, VOXEL[2]), finding="chin")
    read = read_sr(report, series)
    assert list(read) == ["chin"]
    np.testing.assert_allclose(read["chin"], apply_affine(volume.affine, VOXEL), atol=1e-3)


def test_a_name_that_is_a_place(volume, series):
    report = by_ohif(slice_of(series, 0), finding=None, site="chin")
    assert list(read_sr(report, series)) == ["chin"]


def test_several_points_of_one_name_are_one(volume, series):
    report = by_ohif(slice_of(series, VOXEL[2]), finding="chin", points=2)
    middle = apply_affine(volume.affine, (VOXEL[0] + 1, *VOXEL[1:]))
    np.testing.assert_allclose(read_sr(report, series)["chin"], middle, atol=1e-3)


def test_other_regions_are_passed_over(volume, series):
    report = by_ohif(slice_of(series, 0), finding="chin")
    region = report.ContentSequence[0].ContentSequence[0].ContentSequence[-1].ContentSequence[0]
    region.GraphicType, region.GraphicData = "POLYLINE", [1.0, 1.0, 2.0, 2.0]
    assert read_sr(report, series) == {}


def test_a_point_outside_any_measurement_is_no_landmark(volume, series):
    report = by_ohif(slice_of(series, 0), finding="chin")
    report.ContentSequence[0].ContentSequence[0].ConceptNameCodeSequence[0].CodeValue = "121070"
    assert read_sr(report, series) == {}


def test_reports_on_other_images(volume, series, tmp_path):
    save_series(tmp_path / "other")
    with pytest.raises(FewshotError, match="'Spitze links' belongs to another frame of reference"):
        read_sr(written(volume, series), tmp_path / "other")
    with pytest.raises(FewshotError, match="landmark 'chin' is marked on an image that is not in"):
        read_sr(by_ohif(slice_of(series, 0), finding="chin"), tmp_path / "other")


def test_what_is_no_report(volume, series):
    with pytest.raises(FewshotError, match="is CT, no report"):
        read_sr(slice_of(series, 0))


@pytest.mark.parametrize(("keyword", "value"), [("GraphicData", [1.0]), ("GraphicData", None)])
def test_a_damaged_report(volume, series, keyword, value):
    report = by_ohif(slice_of(series, 0), finding="chin")
    setattr(
        report.ContentSequence[0].ContentSequence[0].ContentSequence[-1].ContentSequence[0], keyword, value
    )
    with pytest.raises(FewshotError, match="is damaged"):
        read_sr(report, series)


def test_a_group_without_a_name(volume, series):
    with pytest.raises(FewshotError, match="damaged .*has no name"):
        read_sr(by_ohif(slice_of(series, 0), finding=None), series)
