"""Small files that are whole at every moment, whatever kills the process that writes them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step; readers see the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=str)
            file.write("\n")
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FewshotError: if it is not JSON or cannot be read; a missing file is a FileNotFoundError.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read ({error}): repair it, or move it away.") from error


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes whenever a file is replaced: inode, time and size; zeros where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
