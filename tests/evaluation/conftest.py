"""A small model made of the quickstart's stand-ins, and a benchmark of pictures in two sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from llavakit.model.llava import Llava

WEIGHTS = "package:llavakit/quickstart/weights"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained joint of the stand-ins, saved: its answers are words without sense, and always the same."""
    folder = tmp_path_factory.mktemp("model")
    model = Llava.compose(
        vision_tower=f"{WEIGHTS}/vision_tower",
        language_model=f"{WEIGHTS}/language_model",
        image_policy="square",
        template="tokenizer",
    )
    model.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Llava:
    return Llava.from_pretrained(model_folder)


@pytest.fixture
def seed_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SEED-Bench of twelve questions about six pictures, two questions a picture."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    pictures = tmp_path / "data" / "SEED-Bench-image"
    pictures.mkdir(parents=True)
    rows = []
    for number in range(12):
        name = f"p{number // 2}"
        Image.effect_noise((40, 40 + number // 6), 20 + 30 * (number // 2)).convert("RGB").save(
            pictures / name, "PNG"
        )
        rows.append(
            {
                "question_id": str(number),
                "question_type_id": 1 + number % 2,
                "data_type": "image",
                "data_id": name,
                "question": "what colour is the " + ("circle" if number % 3 else "large square"),
                "answer": "ABCD"[number % 4],
                **{f"choice_{letter}": text for letter, text in zip("abcd", ("red", "blue", "green", "yellow"), strict=True)},
            }
        )  # fmt: skip
    (tmp_path / "data" / "SEED-Bench.json").write_text(json.dumps({"questions": rows, "question_type": {}}))
    return tmp_path / "data"
