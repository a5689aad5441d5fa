"""What the header of a segmentation says: names, who drew it, when, of which image."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from lib.pacs.seg_reading import HEADER_TAGS, SegHeader, Segment, read_header
from tests.unit.pacs.segs import GRIDS, IMAGE, drawn, frames_of, put, seg


def test_the_header_of_a_file_and_of_metadata_is_the_same() -> None:
    dataset = seg(frames_of(drawn()), GRIDS["axial"], ["Größe der Niere ", "", "liver"])
    expected = SegHeader(
        series="1.2.3.5",
        study="1.2.3",
        image_series=IMAGE,
        description="mine",
        created="20250102030405.000000",
        segments=(
            Segment(1, "Größe der Niere", "MANUAL"),
            Segment(2, "Segment 2", "MANUAL"),
            Segment(3, "liver", "MANUAL"),
        ),
    )
    assert read_header(dataset) == expected
    del dataset.PixelData
    assert read_header(Dataset.from_json(dataset.to_json())) == expected
    entry = {tag: value for tag, value in dataset.to_json_dict().items() if tag in HEADER_TAGS}
    assert read_header(Dataset.from_json(entry)) == expected


@pytest.mark.parametrize("blank", ["\t", " \r\n", "\u00a0", "\0"])
def test_a_name_of_blanks_is_none(blank: str) -> None:
    dataset = seg([], GRIDS["axial"], ["liver", "x"])
    dataset.SegmentSequence[1].SegmentLabel = blank
    assert [segment.name for segment in read_header(dataset).segments] == ["liver", "Segment 2"]


@pytest.mark.parametrize(
    ("algorithms", "by_model"),
    [
        (["AUTOMATIC", "AUTOMATIC"], True),
        (["AUTOMATIC", "MANUAL"], False),
        (["SEMIAUTOMATIC", "AUTOMATIC"], False),
        (["", "AUTOMATIC"], False),
    ],
)
def test_a_model_drew_it_only_where_it_drew_every_segment(algorithms: list[str], by_model: bool) -> None:
    dataset = seg([], GRIDS["axial"], ["a", "b"])
    for item, algorithm in zip(dataset.SegmentSequence, algorithms, strict=True):
        item.SegmentAlgorithmType = algorithm
    assert read_header(dataset).by_model is by_model


@pytest.mark.parametrize(
    ("tags", "created"),
    [
        ({"ContentTime": "235959.25"}, "20250102235959.250000"),
        ({"ContentTime": "0930"}, "20250102093000.000000"),
        ({"ContentTime": ""}, "20250102000000.000000"),
        ({"ContentTime": "010000", "TimezoneOffsetFromUTC": "+0200"}, "20250101230000.000000"),
        ({"ContentDate": "", "SeriesDate": "20240101", "SeriesTime": "01"}, "20240101010000.000000"),
        ({"ContentDate": "", "InstanceCreationDate": "20230101"}, "20230101000000.000000"),
        ({"ContentDate": ""}, ""),
        ({"ContentDate": "00010101", "ContentTime": "01", "TimezoneOffsetFromUTC": "+0200"}, ""),
        ({"ContentDate": "00010101"}, "00010101030405.000000"),
        (
            {"ContentDate": "99991231", "TimezoneOffsetFromUTC": "-2300", "SeriesDate": "20240101"},
            "20240101230000.000000",
        ),
    ],
)
def test_the_time_it_was_made(tags: dict[str, str], created: str) -> None:
    assert read_header(seg([], GRIDS["axial"], change=put(**tags))).created == created
