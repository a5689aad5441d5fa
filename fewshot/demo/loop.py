"""The annotator loop from an empty folder to measured results, as `fewshot demo` runs it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fewshot.console import errors
from fewshot.demo.annotator import Annotator
from fewshot.demo.client import Client
from fewshot.demo.folder import DemoFolder
from fewshot.demo.orthanc import Orthanc
from fewshot.demo.playing import BACKBONE, play
from fewshot.demo.server import Server, free_port, usual_port
from fewshot.demo.staying import keep_serving, terminable
from fewshot.demo.steps import note, step
from fewshot.demo.studies import Served, send_studies
from fewshot.errors import FewshotError
from fewshot.phantoms import LANDMARKS

SERVER_PORT, PACS_PORT = 8000, 8042
"""Where servers that stay are looked for: viewers and Orthanc's own documentation have these as defaults."""


@dataclass(frozen=True)
class Demo:
    """What to play, see `run_demo`."""

    serve: bool
    dicom: bool
    by_hand: bool
    studies: int
    template_slices: int
    seed: int
    port: int | None

    @property
    def stays(self) -> bool:
        return self.serve or self.by_hand


def run_demo(
    folder: str | Path = "demo-output",
    *,
    serve: bool = False,
    dicom: bool = False,
    by_hand: bool = False,
    studies: int = 6,
    template_slices: int = 6,
    seed: int = 0,
    port: int | None = None,
) -> int:
    """Play the whole loop over HTTP: studies, server, partial template, training, predictions, Dice; and landmarks.

    Progress goes to stderr, the tables of results to stdout.

    Args:
        folder: receives everything the demo and its servers write; emptied of an earlier demo.
        serve: leave the server running at the end until Ctrl-C, for a look with a viewer.
        dicom: keep the studies in a PACS (Orthanc), where the server finds them by DICOMweb, as OHIF does.
        by_hand: leave labelling and training to the user: play nothing, and leave the server running.
        studies: how many studies to make up, the template among them.
        template_slices: how many slices of the template the annotator labels.
        seed: which studies.
        port: where the server listens; by default a free port, 8000 if it is free and the server stays.

    Returns:
        Exit code: 0, or 1 where a server failed or the predictions are worse than any should be.
    """
    place = DemoFolder(folder)
    demo = Demo(serve, dicom, by_hand, studies, template_slices, seed, port)
    try:
        with terminable(), place.held():
            _run(place, demo)
    except FewshotError as error:
        errors.print(f"Error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _run(place: DemoFolder, demo: Demo) -> None:
    # Before an earlier demo is deleted: Orthanc may not be installed, a port may be taken.
    port = _port("MONAI Label", SERVER_PORT, demo, demo.port)
    orthanc = Orthanc(place.pacs, port=_port("Orthanc", PACS_PORT, demo)) if demo.dicom else None
    place.empty()
    with ExitStack() as running:
        with step("studies") as shown:
            truth = place.make_studies(demo.studies, seed=demo.seed, copy=not demo.dicom)
            shown.done = (
                f"{demo.studies} studies with {', '.join(truth.labels)}, and {len(LANDMARKS)} landmarks"
            )
        if orthanc:
            running.enter_context(orthanc)
            served = _fill(orthanc, place, demo)
        else:
            served = {case: Served(case) for case in truth.cases}
        server = running.enter_context(_server(orthanc, place, port))
        annotator = Annotator(
            Client(server.url), truth, place, {case: each.image for case, each in served.items()}
        )
        try:
            with step("MONAI Label starts") as shown:
                server.wait_until_ready()
                shown.done = f"MONAI Label answers at {server.url}"
            template = (
                "" if demo.by_hand else play(annotator, place, slices=demo.template_slices, report=demo.dicom)
            )
            if demo.stays:
                unseen = next(each for case, each in served.items() if case != template)
                pictures = place.pictures if template else None
                keep_serving(server, orthanc, study=unseen.study, trained=bool(template), pictures=pictures)
        except FewshotError as error:
            raise FewshotError(f"{error}\nThe server's log: {place.log}") from error


def _server(orthanc: Orthanc | None, place: DemoFolder, port: int | None) -> Server:
    return Server(
        orthanc.dicomweb if orthanc else place.studies,
        place.log,
        conf={
            "backbone": BACKBONE,
            "workspace": str(place.server / "workspace"),
            "bank": str(place.server / "bank"),
        },
        environment={
            "MONAI_LABEL_SESSION_PATH": str(place.server / "sessions"),
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(place.server / "dicom"),
        },
        port=port,
    )


def _port(program: str, usual: int, demo: Demo, wanted: int | None = None) -> int | None:
    """Where a program listens: as wanted, else where it is looked for if it stays, else anywhere (None).

    Raises:
        FewshotError: the wanted port is taken.
    """
    if wanted:
        return free_port(wanted)
    if not demo.stays:
        return None
    port = usual_port(usual)
    if port != usual:
        note(f"Port {usual} is taken: {program} listens on {port}.")
    return port


def _fill(orthanc: Orthanc, place: DemoFolder, demo: Demo) -> dict[str, Served]:
    """Wait for the PACS and send it the studies; returns case name -> where it is found there."""
    with step("Orthanc starts") as shown:
        orthanc.wait_until_ready()
        shown.done = f"Orthanc answers at {orthanc.url}"
    with step("sending the studies") as shown:
        served = send_studies(orthanc, place.studies, demo.studies, seed=demo.seed, show=shown.show)
        shown.done = f"{len(served)} studies sent to Orthanc as DICOM"
    return served
