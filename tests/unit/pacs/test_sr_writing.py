"""Landmarks as structured reports, as highdicom, DCMTK and dicom3tools read them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR, ComprehensiveSR, srread

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.landmarks.result import LandmarkPrediction
from fewshot.volumes import Volume, read_volume
from lib.landmarks.results import marked
from lib.pacs.sr_writing import write_sr
from tests.pacs.making import write_image
from tests.pacs.making_sr import LOST, MADE, VOXELS, make_prediction
from tests.programs import program
from tests.unit.pacs.test_seg_writing import save_series

LPS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Coronal and oblique, with a tilted gantry."""
    return save_series(tmp_path / "image", tilt=0.6)


def write(prediction: LandmarkPrediction, series: Path, **how: str) -> Comprehensive3DSR | ComprehensiveSR:
    out = series.parent / "sr.dcm"
    uid = write_sr(prediction, series, out, **how)
    report = srread(out)
    assert report.SOPInstanceUID == report.file_meta.MediaStorageSOPInstanceUID == uid
    return report


def points(report: Comprehensive3DSR | ComprehensiveSR) -> dict[str, np.ndarray]:
    groups = report.content.get_planar_roi_measurement_groups()
    assert all(group.roi.GraphicType == "POINT" for group in groups)
    return {group.tracking_identifier: group.roi.value[0] for group in groups}


def files(series: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(series.iterdir())]


def test_points_lie_in_the_frame_of_reference(volume, tmp_path):
    prediction = make_prediction(volume)
    report = write(prediction, tmp_path / "image")
    assert isinstance(report, Comprehensive3DSR)
    written = points(report)
    assert list(written) == list(VOXELS)
    for name, point in prediction.points.items():
        np.testing.assert_allclose(written[name], LPS * point, atol=1e-4)
    frame = files(tmp_path / "image")[0].FrameOfReferenceUID
    for group in report.content.get_planar_roi_measurement_groups():
        assert group.roi.frame_of_reference_uid == frame


def test_each_landmark_says_what_it_is_how_sure_and_on_which_slice(volume, tmp_path):
    report = write(make_prediction(volume), tmp_path / "image")
    slices = {image.SOPInstanceUID: image.InstanceNumber - 1 for image in files(tmp_path / "image")}
    first, second = report.content.get_planar_roi_measurement_groups()
    told = []
    for group in (first, second):
        assert group.finding_type.meaning == group.tracking_identifier
        assert group.finding_type.scheme_designator == "99FEWSHOT"
        assert group.finding_category.meaning == "Anatomical Structure"
        (certainty,) = group.get_measurements()
        assert (certainty.name.meaning, certainty.unit.value) == ("Certainty of Finding", "%")
        (image,) = certainty.referenced_images
        told.append((certainty.value, slices[image.referenced_sop_instance_uid]))
    assert told == [(87.5, 3), (62.5, 4)]  # of the voxels 2.6 and 4.4
    assert first.finding_type.value != second.finding_type.value


def test_what_was_not_found_is_told_as_absent_with_the_reason(volume, tmp_path):
    report = write(make_prediction(volume), tmp_path / "image")
    (group,) = report.content.get_image_measurement_groups()
    assert group.tracking_identifier == group.finding_type.meaning == LOST.name
    (told,) = [of for of in group.get_qualitative_evaluations() if of.name.meaning == "Presence of property"]
    assert told.value.meaning == "Absent"
    assert group.get_measurements() == []
    texts = [item.TextValue for item in group[0].ContentSequence if "TextValue" in item]
    assert f"Not found: {LOST.reason}" in texts


def test_a_report_of_nothing_found_is_one_too(volume, tmp_path):
    report = write(make_prediction(volume, {}), tmp_path / "image")
    assert points(report) == {}
    assert len(report.content.get_image_measurement_groups()) == 1


def test_program_and_model_are_named_and_nobody_has_verified_it(volume, tmp_path):
    report = write(
        make_prediction(volume), tmp_path / "image", creator="Jörg^Ä", description="a\\b " + "x" * 90
    )
    assert (report.Manufacturer, report.SoftwareVersions) == ("fewshot", MADE["fewshot"])
    assert report.DeviceSerialNumber == MADE["model"]
    flags = report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_identifying_attributes.serial_number == MADE["model"]
    (person,) = report.ParticipantSequence
    assert str(person.PersonName) == "Jörg^Ä"
    assert report.SeriesDescription == "a/b " + "x" * 60
    (group, _) = report.content.get_planar_roi_measurement_groups()
    texts = {item.TextValue for item in group[0].ContentSequence if "TextValue" in item}
    made = "method: auto, model: 0123456789abcdef, backbone: tiny feed, templates: 2"
    assert {"fewshot", "1.2.3", made} <= texts
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99FEWSHOT"


