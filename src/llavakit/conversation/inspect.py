"""What a model is shown of a conversation: its tokens, which of them are learnt, and where pictures stand.

What lives here: a row of tokens and pictures made from what `encode` gives, the texts in which tokens can be shown
safely, and a page of such rows. It may touch records, templates, a tokenizer and the report builder. It does not know
files of conversations, terminals or models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, file_of
from llavakit.conversation.templates import Template
from llavakit.conversation.tokenize import IGNORE_INDEX, encode
from llavakit.report import Html, Section, figures, join, page, paragraph, picture, text

OPEN, CLOSE = "«", "»"
"""Stand around what is learnt, so that it can be told without colour."""
BORDER = "·"
"""Stands between two tokens."""


@dataclass(frozen=True, slots=True)
class Token:
    """text: as it is read in the conversation; its bytes as \\xNN where it is less than a character."""

    id: int
    text: str
    supervised: bool


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture of the conversation, which takes `positions` positions from position `start`."""

    index: int
    file: str
    start: int
    positions: int


Cell = Token | PlacedPicture


@dataclass(frozen=True, slots=True)
class InspectedRow:
    """A row of a data set: what stands in it, in order, or the problem that it has.

    positions counts tokens and pictures' positions; supervised counts learnt tokens; exchanges_cut were left out at the
    end because the row was too long. note tells what the reader left out.
    """

    position: int
    id: str
    cells: tuple[Cell, ...] = ()
    exchanges_cut: int = 0
    problem: str | None = None
    note: str | None = None

    @property
    def pictures(self) -> tuple[PlacedPicture, ...]:
        return tuple(cell for cell in self.cells if isinstance(cell, PlacedPicture))

    @property
    def positions(self) -> int:
        return sum(cell.positions if isinstance(cell, PlacedPicture) else 1 for cell in self.cells)

    @property
    def picture_positions(self) -> int:
        return sum(shown.positions for shown in self.pictures)

    @property
    def supervised(self) -> int:
        return sum(isinstance(cell, Token) and cell.supervised for cell in self.cells)


def inspect_conversation(
    conversation: Conversation,
    template: Template,
    tokenizer: Any,
    image_lengths: Sequence[int],
    *,
    position: int = 0,
    max_length: int | None = None,
    note: str | None = None,
) -> InspectedRow:
    """The tokens of a conversation as training sees them; one that cannot be encoded is a row with its problem.

    image_lengths: positions of each of its pictures. position: the row's number in its file, from 0.
    """
    name = str(conversation.id)
    try:
        encoded = encode(conversation, template, tokenizer, image_lengths, max_length=max_length)
    except ConversationError as problem:
        return InspectedRow(position, name, problem=str(problem), note=note)
    cells: list[Cell] = []
    at = 0
    for span in encoded.images:
        cells += _tokens(encoded.ids[at : span.start], encoded.labels[at : span.start], tokenizer)
        cells.append(PlacedPicture(span.index, conversation.images[span.index], span.start, span.length))
        at = span.start + span.length
    cells += _tokens(encoded.ids[at:], encoded.labels[at:], tokenizer)
    return InspectedRow(position, name, tuple(cells), encoded.turns_dropped, None, note)


