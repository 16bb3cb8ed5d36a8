"""Rates, groups, precision and gradients of a stage."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.model.llava import Llava
from llavakit.recipe import Stage
from llavakit.training.optimizer import (
    Precision,
    divide_and_clip,
    kept_tensors,
    make_learner,
    prepare_parts,
    schedule_factor,
)

CPU32 = Precision(torch.device("cpu"), None)
CPU16 = Precision(torch.device("cpu"), torch.bfloat16)


def stage(**changes: object) -> Stage:
    return Stage.model_validate(
        {
            "name": "s",
            "data": [{"path": "x.json"}],
            "template": "plain",
            "learning_rate": {"projector": 1e-3, "language_model": 2e-5},
            "batch": {"tokens": 2048, "pack": 2048},
            **changes,
        }
    )


@pytest.fixture
def model(parts: dict[str, str]) -> Llava:
    return Llava.compose(**parts)


def test_a_part_without_a_rate_is_frozen_and_out_of_the_optimizer(model: Llava) -> None:
    prepare_parts(model, stage(), CPU32)
    learner = make_learner(model, stage())
    assert not any(p.requires_grad for p in model.vision_tower.parameters())
    assert all(p.requires_grad for p in model.language_model.parameters())
    assert not model.vision_tower.training and model.projector.training
    assert not any(name.startswith("vision_tower") for name in learner.names)
    trained = {id(p) for part in (model.projector, model.language_model) for p in part.parameters()}
    held = [p for group in learner.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == trained and len(held) == len(trained) == len(learner.names)


def test_weight_decay_is_for_matrices_only(model: Llava) -> None:
    learner = make_learner(model, stage(weight_decay=0.1))
    for group in learner.optimizer.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_every_part_follows_its_own_rate(model: Llava) -> None:
    learner = make_learner(model, stage())
    assert learner.set_rates(0.5) == {"projector": 5e-4, "language_model": 1e-5}
    assert {(g["part"], g["lr"]) for g in learner.optimizer.param_groups} == {
        ("projector", 5e-4),
        ("language_model", 1e-5),
    }


def test_names_and_parameters_of_the_optimizer_go_together(model: Llava) -> None:
    learner = make_learner(model, stage())
    own = dict(kept_tensors(model, ("projector", "language_model")))
    held = [p for group in learner.optimizer.param_groups for p in group["params"]]
    for name, parameter in zip(learner.names, held, strict=True):
        assert own[name].data_ptr() == parameter.data_ptr()


def test_frozen_parts_become_bfloat16_only_where_nothing_is_lost(model: Llava) -> None:
    exact = {name: p.detach().clone() for name, p in model.vision_tower.named_parameters()}
    prepare_parts(model, stage(), CPU16)
    assert all(torch.equal(p, exact[name]) for name, p in model.vision_tower.named_parameters())
    for parameter in model.vision_tower.parameters():
        parameter.data = parameter.data.bfloat16().float()
    prepare_parts(model, stage(), CPU16)
    assert {p.dtype for p in model.vision_tower.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.language_model.parameters()} == {torch.float32}
    buffers = [b for b in model.language_model.buffers() if b.is_floating_point()]
    assert buffers and {b.dtype for b in buffers} == {torch.float32}
    prepare_parts(model, stage(learning_rate={"vision_tower": 1e-5}), CPU32)
    assert {p.dtype for p in model.vision_tower.parameters()} == {torch.float32}


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 0.9), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_then_falls_and_never_is_zero_or_above_its_peak(
    steps: int, warmup: float, kind: str
) -> None:
    factors = [schedule_factor(step, steps, warmup, kind) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    rising = math.ceil(warmup * steps)
    assert factors[:rising] == sorted(factors[:rising])
    assert factors[rising:] == sorted(factors[rising:], reverse=True)
    assert max(factors) == 1.0


def test_the_cosine_is_llavas() -> None:
    """transformers' `get_cosine_schedule_with_warmup`, whose warm-up however begins at zero."""
    factors = [schedule_factor(step, 100, 0.03, "cosine") for step in range(100)]
    assert factors[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert factors[3 + 48] == pytest.approx(0.5 * (1 + math.cos(math.pi * 48 / 97)))


def test_gradients_are_divided_then_clipped() -> None:
    gradients = [torch.tensor([30.0, 0.0]), torch.tensor([[40.0]])]
    assert divide_and_clip(gradients, 10, None) == pytest.approx(5.0)
    assert gradients[0].tolist() == [3.0, 0.0]
    assert divide_and_clip(gradients, 1, 1.0) == pytest.approx(5.0)
    assert gradients[0].tolist() == pytest.approx([0.6, 0.0]) and gradients[1].item() == pytest.approx(0.8)
    assert divide_and_clip([], 3, 1.0) == 0.0
