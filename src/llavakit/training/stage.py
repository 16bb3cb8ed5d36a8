"""A stage made ready: its index, its plan, its packs, its validation.

What lives here: from a stage of the recipe to everything its training reads, and what the manifest says about it. It
knows the data room and the stage's settings. It does not know optimizers or states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llavakit.conversation.record import Conversation, Text, file_of
from llavakit.data.index import Index, Progress, open_index, refuse_mostly_bad
from llavakit.data.loader import PackDataset
from llavakit.data.plan import PlannedPack, StagePlan, mix64, plan_epoch, plan_stage
from llavakit.data.shelf import Shelf
from llavakit.data.writing import Writing
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.recipe import DataSource, Stage

SHOWN_SAMPLES = 6
SHOWN_CHARACTERS = 600
LISTED = 200


@dataclass(frozen=True, slots=True)
class PreparedStage:
    """All that the training of stage `number` (from 1) reads. `validation` holds every held-out conversation once."""

    number: int
    stage: Stage
    seed: int
    index: Index
    plan: StagePlan
    packs: PackDataset
    validation: PackDataset | None
    summary: dict[str, Any]


def prepare_stage(
    model: Llava, stage: Stage, number: int, seed: int, indexes: Path, progress: Progress | None = None
) -> PreparedStage:
    """Indexes and plans a stage.

    seed: the recipe's; a stage's own comes first. The order follows from seed and name, so that a stage draws the same
    packs whatever stages stand before it. indexes: the folder where indexes are kept and found.
    Raises LlavakitError when data cannot be read, or too little of it can be used.
    """
    own_seed = stage_seed(stage, seed)
    writing = Writing.of_stage(stage, model.tokenizer, model.geometry)
    index, shelf = _open(stage.data, writing, indexes, progress, stage)
    plan = plan_stage(
        index.lengths,
        pack=stage.batch.pack,
        batch=stage.batch.tokens,
        epochs=stage.schedule.epochs,
        max_steps=stage.schedule.max_steps,
        seed=own_seed,
    )
    packs = PackDataset(plan.packs, index, shelf, writing, model.pixels, own_seed)
    validation = None
    if stage.validation is not None:
        held, held_shelf = _open(stage.validation.data, writing, indexes, progress, stage)
        held_packs = [
            PlannedPack(0, tuple(samples)) for samples in plan_epoch(held.lengths, stage.batch.pack, 0, 0)
        ]
        validation = PackDataset(held_packs, held, held_shelf, writing, model.pixels, 0)
    summary = _summary(stage, number, own_seed, index, plan)
    summary["samples"] = _shown(index, shelf)
    if validation is not None:
        summary["validation"] = _counts(validation.index)
    return PreparedStage(number, stage, own_seed, index, plan, packs, validation, summary)


def stage_seed(stage: Stage, seed: int) -> int:
    """What all of a stage's random choices follow from. seed: the recipe's."""
    return mix64(seed if stage.seed is None else stage.seed, *stage.name.encode())


def _open(
    sources: Sequence[DataSource],
    writing: Writing,
    indexes: Path,
    progress: Progress | None,
    stage: Stage,
) -> tuple[Index, Shelf]:
    index, shelf = open_index(sources, writing, indexes, progress)
    refuse_mostly_bad(index, stage.name, stage.max_skipped)
    return index, shelf


def refuse_changed_data(before: dict[str, Any], prepared: PreparedStage) -> None:
    """Raises LlavakitError when a stage that was begun reads other data now than then."""
    then = {source["path"]: source["sha256"] for source in before["sources"]}
    for source in prepared.index.sources:
        if then.get(source.path) != source.sha256:
            raise LlavakitError(
                f"stage {prepared.stage.name}: {source.path} changed since the run began, so its order would be "
                "another; put the file back, or begin a run in another folder"
            )
    if before["fingerprint"] != prepared.index.fingerprint:
        raise LlavakitError(
            f"stage {prepared.stage.name}: the tokenizer or llavakit itself is not what it was when the run began "
            "and its order would be another; begin a run in another folder"
        )


def _summary(stage: Stage, number: int, seed: int, index: Index, plan: StagePlan) -> dict[str, Any]:
    """What the manifest says about a stage: the mixture really drawn, and what was left out."""
    drawn: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    for pack in plan.packs:
        for sample in pack.samples:
            row = index.rows[sample]
            drawn[row.source] += 1
            tokens[row.source] += row.length
    counts = _counts(index)
    for number_of_source, source in enumerate(counts["sources"]):
        source["samples_drawn"] = drawn[number_of_source]
        source["tokens_drawn"] = tokens[number_of_source]
    room = len(plan.packs) * stage.batch.pack
    return {
        "number": number,
        "name": stage.name,
        "seed": seed,
        "steps": plan.steps,
        "packs": len(plan.packs),
        "fill": round(tokens.total() / room, 4) if room else 0.0,
        **counts,
    }


def _counts(index: Index) -> dict[str, Any]:
    kept = Counter(row.source for row in index.rows)
    return {
        "fingerprint": index.fingerprint,
        "sources": [
            {
                "name": source.name,
                "path": source.path,
                "sha256": source.sha256,
                "rows": source.rows,
                "used": kept[number],
            }
            for number, source in enumerate(index.sources)
        ],
        "used": len(index.rows),
        "skipped": len(index.skipped),
        "skipped_by_kind": dict(Counter(row.kind for row in index.skipped)),
        "skipped_rows": [
            {"row": index.name(row), "kind": row.kind, "reason": row.reason} for row in index.skipped[:LISTED]
        ],
        "videos": asdict(index.sampled),
        "cut": len(index.cut),
        "cut_rows": [
            {"row": index.name(row), "exchanges_dropped": row.turns_dropped} for row in index.cut[:LISTED]
        ],
        "noted": len(index.noted),
        "noted_rows": [{"row": index.name(row), "note": row.note} for row in index.noted[:LISTED]],
    }


def _shown(index: Index, shelf: Shelf) -> list[dict[str, Any]]:
    """A few conversations, spread over the data, for the report."""
    count = min(SHOWN_SAMPLES, len(index.rows))
    chosen = [number * len(index.rows) // count for number in range(count)]
    return [_shown_one(index.name(index.rows[number]), shelf[number]) for number in chosen]


def _shown_one(name: str, conversation: Conversation) -> dict[str, Any]:
    said = [
        {
            "role": turn.role,
            "text": " ".join(part.text.strip() for part in turn.parts if isinstance(part, Text))[
                :SHOWN_CHARACTERS
            ],
        }
        for turn in conversation.turns
    ]
    files = list(dict.fromkeys(map(file_of, conversation.images)))  # a video once, not once a frame
    return {"name": name, "images": files, "turns": said[:8]}
