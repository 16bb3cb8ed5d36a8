"""A model that is evaluated while it trains: the scores are those of its checkpoint, and training is as without."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llavakit import training
from llavakit.errors import LlavakitError
from llavakit.evaluation.asked import Asking
from llavakit.evaluation.during_training import Evaluation
from llavakit.evaluation.results import read_marked, read_results
from llavakit.evaluation.running import run_benchmark
from llavakit.model.llava import Llava
from llavakit.recipe import Evaluate
from llavakit.training import events
from llavakit.training.metrics import read_metrics
from tests.training.materials import COLOURS, make_recipe


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A folder of own questions, one about a square of each colour."""
    folder = tmp_path / "asked"
    folder.mkdir()
    rows = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")
        rows.append({"image": f"{name}.png", "question": "What colour is it?", "answer": f"It is {name}"})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def weights(run: training.RunResult) -> list[dict[str, torch.Tensor]]:
    return [load_file(next(folder.glob("*.safetensors"))) for folder in run.checkpoints]


def test_scores_are_the_checkpoint_s_and_training_is_as_without(
    tmp_path: Path, parts: dict[str, str], data: Path, asked: Path
) -> None:
    common: dict[str, Any] = {"schedule": {"max_steps": 5}}
    wanted = {"benchmarks": ["own"], "data": str(asked), "every": 2, "limit": 3}
    told: list[events.Event] = []
    plain = training.run(make_recipe(parts, data, **common), tmp_path / "plain")
    with_scores = make_recipe(parts, data, evaluate=wanted, **common)
    scored = training.run(with_scores, tmp_path / "scored", told.append, evaluator=Evaluation())
    for one, other in zip(weights(plain), weights(scored), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    records = read_metrics(scored.folder / "metrics.jsonl")
    assert [(r["stage"], r["step"]) for r in records if "scores" in r] == [
        (stage, step) for stage in ("align", "tune") for step in (2, 4, 5)
    ]
    heard = [(e.benchmark, e.done, e.total) for e in told if isinstance(e, events.Evaluating)]
    assert ("own", 3, 3) in heard
    out = scored.folder / "evaluation" / "2-tune" / "step-000005"
    assert read_results(out)["benchmarks"]["own"]["questions"] == {"scored": 3, "all": 4}
    assert (out / "report.html").is_file()
    again = run_benchmark(
        Llava.from_pretrained(scored.checkpoint), "saved", "own", asked, tmp_path / "again", Asking(limit=3)
    )
    assert again is not None
    answers = {row["llavakit_question"]: row["text"] for row in read_marked(out, "own")}
    assert answers == again.answers and records[-1]["scores"] == {"own": again.marked.score}
    assert "Benchmark own" in scored.report.read_text()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"benchmarks": ["nonsense"]}, "no benchmark named 'nonsense'"),
        ({"benchmarks": ["own"], "data": "nowhere"}, "nowhere is no folder"),
        ({"benchmarks": ["llava_bench_coco"]}, "marked by a judge"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_run_begins(
    tmp_path: Path, parts: dict[str, str], data: Path, wanted: dict[str, Any], told: str
) -> None:
    recipe = make_recipe(parts, data, evaluate=wanted)
    with pytest.raises(LlavakitError, match=told):
        training.run(recipe, tmp_path / "run", evaluator=Evaluation())
    with pytest.raises(LlavakitError, match="nobody does it"):
        training.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Stopping:
    """An evaluator in whose middle the user presses Ctrl-C, the first time."""

    def __init__(self) -> None:
        self.asked = 0

    def check(self, wanted: Evaluate) -> None:
        pass

    def score(
        self, model: Llava, wanted: Evaluate, who: str, out: Path, progress: Callable[[str, int, int], None]
    ) -> dict[str, float]:
        self.asked += 1
        progress("own", 0, 2)
        if self.asked == 1:
            signal.raise_signal(signal.SIGINT)
        progress("own", 1, 2)
        return {"own": float("nan")}


def test_a_run_stops_in_the_middle_of_an_evaluation_and_goes_on(
    tmp_path: Path, parts: dict[str, str], data: Path, asked: Path
) -> None:
    common: dict[str, Any] = {"schedule": {"max_steps": 4}}
    wanted = {"benchmarks": ["own"], "data": str(asked), "every": 2}
    recipe = make_recipe(parts, data, evaluate=wanted, **common)
    told: list[events.Event] = []
    evaluator = Stopping()
    with pytest.raises(training.Interrupted):
        training.run(recipe, tmp_path / "run", told.append, evaluator=evaluator)
    gone_on = training.run(recipe, tmp_path / "run", told.append, resume=True, evaluator=evaluator)
    notices = [event.sentence for event in told if isinstance(event, events.Notice)]
    assert notices[0] == "the evaluation after step 2 was left, since the run is to stop"
    assert notices[1].startswith("step 4: own has no score"), "an undefined score is told, not logged"
    assert not any("scores" in record for record in read_metrics(gone_on.folder / "metrics.jsonl"))
    plain = training.run(make_recipe(parts, data, **common), tmp_path / "plain")
    for one, other in zip(weights(plain), weights(gone_on), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
