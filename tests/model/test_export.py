"""`llavakit export` from outside, and what its verification sees."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from llavakit.checkpoints.files import WEIGHTS
from llavakit.cli.export import export_command
from llavakit.errors import LlavakitError
from llavakit.images.geometry import ImagePolicy
from llavakit.model.llava import Llava
from llavakit.model.parity import SHAPES, Comparison, compare_reopened, compare_stock

app = typer.Typer()
app.command()(export_command)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def source(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "source"
    policy = ImagePolicy("anyres", several="anyres")
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy=policy)
    model.save_pretrained(folder, dtype=torch.bfloat16)
    return folder


def test_to_the_original_and_back_to_transformers_nothing_changes(source, parts, tmp_path):
    there = run(source, tmp_path / "there", "--to", "original", "--verify", "--tower-name", parts["clip"])
    assert there.exit_code == 0, there.output
    assert f"largest difference of a logit 0 over {len(SHAPES) + 1} prompts" in there.output
    back = run(tmp_path / "there", tmp_path / "back", "--to", "hf", "--verify")
    assert back.exit_code == 0, back.output
    assert "reopened by llavakit" in back.output and "stock LlavaNextForConditionalGeneration" in back.output
    before, after = load_file(source / WEIGHTS), load_file(tmp_path / "back" / WEIGHTS)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_to_gguf_the_notes_are_shown_and_what_does_not_fit_is_refused(parts, tmp_path):
    for tower in ("siglip", "clip"):
        model = Llava.compose(vision_tower=parts[tower], language_model=parts["llama"], image_policy="square")
        model.save_pretrained(tmp_path / tower)
    told = run(tmp_path / "siglip", tmp_path / "there", "--to", "gguf", "--outtype", "f32")
    assert told.exit_code == 0, told.output
    assert "note: llama.cpp puts no line break" in told.output
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        "there-mmproj.gguf",
        "there-text.gguf",
    ]
    for arguments, words in (
        ((tmp_path / "clip", tmp_path / "no", "--to", "gguf"), "CLIP"),
        ((tmp_path / "siglip", tmp_path / "no", "--to", "gguf", "--verify"), "nothing here reads gguf"),
        (
            (tmp_path / "siglip", tmp_path / "no", "--to", "hf", "--outtype", "f16"),
            "--outtype is f16, but this form",
        ),
        ((tmp_path / "siglip", tmp_path / "no", "--to", "gguf", "--tower-name", "x"), "--tower-name is x"),
    ):
        refused = run(*arguments)
        assert isinstance(refused.exception, LlavakitError) and words in str(refused.exception)
    assert not (tmp_path / "no").exists()
    forced = run(tmp_path / "clip", tmp_path / "forced", "--to", "gguf", "--despite-clip")
    assert forced.exit_code == 0 and "note:" in forced.output


@pytest.mark.parametrize("part", ["model.mm_projector.2.bias", "model.image_newline", "model.norm.weight"])
def test_a_changed_weight_is_seen(source, tmp_path, part):
    run(source, tmp_path / "there", "--to", "original")
    model = Llava.from_pretrained(tmp_path / "there")
    tensors = load_file(tmp_path / "there" / WEIGHTS)
    tensors[part] = tensors[part] + 0.05
    save_file(tensors, tmp_path / "there" / WEIGHTS)
    found = compare_reopened(model, tmp_path / "there")
    assert 1e-3 < found.difference < math.inf
    assert part == "model.norm.weight" or "picture" in found.worst


def test_a_changed_weight_is_seen_by_stock_transformers_and_fails_the_command(source, tmp_path, monkeypatch):
    model = Llava.from_pretrained(source)
    run(source, tmp_path / "there", "--to", "hf")
    assert compare_stock(model, tmp_path / "there").difference <= 1e-4
    tensors = load_file(tmp_path / "there" / WEIGHTS)
    tensors["image_newline"] = tensors["image_newline"] + 1
    save_file(tensors, tmp_path / "there" / WEIGHTS, metadata={"format": "pt"})
    found = compare_stock(model, tmp_path / "there")
    assert 1e-3 < found.difference < math.inf and "picture" in found.worst
    worse = Comparison("stock", 2e-4, 1, "text alone")
    monkeypatch.setattr("llavakit.model.exporting.compare_stock", lambda *_: worse)
    failing = run(source, tmp_path / "other", "--to", "hf", "--verify")
    assert (
        failing.exit_code,
        "0.0002 over 1 prompts, at text alone (more than 0.0001)" in failing.output,
    ) == (1, True)
    assert run(source, tmp_path / "third", "--to", "hf", "--verify", "--tolerance", 1e-3).exit_code == 0


def test_another_template_makes_other_prompts(source, tmp_path):
    run(source, tmp_path / "there", "--to", "original", "--template", "v0")
    assert Llava.from_pretrained(tmp_path / "there").settings.template == "v0"
    assert compare_reopened(Llava.from_pretrained(source), tmp_path / "there").difference == math.inf


def test_mistakes_are_sentences_and_nothing_is_written(source, parts, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    three = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], projector="mlp3x_gelu")
    three.save_pretrained(tmp_path / "three")
    fused = Llava.compose(vision_tower=[parts["clip"], parts["siglip"]], language_model=parts["llama"])
    fused.save_pretrained(tmp_path / "fused")
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, words in [
        (
            (source, tmp_path / "x", "--to", "onnx"),
            "no form 'onnx' to export to; expected one of hf, original",
        ),
        ((source, tmp_path / "full", "--to", "hf"), "something is there; give another target, or --force"),
        (
            (tmp_path / "three", tmp_path / "x", "--to", "hf"),
            "cannot express this model: its projector is mlp3x_gelu",
        ),
        ((tmp_path / "fused", tmp_path / "x", "--to", "original"), "it has several vision towers"),
        ((source, tmp_path / "x", "--to", "hf", "--tower-name", "y"), "this form has no place for it"),
        (
            (source, tmp_path / "x", "--to", "hf", "--base", "y"),
            "base is y, but this folder holds every part",
        ),
        ((tmp_path / "nowhere", tmp_path / "x", "--to", "hf"), "no such checkpoint folder"),
    ]:
        error = run(*arguments).exception
        assert isinstance(error, LlavakitError) and words in str(error), words
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "full" / "file").read_text() == "precious"
    assert run(source, tmp_path / "full", "--to", "hf", "--force").exit_code == 0
    assert not (tmp_path / "full" / "file").exists()
