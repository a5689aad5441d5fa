"""Files are whole: the old content or the new one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewshot.errors import FewshotError
from lib.files import read_json, stamp, write_json


def test_a_failed_write_leaves_the_old_content(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_json(path, {"x": Unprintable()})
    assert read_json(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path):
    path = tmp_path / "a.json"
    code = (
        "import sys\nfrom pathlib import Path\nfrom lib.files import write_json\n"
        "n = 0\nwhile True:\n    n += 1\n    write_json(Path(sys.argv[1]), {'n': n, 'pad': ['x' * 1000] * 200})\n"
    )
    root = Path(__file__).resolve().parents[3]
    for wait in (0.0, 0.013, 0.031):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root)
        while not path.exists():
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        assert len(read_json(path)["pad"]) == 200
        path.unlink()


def test_the_stamp_changes_with_every_replacement(tmp_path: Path):
    path = tmp_path / "a.json"
    stamps = {stamp(path)}
    for _ in range(3):
        write_json(path, {"same": "size"})
        stamps.add(stamp(path))
    assert len(stamps) == 4


def test_what_is_not_json_is_told(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(FewshotError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json")
