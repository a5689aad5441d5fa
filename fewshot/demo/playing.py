"""The annotator's part of the demo, step by step, and what is told at the end."""

from __future__ import annotations

from fewshot.console import errors
from fewshot.console import results as stdout
from fewshot.demo import landmarks
from fewshot.demo.annotator import Annotator
from fewshot.demo.folder import DemoFolder
from fewshot.demo.landmark_results import LandmarkRow, counts, landmark_results, landmark_table, mean_error
from fewshot.demo.results import Row, dice_table, mean_dice, mean_first_seconds, results, write_results
from fewshot.demo.steps import step
from fewshot.errors import FewshotError

FLOOR = 0.4
"""Mean Dice of the default adapter below which something is broken: eight seeds gave 0.47 to 0.71."""

CEILING_MM = 20.0
"""Mean error of landmarks above which something is broken: eight seeds gave 5.3 to 8.1."""

LEAST_FOUND = 0.4
"""Share of landmarks found below which something is broken: eight seeds gave 0.84 to 1, a single study 0.6."""

BACKBONE = "embedded"
"""The backbone that comes with the project: nothing is downloaded, and every machine finds the same."""


def play(annotator: Annotator, place: DemoFolder, *, slices: int, report: bool) -> str:
    """Label, train, find, report.

    Args:
        annotator: who does it.
        place: where files go.
        slices: how many slices of the template are labelled.
        report: have the landmarks of a study stored in the PACS.

    Raises:
        FewshotError: something failed, or what was found is worse than anything should be.

    Returns:
        The template's name.
    """
    with step("labelling") as shown:
        template, drawn = annotator.label_next_sample(slices)
        numbers = ", ".join(str(number + 1) for number in drawn)
        shown.done = (
            f"template {template}: slices {numbers} labelled, "
            f"{len(annotator.landmarks.dataset.landmarks)} landmarks marked with a dot, all submitted"
        )
    for model in annotator.TRAINED:
        with step(f"training {model}") as shown:
            trained = annotator.train(model, shown.show)
            shown.done = f"{model} trained: {trained.epoch} epochs, accuracy {trained.accuracy:.2f}"
    with step(f"training {landmarks.MODEL}") as shown:
        trained = annotator.train(landmarks.MODEL, shown.show)
        shown.done = f"{landmarks.MODEL} trained: {trained.epoch} epochs"
    with step("segmenting") as shown:
        rows = annotator.predict_others(template, shown.show)
        others = len({row.case for row in rows})
        shown.done = f"{others} studies segmented by {len(annotator.MODELS)} models"
    with step("finding landmarks") as shown:
        points = annotator.landmarks.find_in_others(template, shown.show)
        found, there = counts(points)
        shown.done = f"{found} of {there} landmarks found in {others} studies"
    if report:
        with step("storing a report") as shown:
            annotator.landmarks.store_report(points[0].case)
            shown.done = f"landmarks of {points[0].case} stored in the PACS as a DICOM report (SR)"
    _tell(rows, points, place, template, len(drawn))
    return template


def _tell(rows: list[Row], points: list[LandmarkRow], place: DemoFolder, template: str, slices: int) -> None:
    """Tables to stdout, numbers to the folder.

    Raises:
        FewshotError: the default adapter stays below the floor, or the landmarks are too far off.
    """
    others = len({row.case for row in rows})
    stdout.print(f"Found in {others} unseen studies, from {slices} labelled slices of {template} (Dice):")
    stdout.print(dice_table(rows))
    stdout.print(f"The first request for a study computes its features: {mean_first_seconds(rows):.1f} s.")
    stdout.print(f"\nLandmarks found in {others} unseen studies, from one dot each in {template}:")
    stdout.print(landmark_table(points))
    found = results(rows, dataset="phantoms", templates=[template], backbone=BACKBONE)
    write_results(place.results, found | {"landmarks": landmark_results(points)})
    errors.print(f"Pictures: {place.pictures}\nNumbers:  {place.results}", highlight=False, soft_wrap=True)
    require_sane(rows, points, place)


def require_sane(rows: list[Row], points: list[LandmarkRow], place: DemoFolder) -> None:
    """Refuse results that only something broken gives.

    Raises:
        FewshotError: with what is wrong.
    """
    broken = f"something is broken: look at {place.pictures}."
    score = mean_dice(rows, adapter="auto")
    if score is None or score < FLOOR:
        raise FewshotError(
            f"The mean Dice of the default adapter is {score or 0:.2f}, and below {FLOOR} {broken}"
        )
    found, there = counts(points)
    error = mean_error(points)
    if error is None or found < LEAST_FOUND * there:
        raise FewshotError(f"{found} of {there} landmarks were found, and below {LEAST_FOUND:.0%} {broken}")
    if error > CEILING_MM:
        raise FewshotError(
            f"The landmarks are {error:.1f} mm off on average, and above {CEILING_MM:.0f} mm {broken}"
        )
