"""Prints the repairs as a patch of MONAI Label's files: `python -m lib.ohif > docs/upstream/ohif.patch`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from lib.ohif.repairs import DIGESTS, REPAIRS
from lib.ohif.viewer import STATIC, repaired

FOLDER = "monailabel/endpoints/static/ohif"


def patch(shipped: Path) -> Iterator[str]:
    """A unified diff, for `patch -p1` or `git apply` where the files are.

    Args:
        shipped: MONAI Label's folder of the viewer.
    """
    for name in DIGESTS:
        repairs = [repair for repair in REPAIRS if repair.file == name]
        yield from (f"# {repair.complaint}\n" for repair in repairs)
        before = (shipped / name).read_text(encoding="utf-8")
        yield from _difference(before, repaired(before, repairs), name)
    for path in sorted(STATIC.iterdir()):
        yield from _difference("", path.read_text(encoding="utf-8"), path.name)


def _difference(before: str, after: str, name: str) -> Iterator[str]:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    origin = f"a/{FOLDER}/{name}" if before else "/dev/null"
    for line in difflib.unified_diff(*lines, origin, f"b/{FOLDER}/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


if __name__ == "__main__":
    from monailabel.endpoints import ohif

    sys.stdout.writelines(patch(Path(ohif.__file__).parent / "static" / "ohif"))