def by_hand(volume: Volume) -> LandmarkPrediction:
    """What somebody has marked: `VOXELS`, and that there is no chin."""
    voxels = {name: (x, y, min(z, volume.shape[2] - 1)) for name, (x, y, z) in VOXELS.items()}
    marks = {name: Mark(point) for name, point in make_prediction(volume, voxels).points.items()}
    return marked(LandmarkTemplate(volume, marks, frozenset({LOST.name})))


@pytest.mark.parametrize(
    ("creator", "observer"),
    [("Jörg^Ä", "Jörg^Ä"), ("ann", "ann^"), ("", "Annotator^"), ("x" * 90, "x" * 63 + "^")],
)
def test_what_was_marked_by_hand_is_the_observation_of_a_person(volume, tmp_path, creator, observer):
    report = write(by_hand(volume), tmp_path / "image", creator=creator)
    (context,) = report.content.get_observer_contexts()
    assert context.observer_type.meaning == "Person"
    assert str(context.observer_identifying_attributes.name) == observer
    assert "ParticipantSequence" not in report
    flags = report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag
    assert flags == ("COMPLETE", "FINAL", "UNVERIFIED")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(VOXELS)
    assert not any(group.get_measurements() for group in groups), "nobody said how certain it is"
    (absent,) = report.content.get_image_measurement_groups()
    concepts = {
        item.ConceptNameCodeSequence[0].CodeMeaning
        for of in (*groups, absent)
        for item in of[0].ContentSequence
    }
    assert not {concept for concept in concepts if "Algorithm" in concept}
    texts = [item.TextValue for item in absent[0].ContentSequence if "TextValue" in item]
    assert texts == [LOST.name, "marked as absent"]


def test_study_and_series_of_the_image_are_referenced(volume, tmp_path):
    report = write(make_prediction(volume), tmp_path / "image")
    images = files(tmp_path / "image")
    assert report.StudyInstanceUID == images[0].StudyInstanceUID
    assert (str(report.PatientName), report.PatientID) == ("Müller^Jörg", "p1")
    assert (report.StudyDate, report.StudyTime) == ("20200101", "1:01")  # as the image has it
    told = [
        instance.ReferencedSOPInstanceUID
        for sequence in (
            report.CurrentRequestedProcedureEvidenceSequence,
            report.PertinentOtherEvidenceSequence,
        )
        for study in sequence
        for series in study.ReferencedSeriesSequence
        if series.SeriesInstanceUID == images[0].SeriesInstanceUID
        for instance in series.ReferencedSOPSequence
    ]
    assert sorted(told) == sorted(image.SOPInstanceUID for image in images)


def test_each_is_a_series_of_its_own_and_follows_the_same_landmarks(volume, tmp_path):
    reports = [write(make_prediction(volume), tmp_path / "image") for _ in range(3)]
    assert len({report.SOPInstanceUID for report in reports}) == 3
    assert len({report.SeriesInstanceUID for report in reports}) == 3
    times = [(report.ContentDate, report.ContentTime) for report in reports]
    assert times == sorted(set(times))
    followed = [
        {group.tracking_uid for group in report.content.get_planar_roi_measurement_groups()}
        for report in reports
    ]
    assert followed[0] == followed[1] == followed[2]
    assert len(followed[0]) == len(VOXELS)


def test_a_radiograph_without_position_has_pixels(tmp_path):
    volume = save_series(tmp_path / "image", slices=1, placed=False)
    report = write(
        make_prediction(volume, {"tip": (3.25, 2.5, 0), "corner": (-0.6, 0, 0)}), tmp_path / "image"
    )
    assert isinstance(report, ComprehensiveSR)
    written = points(report)
    np.testing.assert_allclose(written["tip"], (3.75, 3.0), atol=1e-5)
    # DICOM has no place outside the image
    np.testing.assert_allclose(written["corner"], (0, 0.5), atol=1e-5)
    (image,) = files(tmp_path / "image")
    for group in report.content.get_planar_roi_measurement_groups():
        (source,) = group.roi.ContentSequence
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


