"""A chat keeps its conversation and reads again only what is new."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from llavakit.conversation.record import Text, Turn
from llavakit.images.pixels import PictureError
from llavakit.model import generation
from llavakit.model.session import ChatSession


@pytest.fixture
def picture() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB")


@pytest.fixture
def fed(monkeypatch) -> list[int]:
    """How many positions each run of the language model was given."""
    lengths: list[int] = []
    feed = generation.feed

    def counted(model, embeddings, cache):
        lengths.append(embeddings.shape[1])
        return feed(model, embeddings, cache)

    monkeypatch.setattr(generation, "feed", counted)
    return lengths


def test_later_turns_answer_as_if_all_was_read_again_but_read_only_what_is_new(llava, picture, fed):
    session = ChatSession(llava, max_new_tokens=6)
    history = []
    for turn, question in enumerate(
        ["What is this?", "Is there a green triangle?", "How many stars are there?"]
    ):
        fed.clear()
        answer = session.ask(question, [picture] if turn == 0 else [])
        first = fed[0]
        fed.clear()
        afresh = ChatSession(llava, max_new_tokens=6)
        afresh.recall(history, [picture] if history else [])
        assert afresh.ask(question, [] if history else [picture]) == answer
        assert llava.chat(question, [picture], history, max_new_tokens=6) == answer
        assert turn == 0 or first < 0.7 * fed[0]
        history.append((question, answer))
    assert [turn.role for turn in session.turns] == ["user", "assistant"] * 3


def test_a_conversation_begun_anew_remembers_nothing(llava, picture):
    session = ChatSession(llava, max_new_tokens=4)
    session.ask("What is this?", [Image.new("RGB", (50, 50), "red")])
    session.clear()
    assert session.turns == ()
    assert session.ask("What is this?", [picture]) == llava.chat("What is this?", [picture], max_new_tokens=4)


def test_all_behind_a_difference_is_read_again(llava, picture, fed):
    read = {}
    for word in ("x", "y"):
        session = ChatSession(llava, max_new_tokens=4)
        session.recall([("What is this?", "x")], [picture])
        said = session.ask("How many stars are there?")
        session._turns[1] = Turn("assistant", (Text(word),))  # one token for one, so all behind it lines up
        fed.clear()
        answer = session.ask("Is there a green triangle?")
        read[word] = fed[0]
        history = [("What is this?", word), ("How many stars are there?", said)]
        assert answer == llava.chat("Is there a green triangle?", [picture], history, max_new_tokens=4)
    behind = len(llava.tokenizer("</s>USER: How many stars are there? ASSISTANT:").input_ids)
    assert read["y"] > read["x"] + behind / 2


def test_several_pictures_and_pictures_in_later_turns(llava, picture):
    session = ChatSession(llava, max_new_tokens=4)
    session.ask("What is this?", [picture, Image.new("RGB", (50, 50), "red")])
    session.ask("What is this?", [Image.new("RGB", (50, 50), "blue")])
    assert len(session.turns) == 4


def test_streamed_pieces_make_the_answer(llava, picture):
    pieces = list(ChatSession(llava, max_new_tokens=12).stream("Describe the picture.", [picture]))
    assert "".join(pieces) == ChatSession(llava, max_new_tokens=12).ask("Describe the picture.", [picture])
    assert len(pieces) > 1


def test_an_answer_broken_off_is_remembered_as_far_as_it_got(llava, picture):
    session = ChatSession(llava, max_new_tokens=12)
    pieces = session.stream("Describe the picture.", [picture])
    said = next(pieces)
    pieces.close()
    assert session.turns[-1].parts[0].text == said
    other = ChatSession(llava, max_new_tokens=12)
    other.recall([("Describe the picture.", said)], [picture])
    assert session.ask("What is this?") == other.ask("What is this?")


def test_a_picture_that_cannot_be_opened_leaves_the_conversation_as_it_was(llava, picture, tmp_path):
    session = ChatSession(llava, max_new_tokens=4)
    session.ask("What is this?", [picture])
    with pytest.raises(PictureError, match="no such file"):
        session.ask("And this?", [tmp_path / "nowhere.png"])
    assert len(session.turns) == 2


def test_a_conversation_too_long_for_the_model_says_so(llava):
    session = ChatSession(llava, max_new_tokens=4)
    with pytest.raises(Exception, match="the language model has 512; begin a new one"):
        session.ask("What is this? " * 200)
    assert session.turns == ()
    assert isinstance(session.ask("What is this?"), str)


def test_chat_with_a_frozen_model_makes_no_gradients(llava, picture):
    llava.chat("What is this?", [picture], max_new_tokens=2)
    assert all(parameter.grad is None for parameter in llava.parameters())
    assert torch.is_grad_enabled()
