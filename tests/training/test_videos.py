"""A run on short videos: they are trained on by frames, the run says of how many, and the model keeps how."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from rich.console import Console

from llavakit import training
from llavakit.cli.training_view import TrainingView
from llavakit.model.llava import Llava
from llavakit.training import events
from tests.training.materials import make_recipe, write_rows


def test_a_run_on_videos_says_what_it_shows_of_them(tmp_path: Path, parts: dict[str, str]) -> None:
    frames = [Image.new("RGB", (20, 12), (20 * n, 90, 9)) for n in range(10)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    said = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "It turns red."}]
    rows = [{"id": n, "video": "clip.gif", "conversations": said} for n in range(3)]
    data = write_rows(tmp_path / "rows.json", rows)
    recipe = make_recipe(parts, data, video={"frames": 4}, schedule={"max_steps": 1})
    told: list[events.Event] = []
    result = training.run(recipe, tmp_path / "run", told.append)
    started = [event for event in told if isinstance(event, events.StageStarted)]
    assert [(one.videos, one.frames, one.frames_found) for one in started] == [(3, 12, 30)] * 2
    page = io.StringIO()
    with TrainingView(Console(file=page, width=200)) as view:
        view(started[0])
    assert "3 videos (12 of their 30 frames shown)" in page.getvalue()
    assert "Of its 3 videos, 12 of 30 frames are shown." in (result.folder / "report.html").read_text()
    model = Llava.from_pretrained(result.checkpoints[-1])
    assert model.settings.image_policy.frames == 4
    assert isinstance(model.chat("What?", videos=[tmp_path / "clip.gif"], max_new_tokens=2), str)
