"""A prior is a distribution over classes at every pixel, whatever boxes its labels were kept in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.atlas import Prior
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.volumes.test_stack import volumes


@st.composite
def boxes(draw, shape):
    edges = [sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2))) for side in shape]
    return tuple(
        slice(a, max(b, a + 1) if a < side else b) for (a, b), side in zip(edges, shape, strict=True)
    )


@settings(max_examples=60)
@given(st.data(), volumes(), st.sampled_from(("axial", "coronal", "sagittal")))
def test_it_equals_the_dense_computation(data, volume, plane):
    stack = SliceStack(volume, SliceSpec(plane=plane, size=16), patch=4)
    generator = np.random.default_rng(0)
    maps, whole = [], np.zeros((*volume.shape, 5), np.float32)
    for label in (1, 2, 3):
        box = data.draw(st.none() | boxes(volume.shape))
        if box is None:
            maps.append(None)
            continue
        values = generator.uniform(0, 1, [of.stop - of.start for of in box]).astype(np.float16)
        maps.append((box, values))
        whole[(*box, label)] = values
    whole /= np.maximum(1, whole.sum(-1, keepdims=True))
    whole[..., 0] = 1 - whole.sum(-1)
    unknown = data.draw(st.booleans())
    if unknown:
        whole[..., 0] /= 2
        whole[..., 4] = whole[..., 0]
    prior = Prior(stack, [*maps, None], unknown=[4] if unknown else [])
    for index in range(len(stack)):
        of_slice = prior.of_slice(index)
        assert of_slice.dtype == np.float32
        assert of_slice.min() >= 0
        np.testing.assert_allclose(of_slice.sum(-1), 1, atol=1e-6)
        expected = np.stack([stack.slices(whole[..., k])[index] for k in range(5)], axis=-1)
        np.testing.assert_allclose(of_slice, expected, atol=1e-6)


def test_labels_of_unknown_place_leave_the_choice_to_appearance():
    """Where no label is known to lie, they weigh as much as background; inside another label they cannot lie."""
    from tests.unit.atlas.bodies import stack_of, study

    volume, *_ = study(shape=(8, 8, 4))
    inner = np.ones((2, 2, 4), np.float16)
    prior = Prior(
        stack_of(volume), [((slice(0, 2), slice(0, 2), slice(0, 4)), inner), None, None], unknown=[2, 3]
    )
    of_slice = prior.of_slice(1)
    away, inside = of_slice[of_slice[..., 1] == 0], of_slice[of_slice[..., 1] > 0]
    np.testing.assert_allclose(away, np.tile([1 / 3, 0, 1 / 3, 1 / 3], (60, 1)), rtol=1e-6)
    np.testing.assert_allclose(inside, np.tile([0, 1, 0, 0], (4, 1)), atol=1e-6)
