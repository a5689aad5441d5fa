"""Points carried by registration: the inverse of the map, the median of templates, and what lies outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.landmarks.registered import RegisteredTemplates
from fewshot.volumes import Volume


def phantom(shift=(0.0, 0.0, 0.0), shape=(48, 44, 30), name="a") -> Volume:
    """Smooth structure that moves with `shift` (voxels); the same every time."""
    rng = np.random.default_rng(1)
    texture = gaussian_filter(rng.standard_normal(shape), 2) * 900
    x, y, z = np.indices(shape)
    body = ((x - 24) / 17) ** 2 + ((y - 22) / 14) ** 2 + ((z - 15) / 11) ** 2 < 1
    image = np.where(body, 400 + texture, 0)
    image = np.roll(image, np.array(shift, int), axis=(0, 1, 2))
    return Volume(
        array=image.astype(np.float32), affine=np.diag([2.0, 2.0, 3.0, 1.0]), modality="MR", name=name
    )


def marks(*, shift=(0, 0, 0)) -> dict[str, Mark]:
    step = np.array([2.0, 2.0, 3.0])
    voxels = {"tip": (24, 30, 15), "root": (14, 20, 12)}
    return {name: Mark(tuple((step * np.add(voxel, shift)).tolist())) for name, voxel in voxels.items()}


@pytest.fixture(scope="module")
def fitted() -> RegisteredTemplates:
    return RegisteredTemplates.of([LandmarkTemplate(phantom(), marks())])


def test_points_follow_the_body(fitted):
    found = fitted.find(phantom((3, -2, 2), name="b")).points
    wanted = marks(shift=(3, -2, 2))
    for name, mark in wanted.items():
        assert np.linalg.norm(np.subtract(found[name], mark.point)) < 3, name


def test_a_volume_stored_the_other_way_round_gives_the_same_place(fitted):
    volume = phantom((3, -2, 2))
    affine = volume.affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] += volume.affine[:3, 0] * (volume.shape[0] - 1)
    flipped = replace(volume, array=volume.array[::-1].copy(), affine=affine)
    one, other = fitted.find(volume).points, fitted.find(flipped).points
    np.testing.assert_allclose(one["tip"], other["tip"], atol=1.0)


def test_what_lies_outside_is_not_found(fitted):
    volume = phantom()
    part = replace(volume, array=volume.array[20:].copy(), affine=volume.affine.copy())
    part.affine[0, 3] += 40
    found = fitted.find(part)
    assert found.landmarks["tip"].found
    assert not found.landmarks["root"].found
    assert "outside" in found.landmarks["root"].reason


def test_an_empty_image_has_nothing(fitted):
    found = fitted.find(replace(phantom(), array=np.zeros((20, 20, 20), np.float32)))
    assert found.points == {}
    assert "could be registered" in found.landmarks["tip"].reason


def test_one_wrong_template_of_three_is_outvoted():
    wrong = {name: Mark((mark.point[0] + 20, *mark.point[1:])) for name, mark in marks().items()}
    templates = [
        LandmarkTemplate(phantom(name=name), of)
        for name, of in (("a", marks()), ("b", wrong), ("c", marks()))
    ]
    found = RegisteredTemplates.of(templates).find(phantom(name="d"))
    assert np.linalg.norm(np.subtract(found.points["tip"], marks()["tip"].point)) < 2
    assert found.provenance["templates"] == ["a", "b", "c"]


def test_a_landmark_of_one_template_alone_is_carried_by_it():
    templates = [
        LandmarkTemplate(phantom(name="a"), {"tip": marks()["tip"]}),
        LandmarkTemplate(phantom(name="b"), {"root": marks()["root"]}, frozenset({"tip"})),
    ]
    found = RegisteredTemplates.of(templates).find(phantom(name="c")).points
    for name, mark in marks().items():
        assert np.linalg.norm(np.subtract(found[name], mark.point)) < 2, name


def test_without_templates_it_says_so():
    with pytest.raises(FewshotError, match="no template"):
        RegisteredTemplates.of([])
