"""Who has a pixel that several masks want."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.refine.merging import Taken, merge

WIDTH = 12


def line(*cells: int) -> np.ndarray:
    mask = np.zeros((1, WIDTH), bool)
    mask[0, list(cells)] = True
    return mask


def span(first: int, last: int) -> np.ndarray:
    return line(*range(first, last + 1))


def taken(label: int, localised: np.ndarray, mask: np.ndarray, logit: float = 5.0) -> Taken:
    return Taken(label, localised, mask, np.where(mask, logit, -logit).astype(np.float32))


def localised(**spans: np.ndarray) -> np.ndarray:
    """Classes by keywords such as ``one=span(2, 3)``."""
    classes = np.zeros((1, WIDTH), np.uint16)
    for name, mask in spans.items():
        classes[mask] = {"one": 1, "two": 2, "three": 3}[name]
    return classes


def merged(
    classes: np.ndarray, masks: list[Taken], probabilities: dict[int, np.ndarray] | None = None
) -> str:
    """The class of every pixel as text; probabilities 0 and 1 if unknown, as `Region.probability` gives them."""

    def probability(label: int) -> np.ndarray:
        if probabilities is None:
            return (classes == label).astype(np.float32)
        return probabilities[label]

    before = classes.copy()
    result = merge(classes, masks, probability)
    assert result.dtype == classes.dtype
    np.testing.assert_array_equal(classes, before)
    return "".join(map(str, result[0]))


def level(value: float) -> np.ndarray:
    return np.full((1, WIDTH), value, np.float32)


def test_a_mask_takes_the_place_of_its_component():
    core = span(3, 5)
    assert merged(localised(one=core), [taken(1, core, span(4, 8))]) == "000011111000"


def test_without_masks_all_stays():
    assert merged(localised(one=span(0, 2), two=span(5, 6)), []) == "111002200000"


def test_components_without_a_mask_stay():
    classes = localised(one=line(1, 2, 8, 9))
    assert merged(classes, [taken(1, line(1, 2), span(1, 4))]) == "011110001100"


def test_several_components_of_a_label_join():
    classes = localised(one=line(2, 8))
    assert merged(classes, [taken(1, line(2), span(1, 5)), taken(1, line(8), span(4, 9))]) == "011111111100"


def test_what_one_component_leaves_out_another_ones_mask_may_have():
    classes = localised(one=line(2, 6))
    assert merged(classes, [taken(1, line(2), span(2, 6)), taken(1, line(6), span(7, 8))]) == "001111111000"


def test_overlap_goes_to_the_label_with_the_higher_probability_whatever_the_logit():
    classes = localised(one=span(1, 2), two=span(9, 10))
    masks = [taken(1, span(1, 2), span(1, 6), 9.0), taken(2, span(9, 10), span(5, 10), 1.0)]
    assert merged(classes, masks, {1: level(0.2), 2: level(0.3)}) == "011112222220"
    assert merged(classes, masks, {1: level(0.3), 2: level(0.2)}) == "011111122220"


@pytest.mark.parametrize("probabilities", [None, {1: level(0.25), 2: level(0.25)}])
def test_overlap_without_a_difference_in_probability_goes_to_the_higher_logit(probabilities):
    classes = localised(one=span(1, 2), two=span(9, 10))
    low, high = 1.0, 2.0
    for first, second, expected in ((low, high, "011112222220"), (high, low, "011111122220")):
        masks = [taken(1, span(1, 2), span(1, 6), first), taken(2, span(9, 10), span(5, 10), second)]
        assert merged(classes, masks, probabilities) == expected
        assert merged(classes, masks[::-1], probabilities) == expected


def test_a_mask_does_not_override_what_was_localised_as_another_label():
    classes = localised(one=span(1, 3), two=span(6, 8))
    masks = [taken(1, span(1, 3), span(1, 9), 9.0)]
    assert merged(classes, masks) == "011111222100"
    masks.append(taken(2, span(6, 8), span(6, 9), 1.0))
    assert merged(classes, masks, {1: level(0.3), 2: np.where(span(6, 8), 0.6, 0.1)}) == "011111222100"


def test_a_mask_may_have_what_another_label_holds_with_lower_probability():
    classes = localised(one=span(1, 3), two=span(6, 8))  # completion may localise where the adapter doubts
    masks = [taken(1, span(1, 3), span(1, 7))]
    assert merged(classes, masks, {1: level(0.4), 2: level(0.3)}) == "011111112000"


def test_what_stays_is_not_overridden_without_a_difference_in_probability():
    classes = localised(one=span(1, 3), two=span(6, 8))
    masks = [taken(1, span(1, 3), span(1, 7), 50.0)]
    assert merged(classes, masks, {1: level(0.4), 2: level(0.4)}) == "011111222000"


def test_what_a_labels_own_mask_gave_up_is_background_or_another_labels():
    classes = localised(one=span(1, 4), two=span(5, 8))
    masks = [taken(2, span(5, 8), span(7, 9))]
    assert merged(classes, masks) == "011110022200"
    masks.append(taken(1, span(1, 4), span(1, 5)))
    assert merged(classes, masks) == "011111022200"


def test_three_labels():
    classes = localised(one=line(1), two=line(5), three=line(9))
    masks = [taken(label, line(cell), span(0, 11)) for label, cell in ((1, 1), (2, 5), (3, 9))]
    cells = np.arange(WIDTH)[None]
    near = {
        label: np.exp(-np.abs(cells - cell)).astype(np.float32) for label, cell in ((1, 1), (2, 5), (3, 9))
    }
    result = merged(classes, masks, near)
    assert result[:3] + result[4:7] + result[8:] == "111" + "222" + "3333"


def test_an_empty_slice():
    assert merged(localised(), []) == "0" * WIDTH
