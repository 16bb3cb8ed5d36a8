"""The card of a generated data set: what it is, of what and by whom it was made, its licences, and what was left out.

Text from counts: reads nothing and knows no teacher. What only the maker knows is asked for on the card, not invented.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from llavakit.synthesis.export import Exported


def card(name: str, done: Exported, gates: Mapping[str, Any]) -> str:
    """Markdown with the header that model hubs read.

    gates: the settings by which samples were judged, as plain values.
    """
    total = done.kept + done.rejected
    days = sorted(day for day in done.days if day)
    when = "no reply" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    share = f"{done.rejected / total:.1%}" if total else "none"
    header = [
        "---",
        "pretty_name: " + json.dumps(name),
        "task_categories: [visual-question-answering, image-to-text]",
    ]
    header += ["tags: [visual-instruction-tuning, synthetic]", "---"]
    parts = [
        "\n".join(header),
        f"# {name}",
        "Visual instruction data written by a teacher that was told of each picture, and sorted by gates that gave a "
        "reason for whatever they kept out.",
        f"{done.kept:,} samples about {len(done.pictures):,} pictures: {done.exchanges:,} questions, {done.words:,} "
        f"words of answers. {done.rejected:,} of {total:,} replies ({share}) were rejected. Replies came "
        f"{_span(when)}; they cost {done.cost:.4f} in the currency of the price list.",
        _listed("Kinds", ("kind", "samples"), done.kinds),
        _listed("Teachers", ("model, as the endpoint named it", "replies"), done.teachers),
        _listed("Prompts", ("prompt, version and hash", "replies"), done.prompts),
        _listed("Sources", ("data set", "samples"), done.sources),
        _licences(done.licences),
        _listed("Why replies were rejected", ("gate and reason", "replies"), done.reasons),
        _listed("What was noted and kept", ("gate and reason", "times"), done.notes),
        "## Gates\n\n```json\n" + json.dumps(gates, indent=1, sort_keys=True) + "\n```",
        "## Files\n\n" + "\n".join(f"- `{file}`" for file in done.files),
        "## What its maker should add\n\n"
        "- The terms of use of the teacher named above, which may limit what its words can be used for.\n"
        "- Whether pictures may be passed on: the licences above are those of the annotations' files.\n"
        "- What the data is meant for, and who was asked.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _span(when: str) -> str:
    return f"on {when}" if " " not in when else f"from {when}"


def _listed(title: str, heads: tuple[str, str], counts: Counter[str]) -> str:
    if not counts:
        return ""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"| {_cell(name)} | {number:,} |" for name, number in rows]
    return f"## {title}\n\n| {heads[0]} | {heads[1]} |\n|---|---:|\n" + "\n".join(lines)


def _licences(counts: Counter[tuple[str, str]]) -> str:
    named = Counter({f"[{name}]({url})" if url else name: number for (name, url), number in counts.items()})
    return _listed("Licences of the pictures", ("licence", "samples"), named)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
