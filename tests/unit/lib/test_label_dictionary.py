"""Values are 1..N and never change their meaning."""

import json
import logging
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.errors import FewshotError
from lib.labels import LabelDictionary

NAMES = st.lists(
    st.sampled_from(["liver", "spleen", "aorta", "left kidney", "Leber", " spleen "]), max_size=5
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), NAMES), max_size=6))
def test_values_stay_and_have_no_gaps(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("w") / "labels.json"
    known: dict[str, int] = {}
    for fix, names in steps:
        dictionary = LabelDictionary(path)
        labels = dictionary.fix(names) if fix else dictionary.add(names)
        assert list(labels.values()) == list(range(1, len(labels) + 1))
        assert known.items() <= labels.items()
        assert {name.strip() for name in names} <= set(labels)
        known = labels
    assert LabelDictionary(path).read() == known


def test_order_of_first_appearance(dictionary):
    dictionary.fix(["b", "a"])
    assert dictionary.add(["c", "a"]) == {"b": 1, "a": 2, "c": 3}


def edit(dictionary, labels):
    content = json.loads(dictionary.path.read_text())
    content["labels"] = labels
    dictionary.path.write_text(json.dumps(content))


def test_a_renamed_label_keeps_its_value_and_its_templates(dictionary):
    dictionary.add(["liver", "spleen"])
    edit(dictionary, {"Leber": 1, "spleen": 2})
    assert dictionary.read() == {"Leber": 1, "spleen": 2}
    assert dictionary.current("liver") == ("Leber", 1)
    assert dictionary.add(["liver", "aorta"]) == {"Leber": 1, "spleen": 2, "aorta": 3}
    edit(dictionary, {"hepar": 1, "spleen": 2, "aorta": 3})
    again = LabelDictionary(dictionary.path)
    again.add([])
    assert [again.current(name) for name in ("liver", "Leber", "hepar")] == [("hepar", 1)] * 3


def test_names_that_change_places_are_taken_as_they_are_written(dictionary):
    dictionary.add(["liver", "spleen"])
    edit(dictionary, {"spleen": 1, "liver": 2})
    assert dictionary.read() == {"spleen": 1, "liver": 2}
    assert dictionary.current("liver") == ("liver", 2)


@pytest.mark.parametrize("left", [{"liver": 1, "aorta": 3}, {"liver": 1, "spleen": 2}, {}])
def test_a_name_taken_out_of_the_file_comes_back(dictionary, left, caplog):
    dictionary.add(["liver", "spleen", "aorta"])
    edit(dictionary, left)
    with caplog.at_level(logging.WARNING):
        assert dictionary.read() == {"liver": 1, "spleen": 2, "aorta": 3}
    assert "has no name any more" in caplog.text


def test_a_name_taken_out_of_conf_keeps_its_value_with_a_warning(dictionary, caplog):
    dictionary.fix(["liver", "spleen"])
    with caplog.at_level(logging.WARNING):
        assert dictionary.fix(["spleen", "aorta"]) == {"liver": 1, "spleen": 2, "aorta": 3}
    assert "Label liver is not in --conf labels any more: its value 1 stays reserved." in caplog.text


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"liver": 2}, "without gaps"),
        ({"liver": 1, "spleen": 1}, "share the value 1"),
        ({"liver": "1"}, "values 1 to N"),
        ({"": 1}, "readable"),
        ([], "values 1 to N"),
    ],
)
def test_a_file_that_is_no_dictionary_is_refused(dictionary, labels, sentence):
    dictionary.path.parent.mkdir()
    dictionary.path.write_text(json.dumps({"labels": labels}))
    with pytest.raises(FewshotError, match=sentence):
        dictionary.read()


def test_a_damaged_file_is_named(dictionary):
    dictionary.path.parent.mkdir()
    dictionary.path.write_text('{"labels"')
    with pytest.raises(FewshotError, match=r"labels\.json cannot be read"):
        dictionary.add(["liver"])


@pytest.mark.parametrize("name", ["", "  ", "background", "foreground_scribbles", None, 3])
def test_what_cannot_be_a_name_is_refused(dictionary, name):
    with pytest.raises(FewshotError):
        dictionary.add(["liver", name])
    assert dictionary.read() == {}


def test_no_more_than_fit_into_8_bits(dictionary):
    dictionary.add([f"label {number}" for number in range(255)])
    with pytest.raises(FewshotError, match="256 labels"):
        dictionary.add(["one more"])
    assert len(dictionary.read()) == 255
    assert len(LabelDictionary(dictionary.path).read()) == 255


def test_many_writers_lose_nothing(dictionary):
    def add(number: int) -> None:
        LabelDictionary(dictionary.path).add([f"label {number}", "shared"])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = dictionary.read()
    assert set(labels) == {"shared", *(f"label {number}" for number in range(12))}
    assert sorted(labels.values()) == list(range(1, 14))
