"""What the trainings of one workspace have in common: one at a time, statistics in a file, options of viewers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from typing_extensions import override

from lib.failures import sentence
from lib.files import read_json, write_json
from lib.project import Project
from lib.trainers.stats import TrainingStats, ended

ABANDONED = "The training was stopped before it was done; what was trained before stays in use."


class WorkspaceTrainer(TrainTask, ABC):
    """A train task that keeps the conventions which viewers rely on.

    `BasicTrainTask` is made of MONAI's engines: networks, optimisers, transforms and data loaders that run
    over volumes. None of that exists here, so this is a `TrainTask` of its own with the same options and
    statistics in the same form, written while the training runs.

    Args:
        name: the task's name in `/info/`.
        project: what all tasks share.
        description: for the viewer's user.
    """

    def __init__(self, name: str, project: Project, description: str) -> None:
        super().__init__(description)
        self.name = name
        self.project = project
        self._stats = project.workspace.stats(name)

    @override
    def stats(self) -> dict[str, Any]:
        """The last or running training's statistics, empty before the first."""
        told = self._read_stats()
        return told if "total_time" in told or not told else self.end_stats(ABANDONED)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, and write down from the beginning to the end how it goes, also that it failed.

        Returns:
            The final statistics.

        Raises:
            HTTPException, FewshotError: with the reason; what was trained before stays in use.
        """
        self.project.datastore = datastore
        with self._only_one(seconds=2):  # a server that only looks holds the lock for a moment
            stats = self._begin_stats()
            try:
                self.check(request)
                result = self._train(request, stats)
            except BaseException as error:  # one that is asked to end says so as well
                stats.finish(error=sentence(error))
                raise
            return stats.finish(**result)

    def end_stats(self, reason: str) -> dict[str, Any]:
        """End the statistics of a training that cannot do it any more, because it was killed.

        Args:
            reason: a sentence for people.

        Returns:
            The statistics; those of a training that runs, or that has ended them itself, as they are.
        """
        try:
            with self._only_one(seconds=0):
                told = self._read_stats()
                if told and "total_time" not in told:
                    told = ended(told, told.get("current_time", "0:00:00"), {"error": reason})
                    write_json(self._stats, told)
                return told
        except HTTPException:
            return self._read_stats()

    @abstractmethod
    def check(self, request: dict[str, Any]) -> None:
        """Refuse what can be refused before a process is started for it.

        Raises:
            HTTPException: with what to do first.
        """

    def has_templates(self) -> bool:
        """Whether there is anything to learn from; where not, *train all* leaves this out."""
        return True

    def _begin_stats(self) -> TrainingStats:
        """Statistics of a training that begins now."""
        return TrainingStats(self._stats, model=self.name)

    @abstractmethod
    def _train(self, request: dict[str, Any], stats: Any) -> dict[str, Any]:
        """Train and publish; the one training of this workspace.

        Args:
            request: as it was checked.
            stats: as `_begin_stats` made them, to note progress in.

        Returns:
            What the final statistics say of the outcome.
        """

    def running(self) -> bool:
        """Whether any process trains in this workspace, one that an earlier server left behind included."""
        try:
            with self._only_one(seconds=1):  # one that was just killed lets go a moment later
                return False
        except HTTPException:
            return True

    def _read_stats(self) -> dict[str, Any]:
        try:
            return dict(read_json(self._stats))
        except FileNotFoundError:
            return {}

    @contextmanager
    def _only_one(self, *, seconds: float) -> Iterator[None]:
        lock = FileLock(self.project.workspace.training_lock)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise HTTPException(
                429, "A training is running in this workspace: wait until it is done, or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()


def option(request: dict[str, Any], key: str, default: Any) -> Any:
    """What a viewer sent: of a list the first; a field that was emptied comes as null, NaN or an empty text."""
    value = request.get(key)
    if isinstance(value, list) and value:
        value = value[0]
    emptied = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return default if emptied else value


def whole_number(request: dict[str, Any], key: str, default: int, *, least: int) -> int:
    """An option that is a whole number.

    Raises:
        HTTPException: if it is not.
    """
    asked = option(request, key, default)
    try:
        number = int(asked)
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        raise HTTPException(422, f"{key} is {asked!r}: give a whole number of at least {least}.")
    return number
