"""The whole loop of an annotator in OHIF beside a PACS; the tests are one story and run in this order."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from fewshot.demo.templates import partial_template
from fewshot.evaluation.metrics import label_scores
from fewshot.phantoms import ORGANS
from fewshot.volumes import read_labels
from tests.server.conftest import LABELS, Server, wait_for
from tests.viewer.conftest import Pacs, Study
from tests.viewer.ohif import Ohif

pytestmark = [pytest.mark.viewer, pytest.mark.server, pytest.mark.pacs]


def submitted(server: Server, study: Study, folder: Path) -> tuple[np.ndarray, list[str]]:
    """The label of a study as the server has it: voxels and the names of the values 1, 2, ..."""
    where = {"label": study.series, "tag": "final"}
    file = folder / "label.nii.gz"
    file.write_bytes(requests.get(f"{server.url}/datastore/label", params=where, timeout=60).content)
    info = requests.get(f"{server.url}/datastore/label/info", params=where, timeout=60).json()
    return read_labels(file, study.volume), [entry["name"] for entry in info["label_info"]]


def by_name(voxels: np.ndarray, names: dict[str, int], wanted: list[str]) -> np.ndarray:
    """Voxels with the values 1, 2, ... for the wanted names."""
    found = np.zeros(voxels.shape, np.uint8)
    for value, name in enumerate(wanted, start=1):
        if name in names:
            found[voxels == names[name]] = value
    return found


def paint(ohif: Ohif, study: Study, organ: str, index: int) -> None:
    """A stroke of the brush inside an organ."""
    ohif.scroll_to(index, study.volume.shape[2])
    inside = study.of(organ)[:, :, index]
    x, y = np.argwhere(inside).mean(0).round().astype(int)
    assert inside[x, y], "choose a slice in which the organ's centre lies in the organ"
    at = ohif.canvas_of((int(x), int(y), index))
    ohif.stroke([(at[0] - 8, at[1]), at, (at[0] + 8, at[1] + 3)])


def test_study_opens_and_a_model_without_templates_says_what_to_do(ohif: Ohif, pacs: Pacs) -> None:
    ohif.open(pacs.studies[0].study)
    ohif.connect()
    tab = ohif.page.locator('.tab:has(label:text-is("Auto-Segmentation"))')
    assert tab.locator("select.selectBox").input_value() == "fewshot"
    tab.locator('button[title="Run Segmentation"]').click()
    ohif.page.get_by_text("No template yet").first.wait_for()
    ohif.shot("untrained")


def test_images_are_what_they_are_in_the_pacs(ohif: Ohif, pacs: Pacs) -> None:
    for study in (pacs.studies[2], pacs.studies[0]):  # JPEG 2000, and without compression
        ohif.open(study.study)
        voxels = np.random.default_rng(0).integers(0, study.volume.shape, (500, 3))
        np.testing.assert_array_equal(ohif.grey_values(voxels), study.volume.array[tuple(voxels.T)])
    ohif.connect()


def test_nothing_and_unnamed_segments_are_not_submitted(ohif: Ohif, pacs: Pacs) -> None:
    ohif.page.get_by_role("button", name="Submit Label").click()
    ohif.page.get_by_text("draw at least one structure").first.wait_for()
    ohif.show_tools()
    ohif.brush(8)
    paint(ohif, pacs.studies[0], "liver", pacs.studies[0].busiest("liver"))
    ohif.show_panel()
    ohif.page.get_by_role("button", name="Submit Label").click()
    ohif.page.get_by_text('Name "Segment 1" first').first.wait_for()
    assert not [each for each in series(pacs) if each == "SEG"]


def series(pacs: Pacs) -> list[str]:
    """The modalities of all series in the PACS."""
    found = requests.get(f"{pacs.orthanc.url}/series", params={"expand": ""}, timeout=60).json()
    return [each["MainDicomTags"]["Modality"] for each in found]


def test_drawn_structures_are_submitted_under_their_names(
    ohif: Ohif, pacs: Pacs, server: Server, tmp_path: Path
) -> None:
    study = pacs.studies[0]
    ohif.show_tools()
    ohif.rename_segment(1, "liver")
    ohif.add_segment()
    ohif.rename_segment(2, "spleen")
    ohif.brush(8)
    ohif.select_segment("spleen")
    paint(ohif, study, "spleen", study.busiest(*LABELS))
    ohif.select_segment("liver")
    paint(ohif, study, "liver", study.busiest(*LABELS))
    ohif.shot("painting")
    ohif.show_panel()
    assert "Submitted liver, spleen; 1 of 3 studies are labelled" in ohif.submit()
    ohif.shot("submitted")
    shown = by_name(ohif.voxels(study.volume.shape), ohif.segments(), list(LABELS))
    assert (shown == 1)[study.of("liver")].any()
    assert (shown == 2)[study.of("spleen")].any()
    there, names = submitted(server, study, tmp_path)
    np.testing.assert_array_equal(
        by_name(there, {name: value for value, name in enumerate(names, 1)}, list(LABELS)), shown
    )
    info = server.client.info()
    assert info["datastore"]["completed"] == 1
    assert info["labels"] == ["liver", "spleen"]


def test_a_template_made_elsewhere_is_noticed(ohif: Ohif, pacs: Pacs, server: Server, tmp_path: Path) -> None:
    """Six slices with all organs, submitted from another viewer, take the place of the strokes."""
    study = pacs.studies[0]
    ohif.show_tools()  # where people are while others submit
    drawn, _ = partial_template(study.truth, ORGANS, slices=6)
    file = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(drawn.astype(np.uint8), study.volume.affine), file)
    answer = server.submit_file(study.series, file, list(ORGANS))
    assert answer.status_code == 200, answer.text
    ohif.page.wait_for_function(
        "() => window.services.segmentationService.getSegmentation('1')"
        "&& Object.values(window.services.segmentationService.getSegmentation('1').segments).length >= 5"
    )
    assert set(ohif.segments()) == set(ORGANS)
    assert ohif.active_segment() == "liver"  # what is painted next goes where the annotator means it to go
    ohif.show_panel()


def test_a_training_can_be_stopped(ohif: Ohif, server: Server) -> None:
    ohif.page.get_by_role("button", name="Update Model").click()
    ohif.page.get_by_role("button", name="Stop Training").click()
    ohif.page.get_by_text("The training was stopped").first.wait_for()
    ohif.page.get_by_role("button", name="Update Model").wait_for()
    wait_for(lambda: requests.get(f"{server.url}/train/", timeout=60).json()["status"] == "STOPPED")


def test_training_shows_its_progress_and_its_end(ohif: Ohif, server: Server) -> None:
    ohif.page.get_by_role("button", name="Update Model").click()
    ohif.page.get_by_role("button", name="Stop Training").wait_for()
    bar = ohif.page.locator(".w3-orange")
    ohif.page.wait_for_function("() => parseInt(document.querySelector('.w3-orange').innerText) > 0")
    assert 0 < int(bar.inner_text().strip("%")) <= 100
    ohif.shot("training")
    ohif.page.get_by_text("The model is trained").first.wait_for()
    ohif.page.get_by_role("button", name="Update Model").wait_for()
    assert requests.get(f"{server.url}/train/", timeout=60).json()["status"] == "DONE"


def test_all_labels_are_found_in_another_study_in_place_and_colour(
    ohif: Ohif, pacs: Pacs, server: Server
) -> None:
    study = pacs.studies[1]
    ohif.open(study.study)
    ohif.connect()
    ohif.show_tools()
    ohif.rename_segment(ohif.segments()["spleen"], "something else")  # a result must not go into it
    ohif.show_panel()
    ohif.run("fewshot")
    ohif.connect()  # once more: nothing is lost
    shown = by_name(ohif.voxels(study.volume.shape), ohif.segments(), list(ORGANS))
    file, said = server.segment("fewshot", study.series)
    answered = by_name(read_labels(file, study.volume), said["label_names"], list(ORGANS))
    np.testing.assert_array_equal(shown, answered)
    scores = label_scores(study.truth, shown, ORGANS, affine=study.volume.affine)
    assert np.mean([each.dice for each in scores.values()]) > 0.6
    assert not (ohif.voxels(study.volume.shape) == ohif.segments()["something else"]).any()
    colours = ohif.colours()
    assert len(colours) == 3
    axial, *others = [{organ: each[organ] for organ in ORGANS} for each in colours.values()]
    assert others == [axial, axial]
    assert len({tuple(colour) for colour in axial.values()}) == len(ORGANS)
    ohif.scroll_to(study.busiest("liver", "spleen"), study.volume.shape[2])
    ohif.shot("prediction")


def test_a_correction_is_submitted_and_counts(ohif: Ohif, pacs: Pacs, server: Server, tmp_path: Path) -> None:
    study = pacs.studies[1]
    before = ohif.voxels(study.volume.shape)
    ohif.show_tools()
    ohif.brush(8)
    ohif.select_segment("spleen")
    paint(ohif, study, "liver", study.busiest("liver"))  # wrong on purpose: it must come back
    after = ohif.voxels(study.volume.shape)
    assert (before != after).any()
    ohif.show_panel()
    assert "2 of 3 studies are labelled" in ohif.submit()
    there, names = submitted(server, study, tmp_path)
    np.testing.assert_array_equal(
        by_name(there, {name: value for value, name in enumerate(names, 1)}, list(ORGANS)),
        by_name(after, ohif.segments(), list(ORGANS)),
    )


def test_export_of_the_segment_list_stores_a_seg(ohif: Ohif, pacs: Pacs) -> None:
    before = series(pacs).count("SEG")
    ohif.show_tools()
    ohif.export("exported")
    wait_for(lambda: series(pacs).count("SEG") == before + 1, seconds=60)


def test_next_sample_opens_the_study_that_is_left_and_then_says_so(
    ohif: Ohif, pacs: Pacs, server: Server, tmp_path: Path
) -> None:
    ohif.show_panel()
    ohif.page.get_by_role("button", name="Next Sample").click()
    ohif.page.get_by_text(pacs.studies[2].study).first.wait_for()
    ohif.shot("next-sample")
    ohif.page.get_by_role("button", name="OK").click()
    ohif.page.wait_for_url(f"**StudyInstanceUIDs={pacs.studies[2].study}")
    file = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(pacs.studies[2].truth.astype(np.uint8), pacs.studies[2].volume.affine), file)
    assert server.submit_file(pacs.studies[2].series, file, list(ORGANS)).status_code == 200
    ohif.open(pacs.studies[2].study)
    ohif.connect()
    ohif.page.get_by_role("button", name="Next Sample").click()
    ohif.page.get_by_text("All studies are labelled").first.wait_for()


def test_the_viewer_had_no_errors(ohif: Ohif) -> None:
    assert not ohif.errors
