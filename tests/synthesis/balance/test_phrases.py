"""What holds for noun phrases: the quick way gives what the parser gives, and phrases are what a person would mark."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.errors import LlavakitError
from llavakit.synthesis.balance.phrases import Phraser, check_normalise, plain_phrases, spacy_phrases

GOLDEN = Path(os.environ.get("LLAVAKIT_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))
WORDS = [
    "a",
    "the",
    "two",
    "dog",
    "dogs",
    "men",
    "wooden",
    "boats",
    "on",
    "and",
    "riding,",
    ".",
    "..",
    "etc.",
    "quickly",
    "Paris",
    "u.s.",
    "p.m.",
    "12",
    "3.5",
    "<PERSON>",
    "it's",
    "don't",
    "river's",
    "white-haired",
    "x",
    "b.",
    "hats.",
    "Riding",
    "D",
    ":)",
    "o_O",
    "(",
    "!",
    ")",
    '"quoted"',
    "w/",
    "a/b",
    "é",
    "—",
    ",",
    "-",
    "END-OF-SENTENCE",
    "I",
    "\n\n",
]
QUICK = {name: Phraser(name) for name in ("determiners", "lower", "none")}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        (
            "A donut shop is full of different flavors of donuts.",
            ["donut shop", "different flavors", "donuts"],
        ),
        ("two black dogs and the old fishing boats", ["two black dogs", "old fishing boats"]),
        ("a dog is near the dog", ["dog"]),
        ("her red hat", ["red hat"]),
        ("Riding a horse", ["horse"]),
        ("the letter b.", ["letter b."]),
        ("They are running.", []),
        ("", []),
    ],
)
def test_phrases_are_runs_of_words_around_a_noun(caption: str, phrases: list[str]) -> None:
    assert QUICK["determiners"](caption) == phrases


def test_how_phrases_are_written_is_a_choice() -> None:
    assert QUICK["lower"]("The Eiffel Tower") == ["the eiffel tower"]
    assert QUICK["none"]("The Eiffel Tower") == ["The Eiffel Tower"]
    with pytest.raises(LlavakitError, match="determiners, lower, none"):
        check_normalise("stemmed")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14), st.sampled_from(sorted(QUICK)))
def test_the_quick_way_equals_the_parser(words: list[str], normalise: str) -> None:
    caption = " ".join(words)
    assert QUICK[normalise](caption) == plain_phrases(caption, normalise)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_the_quick_way_equals_the_parser_on_any_text(caption: str) -> None:
    assert QUICK["determiners"](caption) == plain_phrases(caption)


def test_the_quick_way_equals_the_parser_on_captions_people_wrote() -> None:
    file = GOLDEN / "llava-bench-coco" / "caps_boxes_coco2014_val_80.jsonl"
    if not file.is_file():
        pytest.skip("the golden captions are not here")
    captions = [one for line in file.read_text().splitlines() for one in json.loads(line)["captions"]]
    assert len(captions) == 401
    for caption in captions:
        assert QUICK["determiners"](caption) == plain_phrases(caption)


def test_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llavakit.synthesis.balance.phrases._MOST_REMEMBERED", 3)
    phraser = Phraser()
    for caption in ("a red dog runs", "some blue cats sleep in the sun", "nine boats"):
        assert phraser(caption) == plain_phrases(caption)
    assert len(phraser._later) <= 3 and len(phraser._spans) <= 3


def test_spacy_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(LlavakitError, match="not installed"):
        spacy_phrases("en_core_web_sm")
    words = [SimpleNamespace(text=text, pos_=pos) for text, pos in (("The", "DET"), ("Dog", "NOUN"))]
    spacy = ModuleType("spacy")
    spacy.load = lambda name: lambda caption: SimpleNamespace(noun_chunks=[words])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    assert spacy_phrases("any")("The Dog") == ["dog"]
