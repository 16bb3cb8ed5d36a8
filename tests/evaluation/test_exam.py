"""Scores are exact, intervals are Wilson's, and a shuffled picture is never a question's own."""

from __future__ import annotations

import pytest

from llavakit.evaluation.exam import Question, Score, fractions, put, right, score

EXAM = [Question("presence", f"p{n}.png", f"Is there {n}?", "Yes" if n % 2 else "No") for n in range(6)]
EXAM += [Question("colour", f"c{n}.png", f"What colour is {n}?", "red") for n in range(5)]


def test_conditions_show_hide_and_exchange_the_pictures() -> None:
    seen: list[list[tuple[str, str | None]]] = []

    def ask(pairs):
        seen.append(list(pairs))
        return ["yes"] * len(pairs)

    for condition in ("shown", "hidden", "shuffled"):
        put(EXAM, condition, ask)
    shown, hidden, shuffled = seen
    assert [picture for _, picture in shown] == [question.image for question in EXAM]
    assert {picture for _, picture in hidden} == {None}
    assert [q for q, _ in shuffled] == [q.question for q in EXAM]
    assert all(picture != question.image for (_, picture), question in zip(shuffled, EXAM, strict=True))
    assert sorted(picture for _, picture in shuffled) == sorted(question.image for question in EXAM)
    assert all(picture[0] == question.task[0] for (_, picture), question in zip(shuffled, EXAM, strict=True))


def test_scores_count_exact_answers_a_task() -> None:
    found = score(EXAM, ["yes"] * 6 + ["Red.", "red", "blue", "dark red", ""])
    assert fractions(found) == {"presence": 0.5, "colour": 0.4}
    with pytest.raises(ValueError):
        score(EXAM, ["yes"])


@pytest.mark.parametrize(("truth", "answer", "verdict"), [
    ("Yes", "yes.", True), ("Yes", "Yes it is", False), ("two", "Two ", True), ("two", "", False),
])  # fmt: skip
def test_letter_case_and_closing_marks_do_not_matter(truth: str, answer: str, verdict: bool) -> None:
    assert right(truth, answer) is verdict


def test_wilson_interval_agrees_with_a_published_example() -> None:
    low, high = Score(81, 263).interval  # Newcombe 1998, table I: 81/263 gives 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = Score(15, 148).interval  # the same table: 0.0624 to 0.1605
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    low, high = Score(0, 20).interval
    assert low == pytest.approx(0, abs=1e-9) and 0.1 < high < 0.2