@pytest.mark.parametrize("modality", ["CT", "MR", "CR"])
@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("made", [make_prediction, by_hand])
def test_other_programs_have_nothing_against_it(tmp_path, modality, placed, made):
    if placed:
        write_image(tmp_path / "image", modality=modality)
    else:
        save_series(tmp_path / "image", slices=1, placed=False)
        (path,) = (tmp_path / "image").iterdir()
        image = pydicom.dcmread(path)
        image.StudyTime, image.Modality = "010100", modality
        image.save_as(path)
    write_sr(
        made(read_volume(tmp_path / "image")),
        tmp_path / "image",
        tmp_path / "sr.dcm",
        creator="A^B",
    )
    validator = program("dciodvfy", package="dicom3tools")
    said = subprocess.run(
        [validator, tmp_path / "sr.dcm"], capture_output=True, text=True, check=False
    ).stderr
    assert ("Comprehensive3DSR" if placed else "ComprehensiveSR") in said.splitlines()
    assert not [line for line in said.splitlines() if line.startswith("Error")], said
    reader = program("dsrdump", package="dcmtk")
    read = subprocess.run([reader, tmp_path / "sr.dcm"], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert not [line for line in read.stderr.splitlines() if line.startswith(("E:", "F:"))], read.stderr
    assert "Spitze links" in read.stdout


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyTime", None),
        ("PatientSex", "unbekannt"),
        ("PatientBirthDate", "1.1.1970"),
        ("PatientName", "Anna Müller"),
        ("StudyID", None),
    ],
)
def test_headers_that_are_not_as_the_standard_wants_them(volume, tmp_path, keyword, value):
    for path in (tmp_path / "image").iterdir():
        image = pydicom.dcmread(path)
        if value is None:
            image.pop(keyword, None)
        else:
            setattr(image, keyword, value)
        image.save_as(path)
    report = write(make_prediction(volume), tmp_path / "image")
    assert len(points(report)) == len(VOXELS)
    assert str(report[keyword].value or "") == (value or "")


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "left\\right", "a\nb"])
def test_names_that_dicom_cannot_hold(volume, tmp_path, name):
    with pytest.raises(FewshotError, match="DICOM cannot hold the landmark name .*rename it"):
        write(make_prediction(volume, {"tip": (1, 1, 1), name: (1, 1, 1)}), tmp_path / "image")
    assert not (tmp_path / "sr.dcm").exists()


def test_no_landmark_at_all(volume, tmp_path):
    with pytest.raises(FewshotError, match="has no landmark"):
        write(make_prediction(volume, {}, lost=False), tmp_path / "image")


def test_an_enhanced_image_says_frame_by_frame_where_it_lies(volume, tmp_path):
    image = files(tmp_path / "image")[0]
    place, frame = pydicom.Dataset(), pydicom.Dataset()
    place.ImagePositionPatient = image.ImagePositionPatient
    frame.PlanePositionSequence = [place]
    image.PerFrameFunctionalGroupsSequence, image.NumberOfFrames = [frame], 6
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    del image.ImagePositionPatient
    (tmp_path / "enhanced").mkdir()
    image.save_as(tmp_path / "enhanced" / "image.dcm")
    prediction = make_prediction(volume)
    written = points(write(prediction, tmp_path / "enhanced"))
    for name, point in prediction.points.items():
        np.testing.assert_allclose(written[name], LPS * point, atol=1e-4)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "ImagePositionPatient"])
def test_a_series_that_is_nowhere(volume, tmp_path, keyword):
    for path in (tmp_path / "image").iterdir():
        image = pydicom.dcmread(path)
        delattr(image, keyword)
        image.save_as(path)
    with pytest.raises(FewshotError, match="does not say where it lies in space"):
        write(make_prediction(volume), tmp_path / "image")


def test_landmarks_of_another_picture(tmp_path):
    volume = save_series(tmp_path / "image", slices=1, placed=False)
    other = replace(make_prediction(volume, {"tip": (1, 1, 0)}), shape=(8, 5, 1))
    with pytest.raises(FewshotError, match="of a picture of 8 x 5 pixels, the one in .* has 7 x 5"):
        write(other, tmp_path / "image")


def test_folders_that_hold_no_series_or_several(volume, tmp_path):
    prediction = make_prediction(volume)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(FewshotError, match="holds no DICOM image"):
        write(prediction, tmp_path / "empty")
    with pytest.raises(FewshotError, match="cannot be read"):
        write(prediction, tmp_path / "none")
    save_series(tmp_path / "second", slices=1)
    (tmp_path / "second" / "00.dcm").rename(tmp_path / "image" / "other.dcm")
    with pytest.raises(FewshotError, match="holds several image series"):
        write(prediction, tmp_path / "image")


def test_no_folder_to_write_to(volume, tmp_path):
    with pytest.raises(FewshotError, match="was not written"):
        write_sr(make_prediction(volume), tmp_path / "image", tmp_path / "none" / "sr.dcm")
