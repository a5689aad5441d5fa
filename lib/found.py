"""What could be read of submissions, and why others were left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from fewshot.errors import FewshotError
from lib.pacs.errors import PacsError
from lib.templates import Submission

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


class NothingToLearnError(FewshotError):
    """A label that is in order, and shows nothing of the kind that is to be learned."""


class Found(list[Read]):
    """What could be read of submissions.

    Attributes:
        images: where each of them comes from.
        left_out: why others could not be used, by image or file.
        warnings: what is strange about those that are used, by image.
        passing: the next time they may be read again, so that nothing made of this must be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.left_out: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.passing = False

    def add(self, image: str, read: Read) -> None:
        """One more that could be read."""
        self.append(read)
        self.images.append(image)

    def told(self) -> dict[str, dict[str, str]]:
        """What the statistics of a training say of it."""
        told = {"left_out": self.left_out, "warnings": self.warnings}
        return {key: dict(value) for key, value in told.items() if value}


def read_all(read: Callable[[Submission], Read], submissions: Sequence[Submission]) -> Found[Read]:
    """Read submissions; those that show nothing of the kind are left out.

    What is kept elsewhere and cannot be had or read is left out as well, as long as one remains.

    Raises:
        FewshotError: if one cannot be read.
    """
    found, failed = Found[Read](), []
    for submission in submissions:
        try:
            found.add(submission.image_id, read(submission))
        except NothingToLearnError as error:
            found.left_out[submission.image_id] = str(error)
            logger.info("The template %s is left out: %s", submission.image_id, error)
        except FewshotError as error:
            if not submission.elsewhere or (isinstance(error, PacsError) and error.lost):
                raise
            failed.append(error)
            found.left_out[submission.image_id] = str(error)
            found.passing |= isinstance(error, PacsError)
            logger.warning("The template %s is left out: %s", submission.image_id, error)
    if failed and not found:
        raise failed[0]
    return found
