"""Which option an answer chooses: the rules of the tools that published numbers, side by side by name.

| rule | of | when nothing fits |
|---|---|---|
| `llava_letter` | LLaVA's ScienceQA evaluation | None (counted wrong) |
| `bare_letter` | LLaVA's SEED-Bench conversion | None (counted wrong) |
| `leading_letter` | MMStar's evaluation | None (counted wrong) |
| `mmbench_choice` | MMBench, as VLMEvalKit infers without a judge | None (a judge, else wrong) |
| `mmmu_choice` | MMMU's evaluation | None (MMMU itself draws one at random) |

lmms-eval's are in `choices_lmms`. Letters are capital; each rule says which answers it takes for one. All are pure and
none raises for any text. Knows no benchmark.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

REFUSED = "Z"
"""What `mmbench_choice` gives for an answer that declines."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s*:?\s*[*(]*([A-Z])(?![A-Za-z])", re.IGNORECASE)


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options by their letters, A for the first."""
    return dict(zip(string.ascii_uppercase, options, strict=False))


def option_lines(options: Sequence[str]) -> str:
    """`A. first`, `B. second` and so on, a line each."""
    return "\n".join(f"{letter}. {text}" for letter, text in lettered(options).items())


def llava_letter(answer: str, letters: str = "ABCDE") -> str | None:
    """A bare letter; a letter, full stop and space at the start; else `The answer is X` with one more character, once.

    The last form takes any capital, even one that no option has. Source: LLaVA, llava/eval/eval_science_qa.py.
    """
    if len(answer) == 1 and answer in letters:
        return answer
    if len(answer) >= 3 and answer[0] in letters and answer[1:3] == ". ":
        return answer[0]
    said = re.findall(r"The answer is ([A-Z]).", answer)
    return said[0] if len(said) == 1 else None


def bare_letter(answer: str, letters: str = "ABCD") -> str | None:
    """The letter when the answer is nothing else. Source: LLaVA, scripts/convert_seed_for_submission.py."""
    return answer if len(answer) == 1 and answer in letters else None


def leading_letter(answer: str, letters: Sequence[str] = ("A", "B", "C", "D")) -> str | None:
    """The first character, or the one after `(`, `option ` or `the answer is ` at the start, of either case.

    What follows is not looked at, so that `Because` names B. Source: MMStar, eval/vlmeval/evaluate/mmstar.py.
    """
    text = answer.lower().strip().replace("\n", " ")
    for start in ("", "(", "option ", "the answer is "):
        named = [letter for letter in letters if text.startswith(start + letter.lower())]
        if named:
            return named[0]
    return None


def mmbench_choice(answer: str, options: Mapping[str, str]) -> str | None:
    """The only option letter among the words, near the end; else the only option whose text the answer holds.

    `Z` when the answer declines. A letter has to be one of the last four words, so that an early "A" as an article is
    not taken for one; `answer is X` counts anywhere. Texts are compared in lower case, and only in an answer no longer
    than twice all options together. Source: VLMEvalKit, vlmeval/utils/matching_util.py.
    """
    return _mmbench_letter(answer, options) or _mmbench_text(answer, options)


def _mmbench_letter(answer: str, options: Mapping[str, str]) -> str | None:
    if "Failed to obtain answer via API" in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSED
    words = answer.translate(_SEPARATORS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    said = _ANSWER_IS.search(answer)
    return said[1].upper() if said and said[1].upper() in options else None


def _mmbench_text(answer: str, options: Mapping[str, str]) -> str | None:
    answer = answer.lower()
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    held = [letter for letter, text in options.items() if text.lower() in answer]
    return held[0] if len(held) == 1 else None


def mmmu_choice(answer: str, options: Mapping[str, str]) -> str | None:
    """`(A)`; else ` A ` between spaces; else, in more than five words, the options' texts; the last of several.

    Where this finds nothing MMMU's tool draws a letter at random. Source: MMMU, mmmu/utils/eval_utils.py.
    """
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    answer = f" {answer} "
    for form in ("({})", " {} "):
        places = {letter: answer.rfind(form.format(letter)) for letter in options}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=places.__getitem__)
    if len(answer.split()) <= 5:
        return None
    answer = answer.lower()
    places = {letter: answer.rfind(text.lower()) for letter, text in options.items()}
    return max(places, key=places.__getitem__) if max(places.values(), default=-1) >= 0 else None
