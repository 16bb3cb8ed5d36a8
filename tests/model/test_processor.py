"""Stock transformers prepares a chat from a saved folder as llavakit does: the same ids, the same pixels."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from llavakit.checkpoints.chat_template import chat_template, original_chat_template
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template, template_names
from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, encode
from llavakit.images.pixels import to_tiles
from llavakit.model.llava import Llava

LANGUAGE_MODEL = {"chatml_direct": "qwen", "llama_3": "qwen", "qwen": "qwen", "tokenizer": "qwen"}


def turns_for(template: str, picture: str, rounds: int, system: bool) -> list[Turn]:
    """A conversation that the template can write; `picture`: none, before or after the first question, two, later."""
    parts = {
        "none": (Text("What is this?"),),
        "before": (Picture(0), Text("\nWhat is this?")),
        "after": (Text("What is this?\n"), Picture(0)),
        "two": (Picture(0), Text("\n"), Picture(1), Text("\nWhat is this?")),
        "later": (Text("Hello there."),),
    }[picture]
    turns = [Turn("system", (Text("You see well."),))] if system else []
    turns.append(Turn("user", parts))
    for number in range(rounds):
        turns.append(Turn("assistant", (Text(f"It is a small red circle, number {number}."),)))
        if template != "plain":
            shown = (Picture(0), Text("\n")) if picture == "later" and number == 0 else ()
            turns.append(Turn("user", (*shown, Text(f"How many stars are there? {number}"))))
    return turns


def as_messages(turns: list[Turn], pictures: list[Image.Image], spaced: bool) -> list[dict]:
    """The turns as a processor takes them; without `spaced`, the line breaks beside pictures are left to the template."""
    messages = []
    for turn in turns:
        content = []
        for part in turn.parts:
            if isinstance(part, Picture):
                content.append({"type": "image", "image": pictures[part.index]})
            elif spaced or part.text.strip():
                content.append({"type": "text", "text": part.text if spaced else part.text.strip("\n")})
        messages.append({"role": turn.role, "content": content})
    return messages


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    """A saved model and its stock processor for each template and tower."""
    made = {}

    def make(template: str, tower: str = "clip"):
        if (template, tower) not in made:
            llm = LANGUAGE_MODEL.get(template, "llama")
            model = Llava.compose(vision_tower=parts[tower], language_model=parts[llm], template=template)
            folder = tmp_path_factory.mktemp("saved") / "model"
            model.save_pretrained(folder)
            made[template, tower] = model, AutoProcessor.from_pretrained(folder), folder
        return made[template, tower]

    return make


@pytest.mark.parametrize("template", template_names())
@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_apply_chat_template_gives_the_ids_of_encode(saved, template, tower):
    model, processor, _ = saved(template, tower)
    image_id = processor.image_token_id
    pictures = [Image.new("RGB", size, colour) for size, colour in (((40, 30), "red"), ((20, 50), "blue"))]
    tried = 0
    for picture, rounds, system, prompt, spaced in itertools.product(
        ["none", "before", "after", "two", "later"], [0, 1, 2], [False, True], [False, True], [False, True]
    ):
        plain = template == "plain"
        if plain and (picture in ("none", "later") or rounds > 1 or system or prompt == bool(rounds)):
            continue
        turns = turns_for(template, picture, rounds, system)
        if not prompt and not plain:
            turns = turns[:-1]
        if (not prompt and rounds == 0) or (picture == "later" and rounds < (1 if prompt else 2)):
            continue
        shown = pictures[: {"none": 0, "two": 2}.get(picture, 1)]
        conversation = Conversation("a", "test", tuple("ab"[: len(shown)]), tuple(turns))
        lengths = [model.image_length(*image.size) for image in shown]
        written = get_template(template, model.tokenizer)
        expected = encode(conversation, written, model.tokenizer, lengths, prompt=prompt).ids
        out = processor.apply_chat_template(
            as_messages(turns, shown, spaced), tokenize=True, return_dict=True, add_generation_prompt=prompt
        )
        found = torch.as_tensor(out["input_ids"]).flatten().tolist()
        found = [IMAGE_TOKEN_ID if token == image_id else token for token in found]
        assert found == expected, (picture, rounds, system, prompt, spaced)
        tried += 1
    assert tried >= (4 if template == "plain" else 60)


def test_messages_of_plain_strings_give_the_same_text(saved):
    _, _, folder = saved("vicuna_v1")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A star."}]
    conversation = Conversation(
        "a", "test", (), (Turn("user", (Text("What is this?"),)), Turn("assistant", (Text("A star."),)))
    )
    expected = "".join(piece.text for piece in get_template("vicuna_v1").write(conversation))
    assert tokenizer.apply_chat_template(messages, tokenize=False) == expected


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("policy", ["square", "pad"])
@pytest.mark.parametrize("size", [(28, 28), (90, 41), (33, 77), (20, 200)])
def test_the_stock_processor_makes_the_same_pixels(parts, tmp_path, tower, policy, size):
    model = Llava.compose(vision_tower=parts[tower], language_model=parts["llama"], image_policy=policy)
    model.save_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    noise = torch.randint(
        256, (*size[::-1], 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    picture = Image.fromarray(noise.numpy())
    theirs = torch.as_tensor(processor(images=picture, text="<image>", return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(
        theirs, to_tiles(picture, model.settings.image_policy, model.pixels), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("language_model", ["llama", "qwen"])
@pytest.mark.parametrize(
    "words", ["What is <image> here?", "<pad>", "a <image>", "<image>", "</s> <|im_end|> x", "  two"]
)
def test_words_get_the_same_ids_after_saving_and_opening(parts, tmp_path, language_model, words):
    template = LANGUAGE_MODEL.get({"llama": "vicuna_v1", "qwen": "tokenizer"}[language_model], "vicuna_v1")
    template = {"llama": "vicuna_v1", "qwen": "tokenizer"}[language_model]
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts[language_model], template=template)
    model.save_pretrained(tmp_path / "saved")
    again = Llava.from_pretrained(tmp_path / "saved")
    conversation = Conversation(
        "a",
        "test",
        ("a",),
        (Turn("user", (Text(words), Picture(0), Text(words))), Turn("assistant", (Text(words),))),
    )
    before, after = (
        encode(conversation, get_template(template, m.tokenizer), m.tokenizer, [3]) for m in (model, again)
    )
    assert before == after
    assert max(after.ids) < model.vocabulary


def test_the_tokenizers_own_chat_template_comes_back_as_it_was(parts, tmp_path):
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["qwen"], template="tokenizer")
    model.save_pretrained(tmp_path / "saved")
    again = Llava.from_pretrained(tmp_path / "saved")
    assert again.tokenizer.chat_template == model.tokenizer.chat_template
    assert original_chat_template(None) is None


def test_a_template_that_does_not_repeat_turn_by_turn_has_no_jinja_text():
    class Counting:
        name, stop = "counting", ()

        def write(self, conversation, *, prompt=False):
            from llavakit.conversation.templates import Written

            return [Written(f"{n}: {turn.text} ", False, True) for n, turn in enumerate(conversation.turns)]

    assert chat_template(Counting(), None) is None
