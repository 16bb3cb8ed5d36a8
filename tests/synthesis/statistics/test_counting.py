"""What holds for reading and counting a data set, in each of the forms it is written in."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.export import export
from llavakit.synthesis.sample import Sample
from llavakit.synthesis.statistics.counting import as_values, survey
from llavakit.synthesis.statistics.rows import Row, read_data, row_of
from llavakit.synthesis.tasks import conversation

LEAK = Verdict("leak/1", "reject", "names a caption", "the caption")
NOTE = Verdict("objects/1", "note", "an object that is not there")


def sample(number: int, *verdicts: Verdict, unreadable: str = "") -> Sample:
    exchanges = () if unreadable else (("What is the dog doing?", "The dog sits next to two cats."),) * 2
    picture = Annotated(number, f"{number}.jpg", ("A dog.",), ())
    candidate = Candidate(
        f"detail-{number}", "detail", picture, exchanges, "as it came", unreadable=unreadable
    )
    provenance = {
        "source": {"dataset": "coco", "licence": "CC BY 2.0"},
        "teacher": {"asked": "large", "returned": "large-2026"},
        "cost": 0.25,
        "boxes": [["dog", 0.1, 0.2, 0.5, 0.6]],
    }
    return Sample(candidate, None if unreadable else conversation(candidate), verdicts, provenance)


def samples() -> list[Sample]:
    return [sample(1), sample(2, NOTE), sample(3, LEAK), sample(4, unreadable="no blocks")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_export_writes_is_counted_whole(tmp_path: Path, form: str) -> None:
    export(samples(), tmp_path, [form])
    found = as_values(survey(read_data(tmp_path)).statistics)
    assert found["samples"] == {"kept": 2, "rejected": 2}
    assert found["rejected_for"] == {"leak/1: names a caption": 1, "unreadable: no blocks": 1}
    assert found["noted"] == {"objects/1: an object that is not there": 1}
    assert found["teachers"] == {"large-2026": 4} and found["cost"]["total"] == 1.0
    assert found["sources"] == {"coco": 2} and found["licences"] == {"CC BY 2.0": 2}
    assert found["kinds"] == {"detail": 2} and found["boxes"] == {"dog": 2} and found["turns"] == {"2": 2}
    assert found["questions"] == 4 and found["repeated_questions"] == 3
    assert found["words_of_answers"]["mean"] == 7 and found["words_of_place"] == {"next to": 2}
    assert found["verbs_with_nouns"]["top"] == {"do dog": 4} and found["nouns_of_answers"]["top"] == {
        "cat": 2,
        "dog": 2,
    }


def test_a_folder_is_read_once_although_it_holds_the_data_three_times(tmp_path: Path) -> None:
    export(samples(), tmp_path)
    found = list(read_data(tmp_path))
    assert len(found) == 4 and found[2].evidence == {"leak/1: names a caption": "the caption"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(LlavakitError, match=r"rejected\.jsonl"):
        list(read_data(tmp_path / "empty"))


def test_plain_llava_json_is_counted(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": "A cat."}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": 7, "image": "a.jpg", "conversations": turns}]))
    (row,) = read_data(path)
    assert row == Row("7", "a.jpg", exchanges=(("Describe it.", "A cat."),), provenance={"source": {}})


@pytest.mark.parametrize(
    "content",
    [
        7,
        {},
        {"conversations": []},
        {"conversations": "x"},
        {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
        {"conversations": [], "provenance": "{"},
        {"conversations": [], "provenance": [1]},
        {"reasons": ["x"], "exchanges": "x"},
    ],
)
def test_rows_that_cannot_be_read_are_counted_by_reason(content: Any) -> None:
    row = row_of(content, 3)
    assert row.problem
    found = survey([row]).statistics
    assert found.problems.total() == 1 and found.kept == found.rejected == 0


def test_odd_values_do_no_harm() -> None:
    turns = [{"from": "human", "value": None}, {"from": "gpt"}, 5]
    row = row_of(
        {
            "image": [],
            "conversations": turns,
            "verdicts": [3, {}],
            "provenance": {"boxes": [["a", 1], 7], "source": "x", "teacher": 3, "cost": "dear"},
        },
        1,
    )
    assert not row.problem and row.boxes == () and survey([row]).statistics.kept == 1


def test_the_same_samples_are_shown_whatever_their_order() -> None:
    rows = [Row(f"row {number}", exchanges=(("Why?", "So."),), kept=number % 3 > 0) for number in range(200)]
    first = survey(rows, most=10)
    random.Random(0).shuffle(rows)
    again = survey(rows, most=10)
    assert {one.id for one in first.kept} == {one.id for one in again.kept} and len(first.kept) == 10
    assert len(first.rejected) == 10 and not any(one.kept for one in first.rejected)
    assert [one.id for one in again.kept] == [one.id for one in rows if one in again.kept]
    everything = survey(rows, most=500)
    assert len(everything.kept) + len(everything.rejected) == 200


def test_boxes_of_annotations_fill_in_where_a_row_has_none() -> None:
    boxes = {"a.jpg": (("cat", 0.0, 0.0, 1.0, 1.0),)}
    rows = [Row("1", "a.jpg", exchanges=(("Why?", "So."),)), Row("2", "b.jpg", exchanges=(("Why?", "So."),))]
    assert [len(one.boxes) for one in survey(rows, boxes=boxes).kept] == [1, 0]
