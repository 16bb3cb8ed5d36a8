"""The packaged recipes of published models hold the published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from llavakit.conversation.templates import get_template, template_names
from llavakit.images.geometry import V16_GRIDS, ImagePolicy, TowerGeometry, token_count
from llavakit.model.projectors import build_projector
from llavakit.recipe import LearningRates, Lora, load_recipe, packaged_recipes

CLIP_224 = TowerGeometry(224, 14)
CLIP_336 = TowerGeometry(336, 14)
CAPTION = 1 + 15  # BOS, and a caption with its newline


@dataclass(frozen=True)
class Published:
    """A stage as it was published: batches in samples; `length` is what the recipe supposes of an average sample."""

    rates: dict[str, float]
    samples: int
    length: int
    epochs: float = 1
    template: str = "vicuna_v1"
    policy: str = "pad"
    order: str = "first"
    max_length: int = 2048
    lora: Lora | None = None


@dataclass(frozen=True)
class Model:
    """The parts by hub name, or the checkpoint that a recipe begins with."""

    vision_tower: str = ""
    language_model: str = ""
    projector: str = "mlp2x_gelu"
    checkpoint: str | None = None
    stages: list[Published] = field(default_factory=list)


def v1_align() -> Published:
    return Published({"projector": 2e-3}, 128, 256 + CAPTION, template="plain", policy="square")


def v1(language_model: str, tune: Published) -> Model:
    return Model("openai/clip-vit-large-patch14", language_model, "linear", stages=[v1_align(), tune])


def v1_tune() -> Published:
    return Published(
        {"projector": 2e-5, "language_model": 2e-5}, 32, 512, epochs=3, policy="square", order="random"
    )


def v15_tune(lora: bool) -> Published:
    rates = {"projector": 2e-5, "language_model": 2e-4 if lora else 2e-5}
    return Published(rates, 128, 576 + 448, lora=Lora(rank=128, alpha=256, dropout=0.05) if lora else None)


def v15(size: int, lora: bool = False) -> Model:
    align = Published({"projector": 1e-3}, 256, 576 + CAPTION, template="plain", policy="square")
    parts = ("openai/clip-vit-large-patch14-336", f"lmsys/vicuna-{size}b-v1.5")
    return Model(*parts, stages=[align, v15_tune(lora)])


def v16(language_model: str, template: str) -> Model:
    picture = token_count(ImagePolicy("anyres"), CLIP_336, 640, 480)
    common: dict[str, Any] = {"policy": "anyres", "max_length": 4096}
    align = Published({"projector": 1e-3}, 256, picture + CAPTION, template="plain", **common)
    rates = {"vision_tower": 2e-6, "projector": 2e-5, "newline": 2e-5, "language_model": 2e-5}
    tune = Published(rates, 128, picture + 448, template=template, **common)
    return Model("openai/clip-vit-large-patch14-336", language_model, stages=[align, tune])


def task(lora: bool) -> Model:
    return Model(checkpoint="llava-hf/llava-1.5-13b-hf", stages=[v15_tune(lora)])


PUBLISHED = {
    "llava-v1-7b": v1("lmsys/vicuna-7b-v1.3", v1_tune()),
    "llava-v1-13b": v1("lmsys/vicuna-13b-v1.3", v1_tune()),
    "llava-v1.5-7b": v15(7),
    "llava-v1.5-13b": v15(13),
    "llava-v1.5-7b-lora": v15(7, lora=True),
    "llava-v1.5-13b-lora": v15(13, lora=True),
    "llava-v1.5-13b-task": task(lora=False),
    "llava-v1.5-13b-task-lora": task(lora=True),
    "llava-v1.6-vicuna-7b": v16("lmsys/vicuna-7b-v1.5", "vicuna_v1"),
    "llava-v1.6-vicuna-13b": v16("lmsys/vicuna-13b-v1.5", "vicuna_v1"),
    "llava-v1.6-mistral-7b": v16("mistralai/Mistral-7B-Instruct-v0.2", "mistral"),
    "llava-v1.6-34b": v16("NousResearch/Nous-Hermes-2-Yi-34B", "chatml_direct"),
    "scienceqa-13b": v1(
        "lmsys/vicuna-13b-v1.3",
        Published({"projector": 2e-5, "language_model": 2e-5}, 128, 128 + 256, epochs=12, policy="square"),
    ),
}
OF_THE_PROJECT = {"quickstart", "smollm2-135m"}


def test_every_packaged_recipe_is_in_the_table_or_the_projects_own() -> None:
    assert set(packaged_recipes()) == PUBLISHED.keys() | OF_THE_PROJECT


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parts_are_those_that_were_published(name: str) -> None:
    model, published = load_recipe(name).model, PUBLISHED[name]
    found = (model.vision_tower, model.language_model, model.projector, model.checkpoint)
    expected = (published.vision_tower, published.language_model, published.projector, published.checkpoint)
    assert found == expected
    assert (model.vision_feature_layer, model.vision_feature_select, model.precision) == (
        -2,
        "patch",
        "bfloat16",
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_stages_hold_the_published_figures(name: str) -> None:
    stages = load_recipe(name).stages
    for stage, published in zip(stages, PUBLISHED[name].stages, strict=True):
        assert stage.learning_rate == LearningRates(**published.rates)
        assert (stage.template, stage.image_policy) == (published.template, published.policy)
        assert (stage.picture_order, stage.max_length) == (published.order, published.max_length)
        assert stage.lora == published.lora
        schedule = stage.schedule
        assert (schedule.epochs, schedule.warmup_ratio, schedule.kind) == (published.epochs, 0.03, "cosine")
        assert (schedule.max_steps, stage.weight_decay, stage.adam_betas) == (None, 0, (0.9, 0.999))
        assert tuple(stage.anyres.grids) == V16_GRIDS and stage.anyres.merge == "spatial_unpad"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_batch_in_tokens_is_the_published_samples_times_their_length_in_whole_packs(name: str) -> None:
    for stage, published in zip(load_recipe(name).stages, PUBLISHED[name].stages, strict=True):
        tokens = published.samples * published.length
        assert 0 <= stage.batch.tokens - tokens < stage.batch.pack
        assert stage.batch.tokens % stage.batch.pack == 0
        assert published.length <= stage.max_length <= stage.batch.pack


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_name_in_a_packaged_recipe_is_known(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    build_projector(recipe.model.projector, 4, 8, CLIP_336.side)
    for stage in recipe.stages:
        assert stage.template in template_names()
        if stage.template != "tokenizer":
            assert get_template(stage.template).name == stage.template


def test_the_comments_count_a_picture_as_llavakit_does() -> None:
    assert token_count(ImagePolicy("square"), CLIP_224, 640, 480) == 256
    assert token_count(ImagePolicy("pad"), CLIP_336, 640, 480) == 576
    assert token_count(ImagePolicy("anyres"), CLIP_336, 640, 480) == 2340
    assert token_count(ImagePolicy("anyres"), CLIP_336, 1024, 768) == 2340
    assert token_count(ImagePolicy("anyres"), CLIP_336, 1024, 1024) == 2928
