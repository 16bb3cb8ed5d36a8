"""Answers do not depend on what is computed beside them, and greedy ones are those of stock transformers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoProcessor,
    DynamicCache,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
)

from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from llavakit.errors import LlavakitError
from llavakit.model.generation import (
    Request,
    decode_one,
    generate,
    prompt_embeddings,
    stream,
)
from llavakit.model.llava import Llava
from llavakit.model.packed import IMAGE_TOKEN_ID
from llavakit.model.reuse import PictureFeatures, PromptHeads, Shelf
from llavakit.model.sampling import Sampling
from llavakit.model.stops import Stopping

from .conftest import PATCHES, item, tile
from .test_anyres import ANYRES, noise, written


def request(seed: int, pictures: int = 0, length: int = 12, first: int | None = None) -> Request:
    tiles = [tile((seed if first is None else first) + number) for number in range(pictures)]
    return Request(item(seed, pictures, length), tiles)


def mixed() -> list[Request]:
    """Prompts of three lengths, with no, one and two pictures, some pictures shared."""
    return [
        request(1, 1),
        request(2),
        request(3, 1),
        request(4, 2),
        request(5),
        request(6, 1, first=1),
        request(7, 1, 9),
    ]


def written_ids(model: Llava, one: Request, tokens: int, **sampling) -> list[int]:
    ids: list[int] = []
    embeddings = prompt_embeddings(model, [one], PictureFeatures(model))
    list(decode_one(model, embeddings, DynamicCache(), Sampling(**sampling), Stopping(model), tokens, ids))
    return ids


@pytest.mark.parametrize(
    ("tower", "language_model"), [("clip", "llama"), ("siglip", "qwen"), ("clip", "mistral")]
)
def test_greedy_ids_are_those_of_stock_generate_on_the_saved_folder(parts, tmp_path, tower, language_model):
    model = Llava.compose(vision_tower=parts[tower], language_model=parts[language_model])
    model.save_pretrained(tmp_path / "saved")
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    lengths = []
    for one in mixed():
        ids = torch.tensor([one.prompt.ids])
        ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, stock.config.image_token_id)
        pixels = (
            {"pixel_values": torch.cat([shown.tiles_NCHW for shown in one.pictures])} if one.pictures else {}
        )
        new = stock.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, **pixels
        )
        expected = new[0, ids.shape[1] :].tolist()
        assert written_ids(model, one, 24) == expected
        assert generate(model, [one], max_new_tokens=24) == [Stopping(model).text(expected)]
        lengths.append(len(expected))
    assert max(lengths) == 24


@pytest.mark.parametrize(("tower", "language_model"), [("clip", "llama"), ("siglip", "qwen")])
def test_greedy_ids_about_tiled_pictures_are_those_of_stock_generate(parts, tmp_path, tower, language_model):
    """One, two and three pictures under anyres, their pixels made by the stock processor from the same pictures."""
    model = Llava.compose(
        vision_tower=parts[tower], language_model=parts[language_model], image_policy=ANYRES
    )
    model.save_pretrained(tmp_path / "saved")
    stock = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "saved").image_processor
    sizes = [[(64, 48)], [(20, 90), (30, 30)], [(57, 55), (28, 84), (10, 20)]]
    different = set()
    for shown in sizes:
        pictures = [noise(*size) for size in shown]
        prompt, _ = written(model, pictures, "What is this?")
        ids = torch.tensor([prompt.ids])
        ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, stock.config.image_token_id)
        made = processor(images=pictures, return_tensors="pt")
        new = stock.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.as_tensor(made["pixel_values"]),
            image_sizes=torch.as_tensor(made["image_sizes"]),
            max_new_tokens=20,
            do_sample=False,
        )
        expected = new[0, ids.shape[1] :].tolist()
        assert written_ids(model, Request(prompt, pictures), 20) == expected
        assert generate(model, [Request(prompt, pictures)], max_new_tokens=20) == [
            Stopping(model).text(expected)
        ]
        different.add(tuple(expected))
    assert len(different) == len(sizes)


@pytest.mark.parametrize("count", [2, 3])
def test_greedy_ids_about_several_pictures_in_one_turn_and_over_turns_are_those_of_stock(
    parts, tmp_path, count
):
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"])
    model.save_pretrained(tmp_path / "saved")
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    pictures = [noise(30 + 7 * number, 40) for number in range(count)]
    turns = [Turn("user", (Picture(0), Picture(1), Text("\nWhich?"))), Turn("assistant", (Text("Two."),))]
    turns.append(Turn("user", (*(Picture(n) for n in range(2, count)), Text("\nWhat is this?"))))
    asked = Conversation("a", "test", tuple("abc"[:count]), tuple(turns))
    template = get_template("vicuna_v1", model.tokenizer)
    prompt = encode(asked, template, model.tokenizer, [PATCHES] * count, prompt=True)
    ids = torch.tensor([prompt.ids])
    ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, stock.config.image_token_id)
    pixels = AutoProcessor.from_pretrained(tmp_path / "saved").image_processor(pictures, return_tensors="pt")
    new = stock.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.as_tensor(pixels["pixel_values"]),
        max_new_tokens=20,
        do_sample=False,
    )
    assert written_ids(model, Request(prompt, pictures), 20) == new[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_is_the_same_alone_in_a_batch_and_streamed(llava, temperature):
    requests = mixed() * 2
    settings = {"max_new_tokens": 16, "temperature": temperature, "top_p": 0.9, "seed": 3}
    together = generate(llava, requests, **settings)
    assert generate(llava, requests, batch_rows=1, **settings) == together
    assert generate(llava, requests, batch_tokens=40, **settings) == together
    assert "".join(stream(llava, requests[0], **settings)) == together[0]
    assert len(set(together)) > 3


def test_rows_whose_answer_is_over_leave_and_the_others_go_on(llava, monkeypatch):
    left = []
    select = DynamicCache.batch_select_indices

    def counted(self, rows):
        left.append(len(rows))
        return select(self, rows)

    monkeypatch.setattr(DynamicCache, "batch_select_indices", counted)
    llava.language_model.generation_config.eos_token_id = list(range(0, llava.vocabulary, 5))
    requests = [request(seed, 1) for seed in range(10, 26)]
    together = generate(llava, requests, max_new_tokens=16)
    assert len(left) >= 2 and left == sorted(left, reverse=True)
    assert [generate(llava, [one], max_new_tokens=16)[0] for one in requests] == together


def test_answers_are_told_as_they_are_done_and_returned_in_order(llava):
    told: dict[int, str] = {}
    answers = generate(llava, mixed(), max_new_tokens=8, on_answer=told.__setitem__)
    assert [told[place] for place in range(len(answers))] == answers


def test_a_picture_goes_through_the_tower_once(llava):
    seen = Counter()
    run = llava.vision_tower.forward

    def counted(pixel_values, **kwargs):
        seen.update(float(picture.sum()) for picture in pixel_values)
        return run(pixel_values, **kwargs)

    llava.vision_tower.forward = counted
    requests = [request(1, 1), request(2, 1, first=1), request(3, 1, 9, first=1), request(4, 2)]
    generate(llava, requests, max_new_tokens=2)
    assert sorted(seen.values()) == [1, 1, 1]


def test_pictures_of_equal_pixels_are_one_and_a_full_store_lets_the_longest_unused_go(llava):
    red, blue = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    features = PictureFeatures(llava)
    assert features.key(red, 1) == features.key(red.copy(), 1) != features.key(blue, 1)
    assert features.key(tile(1), 1) == features.key(tile(1), 1) != features.key(tile(2), 1)
    first, second, again = features([[red, blue, red.copy()]])
    assert torch.equal(first, again) and not torch.equal(first, second)
    none_kept = PictureFeatures(llava, room=1)([[red, blue]])
    assert torch.equal(none_kept[0], first) and torch.equal(none_kept[1], second)


@settings(deadline=None)
@given(uses=st.lists(st.integers(0, 5), max_size=30), room=st.integers(0, 5))
def test_a_shelf_keeps_the_last_used_that_fit(uses, room):
    shelf: Shelf[int] = Shelf(room * 4)
    last: list[int] = []
    for key in uses:
        kept = shelf.get(key)
        assert (kept is not None) == (key in last)
        if kept is None:
            shelf.keep(key, [torch.tensor([float(key)])])
        last = [*(other for other in last if other != key), key]
        last = last[max(len(last) - room, 0) :]


def test_the_prompt_up_to_the_picture_is_read_once(llava, monkeypatch):
    fed = []
    run = llava.language_model.base_model.forward

    def counted(*, inputs_embeds, **kwargs):
        fed.append(inputs_embeds.shape[0] * inputs_embeds.shape[1])
        return run(inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(llava.language_model.base_model, "forward", counted)
    requests = []
    for length in (8, 8, 13, 20):
        text = item(length, 1, length)
        same_head = replace(text, ids=item(1, 1).ids[: 2 + PATCHES] + text.ids[2 + PATCHES :])
        requests.append(Request(same_head, [tile(1)]))
    together = generate(llava, requests, max_new_tokens=1, batch_rows=2)
    head = 2 + PATCHES
    rest = [len(one.prompt.ids) - head for one in requests]
    assert sum(fed) == head + 2 * rest[1] + 2 * rest[3], "the head once, of every two the longer's rest"
    monkeypatch.setattr(PromptHeads.__init__, "__defaults__", (0,))
    fed.clear()
    assert generate(llava, requests, max_new_tokens=1, batch_rows=2) == together
    assert sum(fed) == 2 * head + 2 * rest[1] + 2 * rest[3], "the head once for every batch"


def test_generation_leaves_the_model_in_the_mode_it_was_in(llava):
    for mode in (True, False):
        llava.train(mode)
        llava.checkpoint_activations()
        generate(llava, [request(1, 1)], max_new_tokens=3)
        assert llava.training == mode


def test_answers_end_at_stop_ids_and_stop_texts_and_hold_neither(llava):
    one = request(2)
    ids = written_ids(llava, one, 16)
    text = llava.tokenizer.decode(ids, skip_special_tokens=True)
    words = [word for word in text.split() if word.isascii() and word.isalpha()]
    stop = words[-1][1:] + " "
    expected = text[: text.index(stop)].strip()
    assert expected
    assert generate(llava, [one], max_new_tokens=16, stop=[stop]) == [expected]
    assert "".join(stream(llava, one, max_new_tokens=16, stop=[stop])) == expected
    llava.language_model.generation_config.eos_token_id = ids[4]
    assert written_ids(llava, one, 16) == ids[: ids.index(ids[4]) + 1]


def test_sampling_follows_the_probabilities_and_keeps_to_the_likely(llava):
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    draws = torch.linspace(0, 0.9999, 1000)
    picks = Sampling(1.0).choose(logits.expand(1000, -1), draws)
    assert torch.bincount(picks, minlength=4).tolist() == pytest.approx([500, 250, 150, 100], abs=3)
    few = Sampling(1.0, top_p=0.6).choose(logits.expand(1000, -1), draws)
    assert torch.bincount(few, minlength=4).tolist() == pytest.approx([667, 333, 0, 0], abs=3)
    sharp = Sampling(0.25).choose(logits.expand(1000, -1), draws)
    assert torch.bincount(sharp, minlength=4)[0] > 900
    assert int(Sampling(1.0).choose(logits, torch.tensor([1.0]))) == 3
    assert not torch.equal(Sampling(1.0, seed=1).draws(0, 5), Sampling(1.0, seed=2).draws(0, 5))


def test_requests_that_cannot_be_answered_are_named_by_their_place(llava):
    good = request(1, 1)
    for bad, words in [
        (Request(good.prompt, ()), "places 1 pictures but 0"),
        (Request(item(1, 1, features=15), [tile(1)]), "keeps 15 positions for picture 0"),
        (Request(item(1, length=600), ()), "takes 600 positions, the language model has 512"),
    ]:
        with pytest.raises(LlavakitError, match=f"request 1: .*{words}"):
            generate(llava, [good, bad], max_new_tokens=2)
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(LlavakitError, match=next(iter(wrong))):
            generate(llava, [good], **wrong)
