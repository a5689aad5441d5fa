"""Training of the backbone on the server's own studies, labelled or not."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, name_to_device, strtobool
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.files import read_json
from lib.project import Project
from lib.templates import read_image
from lib.trainers.base import WorkspaceTrainer, option
from lib.trainers.plans import CURRENT, SCRATCH, Plan
from lib.trainers.publishing import TOLERANCE, compare, publish
from lib.trainers.runs import Run, Runs
from lib.trainers.stats import BackboneStats

if TYPE_CHECKING:
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)

GROUP = "studies/"
"""Studies have names of the form GROUP/NAME in the engine; a server's are one group."""


class BackboneTrainer(WorkspaceTrainer):
    """Pretrains on all studies, and publishes the new backbone unless left-out templates are found worse with it.

    A training that was interrupted goes on the next time. Without templates a trained backbone waits until there are
    some; the next training then only compares.

    Args:
        name: the task's name in `/info/`.
        project: what all tasks share.
        description: for the viewer's user.
    """

    def __init__(self, name: str, project: Project, *, description: str) -> None:
        super().__init__(name, project, description)
        self._runs = Runs(project.workspace)

    @override
    def config(self) -> dict[str, Any]:
        """Options for viewers; the first of a list is the default."""
        plan = self._defaults()
        return {
            "minutes": plan.minutes,
            "images": plan.images,
            "start": list(dict.fromkeys([plan.start, CURRENT, SCRATCH])),
            "restart": False,
            "device": device_list(),
        }

    @override
    def stats(self) -> dict[str, Any]:
        """As of every training, and under `bank` how far the server is with the features of a new backbone."""
        stats = super().stats()
        with suppress(FileNotFoundError):
            stats["bank"] = read_json(self.project.workspace.bank)
        return stats

    @override
    def check(self, request: dict[str, Any]) -> None:
        """Refuse unusable options, and a training that could not go on with what is there."""
        plan = Plan.parse(request, self._defaults())
        if not self.project.datastore.list_images():
            raise HTTPException(409, "There is no study to train on: put some into the studies folder first.")
        pending = None if _restart(request) else self._runs.pending()
        if pending and pending.state == "waiting" and not self.project.landmarks.organ_exists():
            raise HTTPException(
                409,
                "A trained backbone waits to be compared with the one in use: label a structure in one study, submit "
                "it and train backbone again, or choose restart to train another one.",
            )
        if pending and pending.state == "training" and (changed := plan.differences(pending.plan)):
            raise HTTPException(
                409,
                f"A training of the backbone was interrupted that was begun with other {' and '.join(changed)}: leave "
                "the options as they were to go on with it, or choose restart to begin anew.",
            )

    @override
    def _begin_stats(self) -> BackboneStats:
        return BackboneStats(self._stats, model=self.name)

    @override
    def _train(self, request: dict[str, Any], stats: BackboneStats) -> dict[str, Any]:
        """Train, compare and publish, or go on where that was interrupted.

        Returns:
            `outcome` is "published", "refused" or "waiting", and `message` says why.
        """
        device = name_to_device(request.get("device") or None)
        stats.note(templates=[submission.image_id for submission in self.project.submissions()])
        run = self._run(request)
        stats.note(backbone=run.name, studies=len(run.studies), skipped=run.failed)
        if run.state == "training":
            self._pretrain(run, stats, device)
        message = self._judge(run, stats, device)
        logger.info("%s", message)
        return {"outcome": run.state, "message": message}

    def _defaults(self) -> Plan:
        """The options of an interrupted training, so that training again goes on with it."""
        pending = self._runs.pending()
        return pending.plan if pending and pending.state == "training" else Plan()

    def _run(self, request: dict[str, Any]) -> Run:
        """The training to go on with, else a new one."""
        pending = self._runs.pending()
        if pending and not _restart(request):
            return pending
        plan = Plan.parse(request, self._defaults())
        start = {CURRENT: self.project.workspace.backbone_now(), SCRATCH: None}.get(plan.start, plan.start)
        return self._runs.begin(plan, start, list(self.project.datastore.list_images()))

    def _pretrain(self, run: Run, stats: BackboneStats, device: str) -> None:
        from fewshot.pretraining import pretrain

        stats.note(resumed=run.has_checkpoint)
        if run.has_checkpoint:
            logger.info("The training of backbone %s was interrupted and goes on.", run.name)

        def left_out(failed: dict[str, str]) -> None:
            run.failed = {name.removeprefix(GROUP): reason for name, reason in failed.items()}
            for name, reason in run.failed.items():
                logger.warning("%s is left out of the training: %s", name, reason)
            stats.note(skipped=run.failed)

        try:
            pretrain(
                {GROUP + image: partial(self._read, image) for image in run.studies},
                run.file,
                start=run.start and self.project.workspace.find_backbone(run.start),
                settings=run.plan.recipe(),
                device=device,
                progress=stats.progress,
                left_out=left_out,
            )
        except Exception:
            if not run.has_checkpoint:  # it never began: another one may have other options
                self._runs.discard(run)
            raise
        self._runs.note(run, "waiting")

    def _judge(self, run: Run, stats: BackboneStats, device: str) -> str:
        """Publish a trained backbone, refuse it or let it wait; says in a sentence which and why."""
        from fewshot.crossvalidation import TooFewLabelsError

        templates = self.project.templates(self.project.submissions())
        if not templates:
            return _waits("there is no template to compare it on")
        try:
            dice = compare(self.project, run.file, templates, stats, device=device)
        except TooFewLabelsError:
            return _waits("the templates show no label on two slices or in two studies to compare it on")
        old, new = (fmean(dice[which].values()) for which in ("old", "new"))
        better = new >= old - TOLERANCE
        stats.note(dice=dice, best_metric=round(new if better else old, 4))
        told = f"the Dice coefficient of left-out templates is {new:.3f} with the new and {old:.3f} with the old one"
        if not better:
            self._runs.note(run, "refused")
            return f"The new backbone is not published and the old one stays in use: {told}."
        versions = publish(self.project, run.file, templates, stats, device=device)
        self._runs.note(run, "published")
        stats.note(versions=versions)
        return f"The new backbone is in use: {told}."

    def _read(self, image_id: str) -> Volume:
        try:
            path = self.project.datastore.get_image_uri(image_id)
        except Exception as error:  # a study that an archive does not hand over must not stop the others
            raise FewshotError(f"{image_id} cannot be fetched ({error}); look into the archive.") from error
        return read_image(Path(path), self.project.description)


def _waits(reason: str) -> str:
    return (
        f"The new backbone is trained but not published: {reason}; label more, submit it and train backbone again, "
        "which then only compares."
    )


def _restart(request: dict[str, Any]) -> bool:
    return bool(strtobool(option(request, "restart", False)))
