"""Bring a template onto a query volume in seconds: an affine map, then smooth demons, at a coarse resolution.

Both are SimpleITK's: mutual information (Mattes et al. 2003) for the affine map, which needs no equal contrast, and
symmetric demons (Vercauteren et al. 2009) on histogram-matched images for the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk  # noqa: N813 - what everybody calls it
from scipy.ndimage import maximum_filter, minimum_filter

from fewshot.atlas.images import axes, reduced, with_size, with_voxels
from fewshot.atlas.pose import turned

FIRST_VOXELS = 8_000
"""Resolution at which several beginnings of the affine map are tried."""
LEAST_STRETCH = 0.75
"""People of one kind differ by less than a quarter; an affine map that shrinks more fills a field of view."""
SLICES_TO_TELL = 20
SHIFTS = (0.0, -0.2, 0.2)
"""Of the extent: where a rigid map begins instead."""
POSES = 16
"""Rotations from which registration begins where a query may be turned in any way."""
UPRIGHT = 0.03
"""So much correlation a turned map must have more than an upright one: chance, where a body is nearly round."""
FINER = 0.7
"""The region of the labels is registered anew if its reduced voxels are smaller than this share of the whole's."""

BINS = 32
SAMPLING = 0.15
SEED = 1
AFFINE_STEPS = 60
PYRAMID = ((4, 40), (2, 30), (1, 20))
"""Demons: how much coarser than the working images, and how many iterations."""
SMOOTHING = 1.5
"""Of the displacement field, in voxels of each level."""


@dataclass(frozen=True, eq=False)
class Registered:
    """How a template lies in a query volume.

    Attributes:
        places: float32 ``[x, y, z, 3]`` on a grid over a box of the query: where in the template, as a share of its
            extent along each axis, 0 to 1 inside.
        low, high: int ``[3]``, the box in voxels of the query; no label lies outside.
        similarity: correlation of the query with the moved template, -1 to 1.
    """

    places: np.ndarray
    low: np.ndarray
    high: np.ndarray
    similarity: float

    @cached_property
    def steps(self) -> np.ndarray:
        """How far the neighbours of each point lie in the template at most: like ``places``."""
        around = (3, 3, 3, 1)
        most = maximum_filter(self.places, around, mode="nearest")
        least = minimum_filter(self.places, around, mode="nearest")
        return np.asarray(np.maximum(most - self.places, self.places - least))


@dataclass(frozen=True, eq=False)
class Target:
    """A template as registration sees it, both images reduced.

    Attributes:
        whole: the template.
        focus: the region of its labels.
    """

    whole: sitk.Image
    focus: sitk.Image


def register(query: sitk.Image, template: Target, *, any_pose: bool = False) -> Registered | None:
    """Register a template with a query: the whole first, then the region of the labels at a finer resolution.

    Args:
        query: the whole volume, from `to_image`.
        template: both images `reduced`.
        any_pose: the query may be turned in any way, as specimens are.

    Returns:
        None where nothing in common was found. The same images give the same result.
    """
    small = reduced(query)
    if query.GetDimension() != template.whole.GetDimension() or _flat(small) or _flat(template.whole):
        return None
    with _one_thread():
        try:
            affine = _affine(small, template.whole, any_pose=any_pose)
            transform = sitk.CompositeTransform([affine, _demons(small, template.whole, affine)])
            similarity = _correlation(small, sitk.Resample(template.whole, small, transform))
            places = _places(transform, small, template.whole)
            low, high = _region(places, query, template)
            part = sitk.RegionOfInterest(
                query, (high - low)[: query.GetDimension()].tolist(), low[: query.GetDimension()].tolist()
            )
            fine = reduced(part)
            if np.prod(fine.GetSpacing()) < FINER * np.prod(small.GetSpacing()):
                transform.AddTransform(_demons(fine, sitk.Resample(template.focus, fine, transform), None))
                places = _places(transform, fine, template.whole)
            else:
                low, high = np.zeros(3, int), np.array([*query.GetSize(), 1][:3])
        except RuntimeError:  # ITK: images too small, or far apart
            return None
    return Registered(places, low, high, similarity)


