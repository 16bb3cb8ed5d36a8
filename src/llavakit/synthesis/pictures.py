"""Pictures for a teacher that sees them: found by name below a folder, and encoded small, upright and without metadata.

COCO's pictures have two names, `COCO_val2014_000000123456.jpg` and `000000123456.jpg`, and data sets come with other
suffixes and in nested folders; a picture is found under any of them.

Knows files and pixels, no request and no teacher.
"""

from __future__ import annotations

import io
import re
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from llavakit.errors import LlavakitError
from llavakit.synthesis.teacher import SentPicture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONGEST_SIDE, QUALITY = 1024, 90

_COCO_2014 = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12})")


class PictureError(LlavakitError):
    """A picture that cannot be sent. reason: a short phrase that can be counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PictureFolder:
    """The pictures below a folder, listed once when the first name is not where it says."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise LlavakitError(f"{root} is no folder; give the folder in which the pictures lie.")
        self.root = root

    def find(self, name: str) -> Path:
        """The file of a picture: under its very name, or by its stem (COCO's number) with another suffix or folder.

        Of several, the one whose path is first in order; one whose folders agree with the name's goes before. What is
        found lies below the folder: annotations cannot name a file outside of it.

        Raises:
            PictureError: there is none.
        """
        wanted = Path(name)
        inside = not wanted.is_absolute() and ".." not in wanted.parts
        if inside and (exact := self.root / wanted).is_file():
            return exact
        if not (found := self._by_stem.get(_stem(wanted), [])):
            raise PictureError("picture missing", f"{name} is not below {self.root}, under any suffix.")
        parents = wanted.parent.parts
        return next((p for p in found if p.parent.parts[-len(parents) :] == parents), found[0])

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        listed: dict[str, list[Path]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                listed.setdefault(_stem(path), []).append(path)
        return listed


def _stem(path: Path) -> str:
    found = _COCO_2014.fullmatch(path.stem)
    return found[1] if found else path.stem


def encode(path: Path, longest: int = LONGEST_SIDE) -> SentPicture:
    """The picture upright (its EXIF orientation applied), no longer than `longest` pixels on any side, as JPEG without
    metadata. The same file gives the same bytes.

    Raises:
        PictureError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("RGBA", "LA", "P", "PA"):
                full = picture.convert("RGBA")
                picture = Image.new("RGB", full.size, "white")
                picture.paste(full, mask=full.getchannel("A"))
            picture = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError("picture unreadable", f"{path} cannot be read as a picture: {error}") from error
    if max(picture.size) > longest:
        scale = longest / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=False)
    return SentPicture("image/jpeg", buffer.getvalue())
