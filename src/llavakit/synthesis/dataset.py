"""A data set in the making, as its folder holds it: what is to be asked, and what is exported of what came back.

The folder's settings decide the tasks, the journal holds the replies, and `quality.json` says by which gates samples
were judged last. All files of data are made of these three and of the annotations, without asking anybody.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations import Annotations, read_annotations
from llavakit.synthesis.asking import Journal
from llavakit.synthesis.card import card
from llavakit.synthesis.curation import Curated, Rating, curate
from llavakit.synthesis.export import FORMATS, Exported, export
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.pictures import PictureFolder
from llavakit.synthesis.project import JOURNAL, Settings, check_annotations, read_settings
from llavakit.synthesis.prompt_folder import PromptFolder
from llavakit.synthesis.quality import Settings as Gates
from llavakit.synthesis.quality import identity
from llavakit.synthesis.tasks import Task, make_tasks

QUALITY = "quality.json"
CARD = "README.md"


@dataclass(slots=True)
class Dataset:
    """Settings with what they name, opened. skipped: pictures without a task, by `kind: reason`, of the last pass."""

    folder: Path
    settings: Settings
    annotations: Annotations
    kinds: list[PromptFolder]
    skipped: Counter[str] = field(default_factory=Counter)

    def tasks(self, limit: int | None = None) -> Iterator[Task]:
        """All tasks, or those of the first `limit` pictures, in an order that is always the same."""
        self.skipped.clear()
        settings = self.settings
        return make_tasks(
            self.annotations.pictures[:limit],
            self.kinds,
            model=settings.model,
            seed=settings.seed,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            samples=settings.samples,
            images=PictureFolder(Path(settings.images)) if settings.images else None,
            schemas=settings.schemas,
            skipped=self.skipped,
        )


def open_dataset(folder: Path, settings: Settings | None = None) -> Dataset:
    """Open what the settings name: those given, or those of the folder.

    Raises:
        LlavakitError: the folder has no settings, or annotations or prompts have changed since it was begun.
    """
    settings = settings or read_settings(folder)
    paths = check_annotations(settings)
    kinds = open_kinds(settings.kinds)
    changed = [
        f"{there} was {then}"
        for then, there in zip(settings.prompts, (kind.identity for kind in kinds), strict=True)
        if then != there
    ]
    if changed:
        raise LlavakitError(
            f"The prompts have changed since {folder} was begun ({'; '.join(changed)}); put them back, or give "
            "another --out."
        )
    return Dataset(folder, settings, read_annotations(paths, licences=settings.licences or None), kinds)


@dataclass(frozen=True, slots=True)
class Judging:
    """By which gates samples are judged, and by whose rating, if any."""

    gates: Gates = field(default_factory=Gates)
    rating: Rating | None = None

    def row(self) -> dict[str, Any]:
        rating = asdict(self.rating) if self.rating is not None else None
        return {**identity(self.gates), "rating": rating}


def read_judging(folder: Path) -> Judging:
    """The gates by which a folder's samples were judged last; the usual ones where there were none."""
    path = folder / QUALITY
    if not path.exists():
        return Judging()
    try:
        content = json.loads(path.read_text("utf-8"))
        rating = Rating(**content["rating"]) if content["rating"] else None
        return Judging(Gates.of(content["settings"], str(path)), rating)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LlavakitError(f"{path} is damaged ({error}); remove it or give --quality.") from error


def export_dataset(
    dataset: Dataset, journal: Journal, judging: Judging, formats: Sequence[str] = tuple(FORMATS)
) -> tuple[Exported, Curated]:
    """Read, judge and write all that the journal holds: data, what was rejected, and the card."""
    found = curate(dataset.tasks(), journal.stored, judging.gates, judging.rating)
    done = export(found.samples, dataset.folder, formats)
    _write(dataset.folder / QUALITY, json.dumps(judging.row(), indent=1, sort_keys=True) + "\n")
    _write(dataset.folder / CARD, card(dataset.folder.resolve().name, done, judging.row()))
    return done, found


def journal_path(folder: Path) -> Path:
    """Where a folder keeps its journal."""
    return folder / JOURNAL


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, "utf-8")
    partial.replace(path)