def _region(places: np.ndarray, query: sitk.Image, template: Target) -> tuple[np.ndarray, np.ndarray]:
    """Box of the query, in voxels, that comes to lie on the template's focus; the whole where nothing does."""
    dimension = query.GetDimension()
    sides = np.array([*query.GetSize(), 1][:3])
    size = np.array(template.focus.GetSize())
    corners = np.array(np.meshgrid(*[(-0.5, side - 0.5) for side in size])).reshape(dimension, -1).T
    points = corners @ axes(template.focus).T + np.array(template.focus.GetOrigin())
    index = (points - np.array(template.whole.GetOrigin())) @ np.linalg.inv(axes(template.whole)).T
    shares = (index + 0.5) / np.array(template.whole.GetSize())
    first, last = np.zeros(3), np.ones(3)
    first[:dimension], last[:dimension] = shares.min(0), shares.max(0)
    inside = np.argwhere(((places >= first) & (places <= last)).all(-1))
    if not len(inside):
        return np.zeros(3, int), sides
    ratio = sides / np.array(places.shape[:3])
    low = np.floor(inside.min(0) * ratio).astype(int)
    high = np.minimum(np.ceil((inside.max(0) + 1) * ratio).astype(int), sides)
    thin = high - low < 2  # one voxel could not be told from a volume without depth
    return np.where(thin, np.maximum(low - 1, 0), low), np.where(thin, np.minimum(high + 1, sides), high)


def _places(transform: sitk.Transform, query: sitk.Image, template: sitk.Image) -> np.ndarray:
    """A transform as shares of the template's extent on the query's grid."""
    steps = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        query.GetSize(),
        query.GetOrigin(),
        query.GetSpacing(),
        query.GetDirection(),
    )
    shift = sitk.GetArrayFromImage(steps).transpose(*range(query.GetDimension())[::-1], query.GetDimension())
    index = np.stack(np.meshgrid(*map(np.arange, query.GetSize()), indexing="ij"), axis=-1)
    points = index @ axes(query).T + np.array(query.GetOrigin()) + shift
    places = (points - np.array(template.GetOrigin())) @ np.linalg.inv(axes(template)).T
    shares = (places + 0.5) / np.array(template.GetSize())
    if shares.ndim == 3:  # a picture: one slice, in its middle
        shares = np.concatenate([shares, np.full((*shares.shape[:2], 1), 0.5)], axis=-1)[:, :, None]
    return shares.astype(np.float32)


