"""What is known of a stage's data before it is trained on: measured where the files are there, supposed where not.

What lives here: rows, their lengths, what of them is learnt, their pictures, and in words where each of these comes
from. It knows the data room's survey and the model's geometry. It does not know memory or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llavakit.data.index import Progress
from llavakit.data.survey import Survey, count_rows, files_exist, survey
from llavakit.data.writing import Writing, image_policy
from llavakit.errors import LlavakitError
from llavakit.images.geometry import layout
from llavakit.model.language import load_tokenizer
from llavakit.recipe import Recipe, Stage
from llavakit.training.architecture import Architecture
from llavakit.training.configurations import known_parts

CAPTION, CONVERSATION = 16, 448
"""Positions of text that a row is supposed to have where nothing is known: of `plain` data, and of any other."""
USUAL = (640, 480)
"""The picture whose size is supposed."""


@dataclass(frozen=True, slots=True)
class Data:
    """What is known, or supposed, of a stage's data. rows: usable; None: not known. length: positions of a mean row.
    attended: the mean length of the row that a position stands in. supervised, tiles: of a mean row. lengths: of every
    row, when all were measured. said: where this comes from, in words."""

    rows: int | None
    length: float
    attended: float
    supervised: float
    tiles: float
    said: tuple[str, ...]
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says of a stage's data: rows, and the positions of a mean one."""

    rows: int
    length: float | None = None


def expected_data(
    recipe: Recipe, model: Architecture, said: Mapping[str, Said], progress: Progress | None = None
) -> tuple[Data, ...]:
    """What is known of the data of each stage. said: by the names of stages; it comes before what files hold.

    Raises LlavakitError when a stage of that name does not exist, or a file that is there cannot be read.
    """
    names = [stage.name for stage in recipe.stages]
    for name in said:
        if name not in names:
            raise LlavakitError(
                f"--samples names a stage {name!r}; the recipe's stages are {', '.join(names)}"
            )
    return tuple(_of_stage(recipe, stage, model, said.get(stage.name), progress) for stage in recipe.stages)


def _of_stage(
    recipe: Recipe, stage: Stage, model: Architecture, said: Said | None, progress: Progress | None
) -> Data:
    if said is not None:
        return supposed(stage, model, said.rows, said.length, ())
    absent = [source.path for source in stage.data if not files_exist([source])]
    if absent:
        return supposed(stage, model, None, None, (f"{absent[0]} is not there",))
    try:
        tokenizer = load_tokenizer(recipe.model.checkpoint or recipe.model.language_model)
    except LlavakitError as error:
        why = (f"lengths could not be measured: {error}",)
        return supposed(stage, model, count_rows(stage.data), None, why, "counted")
    return surveyed(
        stage, model, survey(stage.data, Writing.of_stage(stage, tokenizer, model.geometry), progress)
    )


def surveyed(stage: Stage, model: Architecture, found: Survey) -> Data:
    """What a survey says of a stage's data. Raises LlavakitError when no row of it can be used."""
    if not found.used:
        raise LlavakitError(
            f"stage {stage.name}: none of the {found.judged} rows that were looked at can be used; "
            f"`llavakit data check {stage.data[0].path}` lists the reasons"
        )
    lengths = [row.length for row in found.used]
    length = found.mean(lengths)
    how = "all" if found.whole else f"an even sample of {found.judged:,}"
    said = [f"{found.rows:,} rows, lengths measured on {how}: {length:,.0f} positions on average"]
    if len(found.used) < found.judged:
        said.append(
            f"{found.judged - len(found.used):,} of the {found.judged:,} rows looked at cannot be used"
        )
    tiles, words = _tiles(stage, model)
    return Data(
        rows=found.usable,
        length=length,
        attended=found.mean([value * value for value in lengths]) / length,
        supervised=found.mean([row.supervised for row in found.used]),
        tiles=tiles * found.mean([row.pictures for row in found.used]),
        said=(*said, *words),
        lengths=tuple(lengths) if found.whole else None,
    )


def supposed(
    stage: Stage,
    model: Architecture,
    rows: int | None,
    length: float | None,
    why: tuple[str, ...],
    how: str = "as said",
) -> Data:
    """What is supposed of a stage's data. rows, length: where known, from where `how` says. why: it is supposed."""
    named = [source.path.rpartition("/")[2] for source in stage.data]
    known = [known_parts()["data_files"].get(name) for name in named]
    said = [*why]
    if rows is not None:
        said.append(f"{rows:,} rows, {how}")
    elif all(known):
        rows = sum(one["rows"] for one in known)
        said.append(f"{rows:,} rows, as published")
    else:
        said.append("its rows are not known: say them by --samples")
    text = next((one["text"] for one in known if one), CAPTION if stage.template == "plain" else CONVERSATION)
    tiles, words = _tiles(stage, model)
    picture = layout(image_policy(stage), model.geometry, *USUAL).tokens
    if length is None:
        length = min(picture + text, stage.max_length)
        said.append(f"{length:,.0f} positions a row supposed: a picture's {picture:,} and {text} of text")
    else:
        said.append(f"{length:,.0f} positions a row, as said")
    answered = max(length - picture, 1.0) * (1 if stage.template == "plain" else 0.5)
    said.append(
        "one picture a row and "
        + ("all" if stage.template == "plain" else "half")
        + " of its text learnt supposed"
    )
    return Data(rows, float(length), float(length), answered, tiles, (*said, *words))


def _tiles(stage: Stage, model: Architecture) -> tuple[float, tuple[str, ...]]:
    """Tiles of a picture."""
    tiles = layout(image_policy(stage), model.geometry, *USUAL).tiles
    words = () if tiles == 1 else (f"{tiles} tiles a picture supposed, those of {USUAL[0]} x {USUAL[1]}",)
    return float(tiles), words
