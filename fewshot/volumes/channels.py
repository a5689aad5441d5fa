"""Images of several channels (MR sequences) in one file, of which one is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.volumes.nifti import count_channels, read_nifti
from fewshot.volumes.raw import NIFTI, extension_of
from fewshot.volumes.reading import as_volume, read_volume
from fewshot.volumes.volume import Volume


@dataclass(frozen=True)
class Channel:
    """One of the channels of an image: its number from 0, and its name where somebody gave one."""

    index: int
    name: str = ""

    def of(self, count: int) -> str:
        """A note for people: which of how many channels is used."""
        name = f" ({self.name})" if self.name else ""
        return f'channel {self.index}{name} of {count} is used: "channel" in dataset.json chooses another'


def read_channel(path: Path, channel: Channel, *, modality: str | None = None) -> Volume:
    """Read an image as `read_volume` does, taking one channel of a NIfTI file with four axes.

    Args:
        path: The image.
        channel: Which one. Of an image with a single channel only number 0 can be read.
        modality: As in `read_volume`.

    Raises:
        FewshotError: The file cannot be read, or has no such channel.
    """
    several = extension_of(path) in NIFTI and path.is_file()
    count = count_channels(path) if several else 1
    if channel.index >= count:
        have = f"channels 0 to {count - 1}" if count > 1 else "one channel, number 0"
        raise FewshotError(f'{path} has {have}, so there is no channel {channel.index}: correct "channel".')
    if count == 1:
        return read_volume(path, modality=modality)
    raw = read_nifti(path, channel=channel.index)
    return as_volume(replace(raw, notes=(*raw.notes, channel.of(count))), path, modality=modality)