def _affine(query: sitk.Image, template: sitk.Image, *, any_pose: bool) -> sitk.Transform:
    """The affine map; of a query that may be turned, the one whose images correlate best."""
    if not any_pose:
        return _upright(query, template)
    small = _small(query, template)
    method = _method(iterations=AFFINE_STEPS // 2, smoothing=(1.0, 0.0))
    tried: list[tuple[float, sitk.Transform]] = []
    for start in turned(small[0], small[1], POSES):
        with suppress(RuntimeError):  # the images do not overlap from there
            method.SetInitialTransform(start, inPlace=False)
            found = sitk.CompositeTransform(method.Execute(*small)).GetBackTransform()
            tried.append((_correlation(small[0], sitk.Resample(small[1], small[0], found)), found))
    found = _refined(query, template, max(tried, key=lambda of: of[0])[1]) if tried else None
    with suppress(RuntimeError):
        upright = _upright(query, template)
        if found is None or _overlap(query, template, upright) > _overlap(query, template, found) - UPRIGHT:
            return upright
    if found is None:
        raise RuntimeError("no overlap")
    return found


def _upright(query: sitk.Image, template: sitk.Image) -> sitk.Transform:
    """The affine map, from the best of several beginnings; a rigid one where it distorts more than patients differ."""
    small = _small(query, template)
    affine = _refined(query, template, _best(small, _beginnings(*small)))
    if not _distorts(affine, query, template):
        return affine
    return _best(small, _rigid_beginnings(*small))


def _refined(query: sitk.Image, template: sitk.Image, first: sitk.Transform) -> sitk.Transform:
    method = _method(iterations=AFFINE_STEPS, smoothing=(1.0, 0.0))
    method.SetInitialTransform(sitk.AffineTransform(first), inPlace=False)
    return method.Execute(query, template)


def _small(*images: sitk.Image) -> list[sitk.Image]:
    return [with_voxels(of, FIRST_VOXELS if of.GetDimension() == 3 else FIRST_VOXELS // 4) for of in images]


def _overlap(query: sitk.Image, template: sitk.Image, transform: sitk.Transform) -> float:
    return _correlation(query, sitk.Resample(template, query, transform))


def _best(images: Sequence[sitk.Image], beginnings: Iterator[sitk.Transform]) -> sitk.Transform:
    """The transform of most mutual information that optimising from several beginnings finds."""
    method = _method(iterations=AFFINE_STEPS // 2, smoothing=(1.0, 0.0))
    best: tuple[float, sitk.Transform] | None = None
    for start in beginnings:
        method.SetInitialTransform(start, inPlace=False)
        try:
            found = method.Execute(*images)
        except RuntimeError:  # the images do not overlap from there
            continue
        if best is None or method.GetMetricValue() < best[0]:
            best = method.GetMetricValue(), found
    if best is None:
        raise RuntimeError("no overlap")
    return sitk.CompositeTransform(best[1]).GetBackTransform()


def _beginnings(query: sitk.Image, template: sitk.Image) -> Iterator[sitk.Transform]:
    """Centres of the images on each other, and centres of brightness."""
    kind = sitk.CenteredTransformInitializerFilter
    for way in (kind.GEOMETRY, kind.MOMENTS):
        yield sitk.CenteredTransformInitializer(
            query, template, sitk.AffineTransform(query.GetDimension()), way
        )


def _rigid_beginnings(query: sitk.Image, template: sitk.Image) -> Iterator[sitk.Transform]:
    """The same, and moved along the last axis: one image shows more of the body at one end."""
    along = axes(template)[:, -1] * template.GetSize()[-1]
    for start in _beginnings(query, template):
        of = sitk.AffineTransform(start)
        for share in SHIFTS:
            rigid = sitk.Euler3DTransform() if query.GetDimension() == 3 else sitk.Euler2DTransform()
            rigid.SetCenter(of.GetCenter())
            rigid.SetTranslation((np.array(of.GetTranslation()) + share * along).tolist())
            yield rigid


def _distorts(affine: sitk.Transform, query: sitk.Image, template: sitk.Image) -> bool:
    """Whether a map stretches an image to fill the field of view of another; with few slices nobody can tell."""
    if min(*query.GetSize(), *template.GetSize()) < SLICES_TO_TELL:
        return False
    matrix = sitk.AffineTransform(sitk.CompositeTransform(affine).GetBackTransform()).GetMatrix()
    dimension = query.GetDimension()
    stretch = np.linalg.svd(np.array(matrix).reshape(dimension, dimension), compute_uv=False)
    return bool(stretch.min() < LEAST_STRETCH or stretch.max() > 1 / LEAST_STRETCH)


def _method(*, iterations: int, smoothing: Sequence[float]) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLING, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=iterations, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([1] * len(smoothing))
    method.SetSmoothingSigmasPerLevel(list(smoothing))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _demons(query: sitk.Image, template: sitk.Image, affine: sitk.Transform | None) -> sitk.Transform:
    """What an affine map (or an image that was moved already) leaves, as a smooth displacement field."""
    moved = sitk.Resample(template, query, affine, sitk.sitkLinear, 0.0) if affine else template
    moved = sitk.HistogramMatching(moved, query, 128, 9, False)
    field = None
    for shrink, iterations in PYRAMID:
        size = [max(min(side, 4), side // shrink) for side in query.GetSize()]
        fixed, moving = with_size(query, size), with_size(moved, size)
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(SMOOTHING)
        demons.SetSmoothUpdateField(True)
        demons.SetUpdateFieldStandardDeviations(1.0)
        if field is None:
            field = demons.Execute(fixed, moving)
        else:
            field = demons.Execute(fixed, moving, sitk.Resample(field, fixed))
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _flat(image: sitk.Image) -> bool:
    array = sitk.GetArrayViewFromImage(image)
    return float(array.max() - array.min()) < 1e-6 or sum(side > 3 for side in image.GetSize()) < 2


def _correlation(one: sitk.Image, other: sitk.Image) -> float:
    first, second = (sitk.GetArrayViewFromImage(image).ravel() for image in (one, other))
    return 0.0 if first.std() * second.std() == 0 else float(np.corrcoef(first, second)[0, 1])


_single = threading.Lock()
_users: list[int] = []
"""Threads that SimpleITK had before, once for everybody who now wants one."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads end in random order, and an optimiser makes that visible; templates run in parallel."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads
    with _single:
        _users.append(_users[-1] if _users else threads())
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        with _single:
            before = _users.pop()
            if not _users:
                sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
