"""Align one image with another by SimpleITK: start, affine, B-spline, each from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import SimpleITK

BINS = 32
"""Of the joint histogram of Mattes' mutual information."""
LEAST_SIDE = 8
"""Voxels that an image has at least along each axis: ITK's filters need some, so thin stacks are interpolated."""
LEAST_VOXELS = 6000.0
"""Images are never coarsened below this, about 18 voxels along each axis."""
CONSTANT = 1e-4
"""Below this standard deviation of intensities in [0, 1] there is nothing to align by."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image on a straight grid in millimetres.

    Attributes:
        array: float32, two or three axes.
        spacing: mm along each axis of the array.
        origin: mm, the centre of the first voxel.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    origin: tuple[float, ...]

    @classmethod
    def centred(cls, array: np.ndarray, spacing: Sequence[float]) -> Picture:
        """An image whose middle is at 0."""
        steps = tuple(float(step) for step in spacing)
        middle = tuple(-step * (side - 1) / 2 for step, side in zip(steps, array.shape, strict=True))
        return cls(array, steps, middle)

    @property
    def extent(self) -> np.ndarray:
        """Millimetres along each axis, outer voxels included."""
        return np.multiply(self.spacing, self.array.shape)

    def to_index(self, place: np.ndarray) -> np.ndarray:
        """Millimetres ``[..., axes]`` -> position in voxels."""
        return np.asarray((place - np.array(self.origin)) / np.array(self.spacing))

    def resized(self, voxels: float) -> Picture:
        """The same extent with at most about so many voxels, as isotropic as the spacing allows."""
        from skimage.transform import resize

        step = _step(self.extent, np.array(self.spacing), voxels)
        wanted = np.rint(self.extent / np.maximum(self.spacing, step)).astype(int)
        shape = tuple(int(side) for side in np.maximum(wanted, LEAST_SIDE))
        if shape == self.array.shape:
            return self
        array = resize(self.array, shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
        spacing = self.extent / shape
        origin = np.array(self.origin) + (spacing - self.spacing) / 2
        return Picture(array.astype(np.float32), tuple(spacing.tolist()), tuple(origin.tolist()))

    def cropped(self, low: np.ndarray, high: np.ndarray) -> Picture:
        """The part between two corners in mm, by whole voxels."""
        first = np.clip(np.floor(self.to_index(low)), 0, None).astype(int)
        last = np.minimum(np.ceil(self.to_index(high)).astype(int) + 1, self.array.shape)
        part = self.array[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        origin = np.array(self.origin) + first * np.array(self.spacing)
        return Picture(part, self.spacing, tuple(origin.tolist()))

    def itk(self) -> SimpleITK.Image:
        """For SimpleITK, whose axes run the other way round."""
        import SimpleITK

        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(self.array, dtype=np.float32))
        image.SetSpacing(self.spacing[::-1])
        image.SetOrigin(self.origin[::-1])
        return image


def _step(extent: np.ndarray, spacing: np.ndarray, voxels: float) -> float:
    """Millimetres to which finer spacings are coarsened so that ``voxels`` remain; 0 for a small image."""
    if np.prod(extent / spacing) <= voxels:
        return 0.0
    low, high = 0.0, float(extent.max())
    for _ in range(40):
        middle = (low + high) / 2
        fits = np.prod(extent / np.maximum(spacing, middle)) <= voxels
        low, high = (low, middle) if fits else (middle, high)
    return high


@dataclass(eq=False)
class Alignment:
    """Where each place of the fixed image lies in the moving one: B-spline displacement, then affine.

    Attributes:
        matrix: ``[axes, axes + 1]``, mm in the fixed image -> mm in the moving one.
        shift: displacement in mm ``[*grid.array.shape, axes]`` that comes first; None if there is none.
        grid: the image on whose grid ``shift`` (and a similarity map) is given.
        notes: what went wrong, one sentence each.
    """

    matrix: np.ndarray
    grid: Picture
    shift: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def on_grid(self, values: np.ndarray, target: Picture, rows: slice) -> np.ndarray:
        """Values on ``grid`` linearly on some rows of a target grid; beyond the edge as at the edge."""
        start = target.to_index(np.array(target.origin)) + np.array([rows.start] + [0] * (values.ndim - 1))
        offset = self.grid.to_index(np.array(target.origin) + start * np.array(target.spacing))
        shape = (rows.stop - rows.start, *target.array.shape[1:])
        scale = np.array(target.spacing) / np.array(self.grid.spacing)
        return np.asarray(
            ndimage.affine_transform(
                values, scale, offset=offset, output_shape=shape, order=1, mode="nearest"
            )
        )

    def places(self, target: Picture, rows: slice) -> np.ndarray:
        """Millimetres in the moving image ``[axes, *shape]`` of the voxels in some rows of a grid."""
        shape = (rows.stop - rows.start, *target.array.shape[1:])
        axes = len(shape)
        offsets = [rows.start] + [0] * (axes - 1)
        lines = [
            target.origin[axis] + target.spacing[axis] * (np.arange(shape[axis]) + offsets[axis])
            for axis in range(axes)
        ]
        fixed = np.stack(np.meshgrid(*lines, indexing="ij"))
        if self.shift is not None:
            for axis in range(axes):
                fixed[axis] += self.on_grid(self.shift[..., axis], target, rows)
        moved = np.tensordot(self.matrix[:, :-1], fixed, axes=1)
        return np.asarray(moved + self.matrix[:, -1].reshape(-1, *[1] * axes))


@dataclass(frozen=True)
class Effort:
    """How much work an alignment is worth; see ``Registration.Options``."""

    voxels: int
    samples: int
    affine_iterations: int
    spline_iterations: int
    spacing: float
    seed: int


def align_affine(fixed: Picture, moving: Picture, effort: Effort) -> Alignment:
    """Affine alignment of two images: the better of two starts, then two levels.

    The starts are middle on middle and centre of mass on centre of mass.
    """
    import SimpleITK

    axes = fixed.array.ndim
    levels = [(fixed.resized(v), moving.resized(v)) for v in _sizes(effort.voxels, 64, 8)]
    result = Alignment(np.eye(axes, axes + 1), levels[-1][0])
    if min(fixed.array.std(), moving.array.std()) < CONSTANT:
        result.notes.append("an image is constant, so it was only centred.")
        return result
    centres = [_mass_centre(picture) for picture in levels[0]]
    transform = SimpleITK.AffineTransform(axes)
    transform.SetCenter(centres[0][::-1].tolist())
    method, starts = _method(levels[0][0], effort), []
    for start in (np.zeros(axes), centres[1] - centres[0]):
        transform.SetTranslation(start[::-1].tolist())
        starts.append((_metric(method, levels[0], transform), start[::-1].tolist()))
    transform.SetTranslation(min(starts)[1])
    for pair in levels:
        transform = _optimised_affine(pair, transform, effort, result.notes)
    result.matrix = _matrix(transform, axes)
    return result


def align_spline(fixed: Picture, moving: Picture, start: Alignment, effort: Effort) -> Alignment:
    """Refine an affine alignment on a part of the fixed image: affine, then two B-spline levels.

    Each B-spline deforms what the stages before it have left, so a failed one can be skipped.
    """
    import SimpleITK

    axes = fixed.array.ndim
    # as fine as the fixed part
    share = max(1.0, float(np.prod(moving.extent / fixed.extent)))
    levels = [(fixed.resized(v), moving.resized(v * share)) for v in _sizes(effort.voxels, 8, 1)]
    result = Alignment(start.matrix, levels[-1][0], notes=list(start.notes))
    if min(fixed.array.std(), moving.array.std()) < CONSTANT:
        return result
    affine = SimpleITK.AffineTransform(axes)
    affine.SetCenter(_mass_centre(fixed)[::-1].tolist())
    affine.SetMatrix(start.matrix[::-1, -2::-1].ravel().tolist())
    affine.SetTranslation((_apply(start.matrix, _mass_centre(fixed)) - _mass_centre(fixed))[::-1].tolist())
    result.matrix = _matrix(_optimised_affine(levels[0], affine, effort, result.notes), axes)
    splines = SimpleITK.CompositeTransform(axes)
    for (level, image), factor in zip(levels, (2.0, 1.0), strict=True):
        step = effort.spacing * factor * float(np.max(fixed.extent))
        mesh = [max(1, round(side / step)) for side in fixed.extent[::-1]]
        method = _method(level, effort)
        method.SetOptimizerAsLBFGSB(
            gradientConvergenceTolerance=1e-7,
            numberOfIterations=effort.spline_iterations,
            maximumNumberOfFunctionEvaluations=2 * effort.spline_iterations,
            costFunctionConvergenceFactor=1e7,
        )
        spline = SimpleITK.BSplineTransformInitializer(level.itk(), mesh, 3)
        pair = (level, warped(image, result, level))
        if _run(method, pair, spline, result.notes, "B-spline registration"):
            splines.AddTransform(spline)
            result.shift = _shift(splines, result.grid)
    return result


def warped(moving: Picture, alignment: Alignment, grid: Picture) -> Picture:
    """The moving image on a grid of the fixed one."""
    places = alignment.places(grid, slice(0, len(grid.array)))
    index = moving.to_index(np.moveaxis(places, 0, -1))
    array = ndimage.map_coordinates(moving.array, np.moveaxis(index, -1, 0), order=1, mode="nearest")
    return replace(grid, array=array)


def similarity(moving: Picture, alignment: Alignment, width: int) -> np.ndarray:
    """Local correlation coefficient of the two images in boxes of ``width`` voxels, on ``alignment.grid``."""
    pair = (alignment.grid.array, warped(moving, alignment, alignment.grid).array)
    means = [ndimage.uniform_filter(array, width) for array in pair]

    def covariance(a: int, b: int) -> np.ndarray:
        return np.asarray(ndimage.uniform_filter(pair[a] * pair[b], width) - means[a] * means[b])

    spread = np.sqrt(np.maximum(covariance(0, 0), 0) * np.maximum(covariance(1, 1), 0))
    return np.asarray(np.clip(covariance(0, 1) / np.maximum(spread, 1e-6), -1, 1), np.float32)


def _optimised_affine(pair: Sequence[Picture], start: Any, effort: Effort, notes: list[str]) -> Any:
    """The affine transform that aligns two images, or ``start`` where that fails."""
    import SimpleITK

    method = _method(pair[0], effort)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-3,
        numberOfIterations=effort.affine_iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = SimpleITK.AffineTransform(start)
    return transform if _run(method, pair, transform, notes, "affine registration") else start


def _shift(splines: Any, grid: Picture) -> np.ndarray:
    """Displacement of B-splines on a grid, float32 mm ``[*grid.array.shape, axes]`` in our order of axes."""
    import SimpleITK

    like = grid.itk()
    shift = SimpleITK.TransformToDisplacementField(
        splines,
        SimpleITK.sitkVectorFloat64,
        like.GetSize(),
        like.GetOrigin(),
        like.GetSpacing(),
        like.GetDirection(),
    )
    return np.asarray(SimpleITK.GetArrayFromImage(shift)[..., ::-1], np.float32)


def _method(fixed: Picture, effort: Effort) -> Any:
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetNumberOfWorkUnits(1)  # with more, sums and so results differ from run to run
    share = effort.samples / fixed.array.size
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, effort.seed + 1)  # 0 would take the clock
    return method


def _metric(method: Any, pair: Sequence[Picture], transform: Any) -> float:
    """The negative mutual information; infinite where the images do not overlap."""
    method.SetInitialTransform(transform, True)
    try:
        return float(method.MetricEvaluate(pair[0].itk(), pair[1].itk()))
    except RuntimeError:
        return math.inf


def _run(method: Any, pair: Sequence[Picture], transform: Any, notes: list[str], stage: str) -> bool:
    """Optimise a transform in place; False with a note where the optimiser gives up."""
    method.SetInitialTransform(transform, True)
    try:
        method.Execute(pair[0].itk(), pair[1].itk())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        notes.append(f"the {stage} failed at one level, which was skipped ({reason}).")
        return False
    return bool(np.isfinite(transform.GetParameters()).all())


def _sizes(voxels: int, *parts: int) -> list[float]:
    """Of the images of a pyramid: these parts of the finest one, but no fewer voxels than show something."""
    return [max(LEAST_VOXELS, voxels / part) for part in parts]


def _mass_centre(picture: Picture) -> np.ndarray:
    weight = picture.array - picture.array.min()
    index = np.array(ndimage.center_of_mass(weight))
    return np.asarray(index * np.array(picture.spacing) + np.array(picture.origin))


def _apply(matrix: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[:, :-1] @ place + matrix[:, -1])


def _matrix(transform: Any, axes: int) -> np.ndarray:
    """A linear transform of SimpleITK in our order of axes, ``[axes, axes + 1]``."""
    origin = np.array(transform.TransformPoint([0.0] * axes))
    columns = [np.array(transform.TransformPoint(unit.tolist())) - origin for unit in np.eye(axes)]
    return np.column_stack([*columns[::-1], origin])[::-1]
