"""Stage 1's data from a file of captions: each caption becomes the answer to a request for a short one.

Joins a set of captions with the list of brief questions (LLaVA, section 4.1). The picture stands before the question;
a stage's `picture_order: random` moves it behind in half of the samples, as the paper does. Rows are written one at a
time, so that millions need no memory. Knows no teacher and opens no picture.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llavakit.data.readers.llava import PLACE
from llavakit.errors import LlavakitError
from llavakit.synthesis.balance.captions import open_captions
from llavakit.synthesis.kinds import BRIEF_QUESTIONS


def write_pairs(
    source: Path,
    target: Path,
    *,
    field: str = "",
    seed: int = 0,
    questions: Sequence[str] = BRIEF_QUESTIONS,
    force: bool = False,
) -> tuple[int, Counter[str]]:
    """Writes the captions of `source` as LLaVA JSON (.json) or one row a line (.jsonl), in their order.

    Which question is asked follows from the seed, the picture's name and the caption. Returns how many were written,
    and the rows that were left out by reason. Raises LlavakitError when the source cannot be read, the target has
    another ending or exists without `force`, and when no row can be used.
    """
    if target.suffix not in (".json", ".jsonl"):
        raise LlavakitError(f"{target}: expected a file that ends in .json or .jsonl")
    if target.exists() and not force:
        raise LlavakitError(f"{target} exists already and is not replaced unless you say --force")
    if not target.parent.is_dir():
        raise LlavakitError(f"{target}: there is no folder {target.parent}; make it first")
    partial = target.with_name(f".partial-{target.name}")
    as_list = target.suffix == ".json"
    written, left_out = 0, Counter[str]()
    try:
        with partial.open("w", encoding="utf-8", errors="replace") as file:
            for number, caption in enumerate(open_captions(source, field).captions()):
                problem = caption.problem or ("" if caption.image else "a row that names no picture")
                if problem:
                    left_out[problem] += 1
                    continue
                question = random.Random(f"{seed}/{caption.hash}").choice(questions)
                line = json.dumps(
                    {
                        "id": f"caption-{number}",
                        "image": caption.image,
                        "conversations": [
                            {"from": "human", "value": f"{PLACE}\n{question}"},
                            {"from": "gpt", "value": caption.text},
                        ],
                    },
                    ensure_ascii=False,
                )
                file.write((("[\n" if written == 0 else ",\n") + line) if as_list else line + "\n")
                written += 1
            if as_list:
                file.write("\n]\n")
        if not written:
            told = ", ".join(f"{count} times {reason}" for reason, count in left_out.items())
            raise LlavakitError(f"{source}: not one caption can be used ({told or 'there are no rows'}).")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return written, left_out
