"""Volumes: read them, cut them into slices of one plane, normalise, and put labels back."""

from fewshot.volumes.labels import read_labels, resample_labels
from fewshot.volumes.planes import PLANES, acquisition_plane
from fewshot.volumes.reading import read_volume
from fewshot.volumes.spec import SliceSpec, resolve_spec
from fewshot.volumes.stack import SliceStack
from fewshot.volumes.volume import Volume, modality_of
from fewshot.volumes.windows import WINDOWS
from fewshot.volumes.writing import write_labels

__all__ = [
    "PLANES",
    "WINDOWS",
    "SliceSpec",
    "SliceStack",
    "Volume",
    "acquisition_plane",
    "modality_of",
    "read_labels",
    "read_volume",
    "resample_labels",
    "resolve_spec",
    "write_labels",
]