def _tokens(ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> Iterator[Token]:
    for token, label in zip(ids, labels, strict=True):
        yield Token(token, _token_text(token, tokenizer), label != IGNORE_INDEX)


def _token_text(token: int, tokenizer: Any) -> str:
    name = str(tokenizer.convert_ids_to_tokens(token))
    words = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if name.startswith("▁"):  # decoding a single token takes its leading space away
        return name.replace("▁", " ")
    if "\ufffd" not in words and words:
        return str(words)
    if _BYTE_NAME.fullmatch(name):
        return f"\\x{name[3:5].lower()}"
    if all(sign in _BYTE_SIGNS for sign in name):
        return "".join(f"\\x{_BYTE_SIGNS[sign]:02x}" for sign in name)
    return name


def _byte_signs() -> dict[str, int]:
    """The character by which byte-level tokenizers name each byte: itself where it prints, else one from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_SIGNS = _byte_signs()
_BYTE_NAME = re.compile("<0x[0-9A-F]{2}>")


def visible(words: str) -> str:
    """The words with line ends as ⏎ and every other character that does not print, or that reorders text, written out;
    what is read from a file can then not move a terminal's cursor."""
    return "".join("⏎" if c == "\n" else c if c.isprintable() else repr(c)[1:-1] for c in words)


def runs(cells: Sequence[Cell]) -> Iterator[tuple[bool, list[Cell]]]:
    """Neighbours that are learnt, or are not, together."""
    group: list[Cell] = []
    for cell in cells:
        if group and _learnt(cell) != _learnt(group[0]):
            yield _learnt(group[0]), group
            group = []
        group.append(cell)
    if group:
        yield _learnt(group[0]), group


def _learnt(cell: Cell) -> bool:
    return isinstance(cell, Token) and cell.supervised


def picture_label(cell: PlacedPicture) -> str:
    """A picture in one line: which, and how many positions it takes."""
    return f"[picture {cell.index + 1}: {visible(cell.file)}, {cell.positions} positions]"


def row_title(row: InspectedRow) -> str:
    return f"row {row.position}" + (f" (id {visible(row.id)})" if row.id else "")


def row_counts(row: InspectedRow) -> str:
    """A row's numbers as a sentence."""
    shown = len(row.pictures)
    told = f"{row.positions} positions, {row.supervised} supervised"
    if shown:
        told += f", {row.picture_positions} for {shown} picture{'s' if shown > 1 else ''}"
    if row.exchanges_cut:
        told += f"; {row.exchanges_cut} exchange{'s' if row.exchanges_cut > 1 else ''} cut from the end"
    return told


def counts(rows: Sequence[InspectedRow]) -> dict[str, int]:
    """The numbers of all rows together, by what they count."""
    return {
        "rows": len(rows),
        "with a problem": sum(row.problem is not None for row in rows),
        "positions": sum(row.positions for row in rows),
        "supervised": sum(row.supervised for row in rows),
        "for pictures": sum(row.picture_positions for row in rows),
        "exchanges cut": sum(row.exchanges_cut for row in rows),
    }


def to_html(rows: Sequence[InspectedRow], title: str, *, subtitle: str = "") -> str:
    """A page that shows every row: its pictures, its tokens with their ids, what is learnt, and its problem.

    Everything is inside the file; pictures that cannot be read are named with the reason.
    """
    legend = paragraph(
        Html(
            f'{_STYLE}<span class="flow">{OPEN}<b>learnt</b>{CLOSE}</span> is supervised: the loss is taken there. '
            "⏎ is a line end; a token's id is shown when it is pointed at."
        )
    )
    sections = [Section("Counts", join([figures(counts(rows)), legend]))]
    for row in rows:
        if row.problem is not None:
            sections.append(
                Section(row_title(row), Html(f'<p class="no">✗ {text(visible(row.problem))}</p>'))
            )
            continue
        shown = "".join(
            picture(file_of(cell.file), side=240, alt=picture_label(cell)) for cell in row.pictures
        )
        thumbnails = f'<div class="seen">{shown}</div>' if shown else ""
        note = f"{row_counts(row)}. {row.note or ''}".strip()
        sections.append(Section(row_title(row), Html(f'{thumbnails}<p class="flow">{_flow(row)}</p>'), note))
    return page(title, sections, subtitle=subtitle)


def _flow(row: InspectedRow) -> str:
    parts = []
    for learnt, group in runs(row.cells):
        inside = "".join(_cell(cell) for cell in group)
        parts.append(f"{OPEN}<b>{inside}</b>{CLOSE}" if learnt else inside)
    return "".join(parts)


def _cell(cell: Cell) -> str:
    if isinstance(cell, PlacedPicture):
        return f"<em>{text(picture_label(cell))}</em>"
    end = "<br>" if cell.text.endswith("\n") else ""
    return f'<span title="{cell.id}">{text(visible(cell.text))}</span>{end}'


_STYLE = """<style>
.flow{font:.92rem/2 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
overflow-wrap:anywhere;max-width:none}
.flow span{border:1px solid var(--line);border-radius:3px;padding:1px 0}
.flow b{color:var(--good);text-decoration:underline}
.flow em{font-style:normal;color:var(--link);border:1px dashed var(--link);border-radius:3px;padding:1px 4px}
.seen{display:flex;flex-wrap:wrap;gap:8px;margin-bottom:12px}.seen img{max-width:240px;max-height:240px}
</style>"""


__all__ = [
    "BORDER", "CLOSE", "OPEN", "Cell", "InspectedRow", "PlacedPicture", "Token",
    "counts", "inspect_conversation", "picture_label", "row_counts", "row_title", "runs", "to_html", "visible",
]  # fmt: skip
