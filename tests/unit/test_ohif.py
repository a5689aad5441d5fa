"""The repairs of OHIF, on the files that MONAI Label ships."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.endpoints import ohif

from lib.ohif import REPAIRS, Viewer
from lib.ohif.__main__ import patch
from lib.ohif.repairs import DIGESTS, EXPORT, INDEX, MODE, PANEL, SEGMENTS
from lib.ohif.viewer import repaired

SHIPPED = Path(ohif.__file__).parent / "static" / "ohif"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that are repaired, and one that is not."""
    (tmp_path / "assets").mkdir()
    for name in (*DIGESTS, "app-config.js", "assets/favicon.ico"):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


def test_every_repair_fits_the_shipped_files_and_none_changes_them() -> None:
    before = {name: (SHIPPED / name).read_bytes() for name in DIGESTS}
    viewer = Viewer(SHIPPED)
    assert viewer.unknown == []
    for repair in REPAIRS:
        served = viewer.content(repair.file)
        assert isinstance(served, bytes)
        assert repair.new in served.decode()
    assert before == {name: (SHIPPED / name).read_bytes() for name in DIGESTS}


def test_repairs_are_small() -> None:
    assert all(len(repair.new) - len(repair.old) < 500 for repair in REPAIRS)


@pytest.mark.parametrize("name", [MODE, PANEL, EXPORT, SEGMENTS, "fewshot.js"])
def test_repaired_files_are_javascript(name: str, tmp_path: Path) -> None:
    from playwright._impl._driver import compute_driver_executable

    node, _ = compute_driver_executable()
    content = Viewer(SHIPPED).content(name)
    assert isinstance(content, bytes)
    (tmp_path / "file.js").write_bytes(content)
    checked = subprocess.run(
        [str(node), "--check", str(tmp_path / "file.js")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_what_repairs_call_exists() -> None:
    script = Viewer(SHIPPED).content("fewshot.js")
    assert isinstance(script, bytes)
    offered = script.decode().split("window.fewshotOhif = {")[1].split("}")[0]
    called = {
        piece.split("(")[0].split(";")[0].split(")")[0].split("\n")[0].strip(",")
        for repair in REPAIRS
        for piece in repair.new.split("window.fewshotOhif.")[1:]
    }
    assert called
    assert called == {name.strip() for name in offered.split(",") if name.strip()}


def test_another_bundle_is_served_as_it_is_with_a_warning(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / PANEL).write_text((copy / PANEL).read_text() + "// another version\n")
    with caplog.at_level(logging.WARNING):
        viewer = Viewer(copy)
    assert viewer.unknown == [PANEL]
    assert PANEL in caplog.text
    assert "Slicer" in caplog.text
    for name in DIGESTS:
        assert viewer.content(name) == copy / name
    assert viewer.content("fewshot.js") == copy / INDEX  # no such file: the page
    assert viewer.content("") == copy / INDEX


def test_a_missing_file_is_no_reason_to_fail(copy: Path) -> None:
    (copy / MODE).unlink()
    assert Viewer(copy).unknown == [MODE]


def test_addresses_of_the_page_and_files_in_folders(copy: Path) -> None:
    viewer = Viewer(copy)
    page = viewer.content("")
    assert isinstance(page, bytes)
    assert b'src="/ohif/fewshot.js"' in page
    assert viewer.content("monai-label") == page
    assert viewer.content("index.html") == page
    assert viewer.content("assets/favicon.ico") == copy / "assets" / "favicon.ico"
    assert viewer.content("app-config.js") == copy / "app-config.js"
    assert viewer.content("../" + copy.name + "/../../etc/passwd") == page


@pytest.mark.parametrize("path", ["\0", "assets/\0.js", "x" * 300, "x/" * 5000])
def test_what_no_file_can_be_called_is_an_address_of_the_page(copy: Path, path: str) -> None:
    viewer = Viewer(copy)
    assert viewer.content(path) == viewer.content("")


def test_a_repair_that_does_not_fit_is_not_made() -> None:
    with pytest.raises(ValueError, match="0 times"):
        repaired("something else", REPAIRS[:1])


def test_the_patch_offered_upstream_is_what_is_served() -> None:
    assert "".join(patch(SHIPPED)) == (REPOSITORY / "docs" / "upstream" / "ohif.patch").read_text()
