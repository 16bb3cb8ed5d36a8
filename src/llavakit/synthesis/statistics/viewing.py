"""Samples as the page shows them: their words, their boxes, and where their picture is.

A picture is linked relative to the page, or a small copy of it is put into the page. One that is not there, or cannot
be decoded, is told as missing and counted; its boxes are drawn on an empty plate. Opens pictures only to make small
copies.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageOps

from llavakit.synthesis.statistics.rows import Row

SIDE = 384


@dataclass(frozen=True, slots=True)
class Album:
    """Where pictures are: below `root`; the page stands in `page`. embed: put small copies into the page."""

    root: Path
    page: Path
    embed: bool = False

    def address(self, name: str) -> str:
        """What an `<img>` of the page names; "" when the picture cannot be had."""
        if not name:
            return ""
        path = self.root / name
        if not path.is_file():
            return ""
        if self.embed:
            return _small(path)
        return quote(Path(os.path.relpath(path.resolve(), self.page.resolve())).as_posix())


def _small(path: Path) -> str:
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):  # shown as missing, and counted
        return ""
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def view(rows: Iterable[Row], album: Album) -> tuple[list[dict[str, Any]], int]:
    """The rows as plain values for the page's script, and how many of their pictures are missing."""
    addresses: dict[str, str] = {}
    shown, missing = [], 0
    for row in rows:
        if row.image not in addresses:
            addresses[row.image] = album.address(row.image)
        missing += bool(row.image) and not addresses[row.image]
        shown.append(
            {
                "id": row.id,
                "image": row.image,
                "src": addresses[row.image],
                "kind": row.kind,
                "kept": row.kept,
                "said": [list(pair) for pair in row.exchanges],
                "reply": row.reply if not row.exchanges else "",
                "reasons": list(row.reasons),
                "notes": list(row.notes),
                "evidence": dict(row.evidence),
                "boxes": [[box[0], *(round(value, 4) for value in box[1:])] for box in row.boxes],
                "from": _origin(row),
            }
        )
    return shown, missing


def _origin(row: Row) -> str:
    teacher, source = row.provenance.get("teacher"), row.provenance.get("source")
    told = []
    if isinstance(teacher, dict) and (teacher.get("returned") or teacher.get("asked")):
        told.append(f"teacher {teacher.get('returned') or teacher.get('asked')}")
    if row.provenance.get("prompt"):
        told.append(f"prompt {row.provenance['prompt']}")
    if isinstance(source, dict):
        told += [str(source[name]) for name in ("dataset", "licence") if source.get(name)]
    return " · ".join(told)
