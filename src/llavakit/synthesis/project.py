"""The folder of a generated data set: its settings beside its journal, so that all that follows can be made again.

`generation.json` says what is asked about and how: files of annotations with their hashes, kinds, model, parameters.
What does not change a request (where the teacher is, how fast it is asked, the gates, the formats written) is no part
of it. Together with the journal it decides every byte of the export.

Knows files and settings. Asks nobody and reads no reply.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llavakit.errors import LlavakitError

SETTINGS = "generation.json"
JOURNAL = "journal.sqlite"
FORMAT = 1


class AnnotationFile(BaseModel):
    """A file of annotations: where it lies, and the hash of its bytes in 64 hexadecimal digits."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: str


class Settings(BaseModel):
    """What decides the requests of a data set.

    kinds: names of packaged kinds, or folders of prompts. prompts: each kind's prompt with version and hash, so that an
    edited prompt is noticed. samples: replies wanted for each picture and kind. schemas: whether JSON schemas are sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    annotations: tuple[AnnotationFile, ...]
    images: str = ""
    kinds: tuple[str, ...]
    prompts: tuple[str, ...]
    model: str = ""
    seed: int = 0
    temperature: float | None = None
    max_tokens: int | None = None
    samples: int = 1
    schemas: bool = True
    licences: tuple[str, ...] = ()


def annotation_files(paths: tuple[Path, ...]) -> tuple[AnnotationFile, ...]:
    """The files with their hashes. Raises LlavakitError for one that cannot be read."""
    return tuple(AnnotationFile(path=str(path.resolve()), sha256=_hash(path)) for path in paths)


def open_settings(folder: Path, settings: Settings) -> None:
    """Write the settings into a folder, or see that those there are the same.

    Raises:
        LlavakitError: the folder holds other settings, or something that is no data set in the making.
    """
    path = folder / SETTINGS
    if path.exists():
        kept = read_settings(folder)
        if kept != settings:
            raise LlavakitError(
                f"{folder} was begun with other settings ({_difference(kept, settings)}); give another --out, or the "
                "settings it was begun with."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise LlavakitError(
            f"{folder} holds files but no {SETTINGS}, so it is no generated data set; give another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".partial-{SETTINGS}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(settings.model_dump(mode="json"), file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_settings(folder: Path) -> Settings:
    """The settings of a folder. Raises LlavakitError where there are none that can be read."""
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LlavakitError(
            f"{folder} holds no {SETTINGS}; give the folder that `llavakit generate` wrote."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LlavakitError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise LlavakitError(f"{path} is of format {found!r}; this version of llavakit reads format {FORMAT}.")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise LlavakitError(f"{path} is damaged: {place}: {first['msg']}.") from error


def check_annotations(settings: Settings) -> tuple[Path, ...]:
    """The files of annotations, seen to be those with which the data set was begun."""
    for file in settings.annotations:
        if _hash(Path(file.path)) != file.sha256:
            raise LlavakitError(
                f"{file.path} has changed since the data set was begun with it; put the file back, or give another "
                "--out."
            )
    return tuple(Path(file.path) for file in settings.annotations)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LlavakitError(
            f"{path} cannot be read: {error.strerror}; give a file of annotations."
        ) from error


def _difference(kept: Settings, wanted: Settings) -> str:
    before, after = kept.model_dump(mode="json"), wanted.model_dump(mode="json")
    changed = [name for name in before if before[name] != after[name]]
    return "; ".join(f"{name}: {_short(before[name])} there, {_short(after[name])} now" for name in changed)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
