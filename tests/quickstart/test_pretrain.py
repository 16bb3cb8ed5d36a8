"""The stand-ins: what they are taught from, that they load as ordinary models, and that the shipped ones are small."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from llavakit.errors import LlavakitError
from llavakit.quickstart import dialogues
from llavakit.quickstart import pretrain_language_model as language
from llavakit.quickstart import pretrain_tower as tower
from llavakit.quickstart.pretrain import MOST_BYTES, pretrain
from llavakit.quickstart.scenes import Thing, held_out, scenes
from llavakit.recipe import resolve_source

SMALL_TOWER = tower.TowerTraining(steps=2, pictures=4, width=32, layers=2, heads=2)
SMALL_LANGUAGE = language.LanguageTraining(
    steps=2, dialogues=2, turns=3, width=32, layers=2, heads=2, inner=64, early_layer=1
)


def test_pretraining_writes_models_that_transformers_opens_and_overwrites_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    made = pretrain(tmp_path / "weights", SMALL_TOWER, SMALL_LANGUAGE, said.append)
    assert made["bytes"] == sum(p.stat().st_size for p in tmp_path.glob("weights/*/model.safetensors"))
    assert any("tower step" in line for line in said) and any("language step" in line for line in said)
    CLIPVisionModel.from_pretrained(tmp_path / "weights" / "vision_tower")
    AutoModelForCausalLM.from_pretrained(tmp_path / "weights" / "language_model")
    with pytest.raises(LlavakitError, match="is not empty; choose another folder"):
        pretrain(tmp_path / "weights", SMALL_TOWER, SMALL_LANGUAGE, said.append)


def test_words_hold_at_the_cell_of_a_things_centre_and_nowhere_else() -> None:
    for scene, _ in scenes("cells", 50):
        targets_PK = tower.word_targets(scene)
        cells = dialogues.word_map(scene.things)
        assert set(targets_PK.sum(-1).nonzero().flatten().tolist()) == set(cells)
        for cell, words in cells.items():
            assert {tower.WORDS[k] for k in targets_PK[cell].nonzero().flatten().tolist()} == set(words)


def test_settling_a_tower_changes_the_size_of_its_features_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = tower.CLIPVisionModel(tower.tower_config(SMALL_TOWER)).eval()
    for name, parameter in model.named_parameters():
        if "fc2" in name or "out_proj" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    pixels_NCHW, _ = next(tower.batches(SMALL_TOWER))
    with torch.no_grad():
        before = model(pixels_NCHW, output_hidden_states=True)
        tower.settle(model, tower.batches(SMALL_TOWER))
        after = model(pixels_NCHW, output_hidden_states=True)
    assert after.hidden_states[-2].std() == pytest.approx(1.0, rel=1e-3)
    scaled = before.hidden_states[-2] / before.hidden_states[-2].std()
    torch.testing.assert_close(after.hidden_states[-2], scaled, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        tower.post_norm(model)(after.last_hidden_state), tower.post_norm(model)(before.last_hidden_state),
        atol=2e-3, rtol=1e-3,
    )  # fmt: skip


def test_a_dialogue_supervises_answers_and_their_ends_and_nothing_else() -> None:
    tokenizer = dialogues.train_tokenizer(SMALL_LANGUAGE.seed, SMALL_LANGUAGE.turns)
    for batch in language.batches(SMALL_LANGUAGE, tokenizer):
        for ids, labels in zip(batch.ids_BT.tolist(), batch.labels_BT.tolist(), strict=True):
            written, learnt = (
                tokenizer.decode(ids),
                tokenizer.decode([label for label in labels if label >= 0]),
            )
            turns = [turn.split(dialogues.ASSISTANT)[1] for turn in written.split(dialogues.USER)[1:]]
            answers = [turn.split(dialogues.END)[0] + dialogues.END for turn in turns]
            assert learnt == "".join(answers)


def test_a_crowd_holds_no_held_out_pair_and_at_most_four_of_a_name() -> None:
    rng = random.Random(5)
    for _ in range(200):
        things = dialogues.crowd(rng)
        assert len(dialogues.word_map(things)) == len(things)
        assert not any(held_out(thing.name, thing.colour) for thing in things)
        assert max(Counter(thing.name for thing in things).values()) <= 4


def test_what_is_asked_early_is_what_is_true_of_the_name() -> None:
    tokenizer = dialogues.train_tokenizer(SMALL_LANGUAGE.seed, SMALL_LANGUAGE.turns)
    cats = [Thing("cat", "red", "small", (0, 0, 20, 20)), Thing("cat", "blue", "small", (70, 0, 20, 20))]
    batch = dialogues.batch_of(
        [(cats, [("How many cats are there?", "two"), ("Is there a key?", "No")])], tokenizer
    )
    said = [tokenizer.decode(batch.ids_BT[row, place]) for row, place in batch.named_N2.tolist()]
    true = [
        {fact for fact, holds in zip(dialogues.FACTS, row, strict=True) if holds}
        for row in batch.facts_NF.tolist()
    ]
    assert said == [" cats", " key"]
    assert true == [{"red", "blue", "small", "top", "left", "right", 2}, {0}]


def test_a_cell_is_the_sum_of_its_words() -> None:
    tokenizer = dialogues.train_tokenizer(SMALL_LANGUAGE.seed, SMALL_LANGUAGE.turns)
    model = language.LlamaForCausalLM(language.language_config(SMALL_LANGUAGE, tokenizer))
    batch = next(language.batches(SMALL_LANGUAGE, tokenizer))
    embeddings_BTD = language.embed(model, batch)
    table = model.get_input_embeddings().weight
    pad = tokenizer.convert_tokens_to_ids(dialogues.PAD)
    for row in range(2):
        for cell in range(dialogues.CELLS):
            words = [word for word in batch.words_BPW[row, cell].tolist() if word != pad]
            torch.testing.assert_close(embeddings_BTD[row, 1 + cell], table[words].sum(0))
    torch.testing.assert_close(embeddings_BTD[:, 37:], table[batch.ids_BT[:, 37:]])


def test_the_shipped_stand_ins_load_and_hold_at_most_eight_megabytes() -> None:
    folders = [
        Path(resolve_source(f"package:llavakit/quickstart/weights/{part}"))
        for part in ("vision_tower", "language_model")
    ]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) <= MOST_BYTES
    model = CLIPVisionModel.from_pretrained(folders[0], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    assert (
        tokenizer.decode(tokenizer("What colour is the cat? ✓")["input_ids"]) == "What colour is the cat? ✓"
    )
    AutoModelForCausalLM.from_pretrained(folders[1])
    plan = tower.TowerTraining(pictures=16)
    assert not any(held_out(t.name, t.colour) for s, _ in scenes("none", 20) for t in s.things)
    with torch.no_grad():
        features_NPV = model(next(tower.batches(plan))[0], output_hidden_states=True).hidden_states[-2]
    assert features_NPV.std() == pytest.approx(1.0, rel=0.1)
