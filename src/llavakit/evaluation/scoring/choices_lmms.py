"""Which option an answer chooses by lmms-eval, a rule for each of its tasks; what it would report stands in `others`.

| rule | of its task |
|---|---|
| `whole_or_prefix` | scienceqa |
| `first_character` | seedbench |
| `prefix_or_all` | ai2d |
| `extracted` | mmstar, realworldqa |
| `text_or_all` | realworldqa, releases of 2024 |
| `static` | mmbench_en_dev_static |
| `mmmu` | mmmu_val |

All are pure and none raises for any text. Knows no benchmark.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence


def whole_or_prefix(answer: str) -> str | None:
    """A bare letter of either case, or a capital and a full stop at the start. Source: lmms-eval, scienceqa."""
    answer = answer.strip()
    if len(answer) == 1:
        return answer.upper()
    return answer[0] if len(answer) >= 2 and answer[0].isupper() and answer[1] == "." else None


def first_character(answer: str) -> str | None:
    """The first character, whatever follows. Source: lmms-eval, seedbench."""
    answer = answer.strip()
    return answer[0].upper() if answer else None


def prefix_or_all(answer: str) -> str:
    """A capital and a full stop at the start, else all; without case and punctuation. Source: lmms-eval, ai2d."""
    answer = answer.strip()
    start = re.match(r"([A-Z])\.", answer)
    return without_case_and_punctuation(start[1] if start else answer)


def without_case_and_punctuation(text: str) -> str:
    """What lmms-eval's `exact_match` compares: lower case, ASCII's punctuation taken away, blanks left.

    Zero characters at the end go too, since it keeps texts in arrays that drop them. The blanks around an answer are
    gone before it comes here. Source: lmms-eval, api/metrics.py and api/task.py.
    """
    return text.lower().translate(str.maketrans("", "", string.punctuation)).rstrip("\0")


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def text_or_all(answer: str, question: str) -> str:
    """The letter of the first option whose text is held, else the whole answer; without case and punctuation.

    Options are the texts after a capital and a full stop in the question, lettered in their order. A number word up to
    ten that is the whole answer is taken for its digits. Source: lmms-eval 0.2, realworldqa.
    """
    digits = str(_NUMBERS.index(answer.lower())) if answer.lower() in _NUMBERS else answer
    bare = re.sub(r"[^\w\s]", "", digits).strip()
    texts = [text.strip() for text in re.findall(r"\b[A-Z]\.\s+([^\n]*)", question)]
    letters = {text: chr(ord("A") + place) for place, text in enumerate(texts)}
    held = re.search("|".join(map(re.escape, texts)), bare) if texts else None
    return without_case_and_punctuation(letters[held[0]] if held else bare)


def extracted(answer: str, letters: Sequence[str] = ("A", "B", "C", "D")) -> str | None:
    """The letter of the surest form, the last of several: at the start, at the end, after a phrase, with marks, alone.

    Even a letter inside a word is taken when there is nothing surer. Source: lmms-eval, _task_utils/mcq_extract.py.
    """
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    bare, padded = text.strip(), f" {text} "
    if not answer.strip():
        return None
    candidates: list[
        tuple[int, int, int, str]
    ] = []  # sureness, place, minus the order in which it was found, letter

    def add(sureness: int, place: int, letter: str) -> None:
        candidates.append((sureness, place, -len(candidates), letter))

    for sureness, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
        for letter in letters:
            if (place := padded.rfind(form.format(letter))) >= 0:
                add(sureness, place, letter)
    lowered = padded.lower()
    for phrase in _PHRASES:
        if (start := lowered.find(phrase)) >= 0:
            for letter in letters:
                if (place := padded.find(letter, start + len(phrase))) >= 0:
                    add(7, place, letter)
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            add(10, 0, letter)
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            add(9, len(padded) - 1, letter)
    if not candidates:
        for letter in letters:
            if letter in padded:
                add(0, padded.rfind(letter), letter)
    return max(candidates)[3] if candidates else None


_PHRASES = (
    *(f"{the}{best}answer is" for the in ("the ", "") for best in ("", "correct ", "best ")),
    *(f"{the}{best}option is" for the in ("the ", "") for best in ("correct ", "best ")),
    *(f"{the}{best}choice is" for the in ("the ", "") for best in ("", "correct ")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


# marks before and after a letter, in the order in which they are tried
_AFFIXES = (
    *(("", after) for after in ("", ".", ",", ":", ")", ").")),
    *(("(", after) for after in (")", ").")),
    *((":", after) for after in ("", ",", ".", ")", ").")),
)


def static(answer: str, options: Mapping[str, str]) -> str | None:
    """The only word that is a letter A to E, then the only one with given marks, then the only text held; `extracted`.

    A bare A among more than three words is taken for an article, and then nothing else is taken in its stead. Texts are
    looked for in answers of any length. Source: lmms-eval, mmbench/mmbench_evals.py.
    """
    letter = None if "Failed to obtain answer via API" in answer else _static_letter(answer)
    if letter is None:
        lowered = answer.lower()
        held = [letter for letter, text in options.items() if text.lower() in lowered]
        letter = held[0] if len(held) == 1 else None
    return letter or extracted(answer, sorted(options))


def _static_letter(answer: str) -> str | None:
    words = answer.split()
    for before, after in _AFFIXES:
        named = [letter for letter in "ABCDE" if f"{before}{letter}{after}" in words]
        article = (before, after) == ("", "") and "A" in words and len(words) > 3
        if len(named) == 1 and not article:
            return named[0]
    return None


def mmmu(answer: str, options: Mapping[str, str]) -> str | None:
    """As `choices.mmmu_choice`, but a letter needs no space before it (`NASA ` names A), and `A.` counts.

    Several letters are told apart by the last that has spaces on both sides; the first where none has. Source:
    lmms-eval, _task_utils/mmmu_mcq_utils.py.
    """
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    answer = f" {answer} "
    for form, place_form in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [letter for letter in options if form.format(letter) in answer]
        if named:
            return max(named, key=lambda letter: answer.rfind(place_form.format(letter)))
    if len(answer.split()) <= 5:
        return None
    answer = answer.lower()
    held = [letter for letter, text in options.items() if text.lower() in answer]
    return max(held, key=lambda letter: answer.rfind(options[letter].lower())) if held else None
