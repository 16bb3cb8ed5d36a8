"""Questions of one's own: a file of pictures, questions and short answers, marked by exact match.

`questions.jsonl`, a row a line: `image` (a path below the folder), `question`, `answer`, and if wanted `task` (for the
breakdown) and `id`; other fields stay with the question. The quickstart writes its examination in this form, as
`exam.jsonl`. Letter case and closing punctuation aside, an answer has to be the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, NeededFile, Question, Variant, Verdict
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.reading import field, first_found, read_lines, with_unique_ids
from llavakit.evaluation.scoring.shares import mean_credit

FILE = NeededFile("questions.jsonl", "your own questions", "as many as you like", required=False)
EXAM = NeededFile(
    "exam.jsonl", "`llavakit quickstart`, which writes it into materials/", "0.2 MB", required=False
)

_FIELDS = ("image", "question", "answer", "task", "id")


def read(folder: Path, variant: str) -> list[Question]:
    """The questions in the file's order, known by their `id` or else their place."""
    _, paths = first_found(folder, FILE, EXAM)
    path = paths[0]
    questions = []
    for number, (where, row) in enumerate(read_lines(path, "write an object a line"), 1):
        asked, truth = field(row, "question", where), field(row, "answer", where)
        if not isinstance(asked, str) or not isinstance(truth, str | int | float) or not bare(str(truth)):
            raise LlavakitError(f"{where} needs a question and an answer that are texts and not empty.")
        picture = (InFile(folder / str(row["image"])),) if row.get("image") else ()
        task, name = str(row.get("task", "")), str(row.get("id", number))
        more = {key: value for key, value in row.items() if key not in _FIELDS}
        questions.append(Question(name, picture, asked, str(truth), category=task, meta=more))
    return with_unique_ids(questions, path)


def bare(answer: str) -> str:
    """The answer in lower case without blanks and full stops at its end."""
    said = answer.lower()
    last = next((place for place in range(len(said), 0, -1) if not _closes(said[place - 1])), 0)
    return said[:last].lstrip()


def _closes(letter: str) -> bool:
    return letter.isspace() or letter in ".!"


def mark(question: Question, answer: str) -> Verdict:
    """Right when it is the answer."""
    said = bare(answer)
    return Verdict(question, said, float(said == bare(question.truth)), "" if said else "no answer")


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, and of each task."""
    figures = {"accuracy": mean_credit(verdicts)}
    for task in sorted({v.question.category for v in verdicts} - {""}):
        figures[task] = mean_credit([v for v in verdicts if v.question.category == task])
    return figures


BENCHMARK = Benchmark(
    name="own",
    title="Questions of one's own",
    files=(FILE, EXAM),
    variants=(Variant("as written", "exact match, asked as written"),),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="accuracy",
)
