"""How large labels are."""

import numpy as np
import pytest

from fewshot.volumes.sizes import label_radii


def test_a_ball_has_its_radius():
    spacing = np.array([0.8, 1.0, 2.5])
    index = np.indices((60, 50, 20)).transpose(1, 2, 3, 0) - [30, 25, 10]
    ball = ((index * spacing) ** 2).sum(-1) < 15**2
    assert label_radii(np.array([ball.sum()]), spacing)[0] == pytest.approx(15, rel=0.02)


def test_a_disc_has_its_radius():
    rows, cols = np.indices((80, 90))
    disc = ((rows - 40) * 0.5) ** 2 + (cols - 45) ** 2 < 12**2
    assert label_radii(np.array([disc.sum()]), (0.5, 1.0))[0] == pytest.approx(12, rel=0.02)


def test_a_label_without_voxels_has_no_radius():
    radii = label_radii(np.array([8, 0, 1]), (1.0, 1.0, 1.0))
    assert np.isnan(radii).tolist() == [False, True, False]
    assert radii[0] == pytest.approx(2 * radii[2])
    assert label_radii(np.zeros(0, int), (1.0, 1.0, 1.0)).shape == (0,)
