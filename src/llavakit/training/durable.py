"""Files and folders that appear whole or not at all, whatever moment the machine stops.

What lives here: write beside, flush to the disk, rename, flush the folder. It knows paths and bytes, and nothing of
what is in them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""Names that begin with this are unfinished and may be deleted by whoever finds them."""


def write_text(path: Path, content: str) -> None:
    """Replaces the file at `path` by `content`: a reader sees the old file or the new one."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    flush_folder(path.parent)


def write_json(path: Path, content: object) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; when the block ends well, it becomes `path`, all of it on the disk.

    A folder that stands at `path` already is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    yield partial
    for folder, _, names in os.walk(partial):
        for name in names:
            flush_file(Path(folder) / name)
        flush_folder(Path(folder))
    if path.exists():
        remove_folder(path)
    partial.rename(path)
    flush_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder in such a way that it is never found half deleted under its own name."""
    leaving = path.with_name(f"{PARTIAL}gone-{path.name}")
    if leaving.exists():
        shutil.rmtree(leaving)
    path.rename(leaving)
    shutil.rmtree(leaving)


def remove_partial(folder: Path) -> None:
    """Deletes what an earlier process left unfinished in `folder`."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush_file(path: Path) -> None:
    """Waits until the file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    flush_file(path)
