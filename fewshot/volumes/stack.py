"""A volume as a stack of slices for the backbone, and the exact way back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform

from fewshot.errors import FewshotError
from fewshot.volumes.planes import acquisition_plane, orientation
from fewshot.volumes.resizing import nearest, resize
from fewshot.volumes.spec import DEFAULT_SIZE, SliceSpec
from fewshot.volumes.volume import Volume, spacing_of
from fewshot.volumes.windows import VISIBLE, WINDOWS, auto_window, normalise, window_limits

VERSION = 1
"""Part of every digest: raised when the same volume and spec begin to give other pixels."""
LARGEST = 2.0
"""A slice may be this many times `spec.size` pixels long, so that no field of view exhausts the memory."""


class SliceStack:
    """Slices of one volume in one plane: shown in one orientation, windowed, with square pixels.

    Pixels and voxels: the native slice [rows, cols] fills the `content` [rows, cols] at the top left of each
    image [H, W]; the rest is zero. Positions follow pixel centres, so native row r lies at pixel
    (r + 0.5) * content_rows / native_rows - 0.5.

    Args:
        volume: The volume.
        spec: How to cut it; what it leaves open is decided on this volume.
        patch: Patch size of the backbone in pixels; H and W are multiples of it.

    Attributes:
        spec: The spec with plane, window and size decided.
        size: Pixels of the longer side where the spec has no pixel size.
        plane: Name of the plane.
        content: Rows and columns of the resized slice inside an image.
        native: Rows and columns of a slice on the volume's own grid.
        affine: [4, 4], native (slice, row, col) -> RAS+ millimetres.
        notes: What had to be decided beyond the spec.
    """

    def __init__(self, volume: Volume, spec: SliceSpec, *, patch: int) -> None:
        self.volume = volume
        self.patch = patch
        self.plane = acquisition_plane(volume) if spec.plane == "auto" else spec.plane
        window = auto_window(volume) if spec.window == "auto" else spec.window
        self.size = spec.size or DEFAULT_SIZE
        self.spec = replace(spec, plane=self.plane, window=window, size=self.size)
        self._orientation = orientation(volume.affine, self.plane)
        self.affine = volume.affine @ inv_ornt_aff(self._orientation, volume.shape)
        self._depth, rows, cols = (volume.shape[axis] for axis in np.argsort(self._orientation[:, 0]))
        self.native = (rows, cols)
        self.content, self.notes = self._fit()

    def __len__(self) -> int:
        return self._depth

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, H and W: the shape of `images`."""
        rows, cols = self.grid
        return self._depth, rows * self.patch, cols * self.patch

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the rows and columns of an image."""
        rows, cols = self.content
        return -(-rows // self.patch), -(-cols // self.patch)

    @property
    def axis(self) -> int:
        """The array axis along which the slices are stacked."""
        return int(np.argmin(self._orientation[:, 0]))

    @property
    def upright(self) -> bool:
        """Whether slices are numbered as along that axis, not from its other end."""
        return bool(self._orientation[self.axis, 1] > 0)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Values of the volume that are black and white in every slice."""
        return window_limits(self.volume, self.spec.window)

    @cached_property
    def air(self) -> np.ndarray:
        """Slices that show nothing, bool [S]: air, or the same value everywhere."""
        slices = self.slices(self.volume.array)
        lowest = normalise(slices.min(axis=(1, 2)), self.limits)
        highest = normalise(slices.max(axis=(1, 2)), self.limits)
        return highest - lowest < VISIBLE

    @cached_property
    def images(self) -> np.ndarray:
        """All slices, float32 [S, H, W] in [0, 1]."""
        return self.render(range(self._depth))

    @cached_property
    def digest(self) -> str:
        """Name of the images: the same for every stack that has these pixels, without making them."""
        parts = (VERSION, self.volume.digest, self.plane, self.spec.window, *WINDOWS[self.spec.window][:2])
        text = repr((*parts, self.content, self.patch))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def render(self, rows: Sequence[int]) -> np.ndarray:
        """Some of the slices as images, float32 [len(rows), H, W]; for volumes too large to hold at once."""
        _, height, width = self.shape
        images = np.zeros((len(rows), height, width), dtype=np.float32)
        native = self.slices(self.volume.array)[list(rows)]
        resize(
            normalise(native, self.limits), self.content, out=images[:, : self.content[0], : self.content[1]]
        )
        return images

    def slices(self, array: np.ndarray) -> np.ndarray:
        """A volume's array [X, Y, Z] as native slices [S, rows, cols]: reordered and flipped only."""
        self._expect(array, self.volume.shape)
        return np.asarray(apply_orientation(array, self._orientation))

    def slices_of_box(
        self, box: tuple[slice, slice, slice], values: np.ndarray
    ) -> tuple[tuple[slice, slice, slice], np.ndarray]:
        """A part of an array [X, Y, Z], given by its place and values, as a part of `slices` of that array."""
        turned = [slice(0)] * 3
        for axis, (target, flip) in enumerate(self._orientation):
            start, stop = box[axis].start, box[axis].stop
            side = self.volume.shape[axis]
            turned[int(target)] = slice(start, stop) if flip > 0 else slice(side - stop, side - start)
        return (turned[0], turned[1], turned[2]), np.asarray(apply_orientation(values, self._orientation))

    def restore(self, slices: np.ndarray) -> np.ndarray:
        """Native slices [S, rows, cols] as an array [X, Y, Z]: the exact inverse of `slices`."""
        self._expect(slices, (self._depth, *self.native))
        as_shown = np.array([[0, 1], [1, 1], [2, 1]])
        return np.asarray(apply_orientation(slices, ornt_transform(as_shown, self._orientation)))

    def to_pixels(self, labels: np.ndarray) -> np.ndarray:
        """Labels [X, Y, Z] on the pixels of the images [S, H, W], nearest voxel, 0 in the padding."""
        pixels = np.zeros(self.shape, dtype=labels.dtype)
        pixels[:, : self.content[0], : self.content[1]] = nearest(self.slices(labels), self.content)
        return pixels

    def from_pixels(self, array: np.ndarray, *, linear: bool = False) -> np.ndarray:
        """Pixels [S, H, W] on the volume's grid [X, Y, Z].

        Args:
            array: Labels, or with `linear` probabilities.
            linear: Interpolate (float32) instead of taking the nearest pixel.
        """
        self._expect(array, self.shape)
        inside = array[:, : self.content[0], : self.content[1]]
        return self.restore(resize(inside, self.native) if linear else nearest(inside, self.native))

    def patch_coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the native rows and columns in patches: patch i has its centre at i.

        Returns:
            float32 [rows] and [cols]; below 0 and above the last patch at the edges.
        """
        ys, xs = (
            ((np.arange(native) + 0.5) * content / native / self.patch - 0.5).astype(np.float32)
            for native, content in zip(self.native, self.content, strict=True)
        )
        return ys, xs

    def world(self, points: np.ndarray) -> np.ndarray:
        """Pixel positions (slice, row, col) [N, 3] in RAS+ millimetres [N, 3]."""
        return apply_affine(self.affine @ self._pixel_to_native(), np.asarray(points, dtype=np.float64))

    def locate(self, world: np.ndarray) -> np.ndarray:
        """RAS+ millimetres [N, 3] as pixel positions (slice, row, col) [N, 3]: the inverse of `world`."""
        to_pixels = np.linalg.inv(self.affine @ self._pixel_to_native())
        return apply_affine(to_pixels, np.asarray(world, dtype=np.float64))

    def _pixel_to_native(self) -> np.ndarray:
        """[4, 4] from (slice, row, col) of the images to that of the native slices."""
        scale = np.array([1.0, *(n / c for n, c in zip(self.native, self.content, strict=True))])
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = 0.5 * scale - 0.5
        return matrix

    def _fit(self) -> tuple[tuple[int, int], tuple[str, ...]]:
        """Rows and columns of the content in square pixels, and notes."""
        _, row_mm, col_mm = spacing_of(self.affine)
        sides = (self.native[0] * row_mm, self.native[1] * col_mm)
        pixels = float(self.size)
        notes: tuple[str, ...] = ()
        if self.spec.pixel_mm is not None and self.volume.calibrated:
            wanted = max(sides) / self.spec.pixel_mm
            # at least one patch: a volume far smaller than the templates would leave nothing to compare
            pixels = min(max(wanted, float(self.patch)), LARGEST * self.size)
            if pixels < wanted:
                notes = (
                    f"slices of {max(sides):.0f} mm shown at {pixels:.0f} pixels instead of {wanted:.0f}",
                )
        rows, cols = (max(1, round(round(side / max(sides) * pixels, 6))) for side in sides)
        return (rows, cols), notes

    def _expect(self, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise FewshotError(
                f"An array of shape {array.shape} does not belong to {self.volume.name or 'this volume'}; "
                f"give one of shape {shape}."
            )
