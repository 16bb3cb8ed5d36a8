"""A template of llavakit as the Jinja text that stock transformers renders.

The Jinja text is derived, not kept beside each template: the template writes a conversation of marked words, and what
stands between the marks is what the Jinja text must write. So it cannot drift from the template that trained the model.
For the tokenizer's own chat template the Jinja text is that template behind a preamble that turns messages made of
parts, as processors give them, into strings.

A picture and the words beside it are kept apart by a line break, as LLaVA's data has them, unless one is there.

Knows conversations and templates. Knows no tokenizer but by its chat template.
"""

from __future__ import annotations

import json
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, Part, Picture, Text, Turn
from llavakit.conversation.templates import PICTURE_MARKS, MarkedTemplate, Template, Written

_WORDS = """\
{%- macro words(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- set seen = namespace(text='', picture=false) -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}
{%- set gap = '\\n' if seen.text and not seen.text.endswith('\\n') else '' -%}
{%- set seen.text = seen.text + gap + '<image>' -%}
{%- set seen.picture = true -%}
{%- elif part.type == 'text' -%}
{%- set gap = '\\n' if seen.picture and not part.text.startswith('\\n') else '' -%}
{%- set seen.text = seen.text + gap + part.text -%}
{%- set seen.picture = false -%}
{%- endif -%}
{%- endfor -%}
{{ seen.text }}
{%- endif -%}
{%- endmacro -%}
"""

_PREAMBLE = (
    _WORDS
    + """\
{%- set plain = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set plain.messages = plain.messages + [dict(message, content=words(message.content))] -%}
{%- endfor -%}
{%- set messages = plain.messages -%}
"""
)

_PICTURES_ONLY = """\
{%- macro words(content) -%}
{%- if content is not string -%}
{%- for part in content -%}{%- if part.type == 'image' -%}{{ '<image>' }}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


def chat_template(template: Template, tokenizer: Any) -> str | None:
    """The Jinja text for `template`; None when it cannot be written as one that repeats turn by turn."""
    if isinstance(template, MarkedTemplate):
        before, after = PICTURE_MARKS
        inner = chat_template(template.inner, tokenizer)
        return None if inner is None else inner.replace("<image>", f"{before}<image>{after}")
    if template.name == "tokenizer":
        own = original_chat_template(getattr(tokenizer, "chat_template", None))
        return None if own is None else _PREAMBLE + own
    return _derived(template)


def original_chat_template(saved: str | None) -> str | None:
    """The tokenizer's own chat template, freed from the preamble that saving put before it."""
    return saved.removeprefix(_PREAMBLE) if isinstance(saved, str) else None


def _derived(template: Template) -> str | None:
    users, answers = ("FIRSTQ", "SECONDQ", "THIRDQ"), ("FIRSTA", "SECONDA", "THIRDA")
    pairs = list(zip(users, answers, strict=True))
    try:
        whole = _write(template, pairs)
    except ConversationError:  # a template of one exchange, in which the question is its picture
        return _pictures_only(template)
    between = _between(whole, [mark for pair in pairs for mark in pair])
    told = _write(template, pairs, system="TOLD")
    asked = [_write(template, pairs[:count], open_question=users[count]) for count in range(3)]
    if between is None or "TOLD" not in told:
        return None
    begin, middle, next_turn, end = between[0], between[1], between[2], between[-1]
    regular = between[1::2] == [middle] * 3 and between[2:-1:2] == [next_turn] * 2
    tails = {text[text.rindex(users[count]) + len(users[count]) :] for count, text in enumerate(asked)}
    expected_told = told.index("TOLD"), told.index(users[0])
    before_told, after_told = told[: expected_told[0]], told[expected_told[0] + 4 : expected_told[1]]
    same = told[expected_told[1] :] == whole[whole.index(users[0]) :]
    if not regular or len(tails) != 1 or not same:
        return None
    return "".join(
        [
            _WORDS,
            "{%- if messages[0].role == 'system' -%}",
            _say(before_told) + "{{- words(messages[0].content) -}}" + _say(after_told),
            "{%- set messages = messages[1:] -%}",
            "{%- else -%}",
            _say(begin),
            "{%- endif -%}",
            "{%- for message in messages -%}",
            "{%- if message.role == 'user' -%}",
            "{%- if not loop.first -%}" + _say(next_turn) + "{%- endif -%}",
            "{{- words(message.content) -}}",
            "{%- else -%}",
            _say(middle) + "{% generation %}{{- words(message.content) -}}{% endgeneration %}",
            "{%- if loop.last -%}" + _say(end) + "{%- endif -%}",
            "{%- endif -%}",
            "{%- endfor -%}",
            "{%- if add_generation_prompt and messages[-1].role == 'user' -%}"
            + _say(tails.pop())
            + "{%- endif -%}",
        ]
    )


def _pictures_only(template: Template) -> str | None:
    picture: tuple[Part, ...] = (Picture(0), Text("FIRSTQ"))
    text = _text(template, [Turn("user", picture), Turn("assistant", (Text("FIRSTA"),))], 1)
    between = _between(text, ["<image>", "FIRSTA"])
    asked = _text(template, [Turn("user", picture)], 1, prompt=True)
    if between is None or "<image>" not in asked:
        return None
    tail = asked[asked.index("<image>") + len("<image>") :]
    return "".join(
        [
            _PICTURES_ONLY,
            _say(between[0]),
            "{%- for message in messages if message.role != 'system' -%}",
            "{%- if message.role == 'user' -%}{{- words(message.content) -}}",
            "{%- else -%}" + _say(between[1]),
            "{% generation %}{{- message.content if message.content is string else message.content[0].text -}}",
            "{% endgeneration %}" + _say(between[2]) + "{%- endif -%}",
            "{%- endfor -%}",
            "{%- if add_generation_prompt and messages[-1].role == 'user' -%}" + _say(tail) + "{%- endif -%}",
        ]
    )


def _write(
    template: Template,
    pairs: list[tuple[str, str]],
    system: str | None = None,
    open_question: str | None = None,
) -> str:
    turns = [] if system is None else [Turn("system", (Text(system),))]
    for question, answer in pairs:
        turns += [Turn("user", (Text(question),)), Turn("assistant", (Text(answer),))]
    if open_question is not None:
        turns.append(Turn("user", (Text(open_question),)))
    return _text(template, turns, 0, prompt=open_question is not None)


def _text(template: Template, turns: list[Turn], pictures: int, prompt: bool = False) -> str:
    names = tuple(f"picture {number}" for number in range(pictures))
    conversation = Conversation(id="marks", source="marks", images=names, turns=tuple(turns), meta={})
    pieces = template.write(conversation, prompt=prompt)
    return "".join(piece.text if isinstance(piece, Written) else "<image>" for piece in pieces)


def _between(text: str, marks: list[str]) -> list[str] | None:
    """What stands before, between and after the marks, in order; None when one is missing."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]


def _say(text: str) -> str:
    """Jinja that writes `text` as it is."""
    return "{{- " + json.dumps(text) + " -}}" if text else ""
