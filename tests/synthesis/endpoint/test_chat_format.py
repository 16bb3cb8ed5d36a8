"""Bodies are written as OpenAI's chat completions, and read in all the shapes in which servers send them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from llavakit.synthesis.endpoint.chat_format import chat_body, chat_reply
from llavakit.synthesis.teacher import Message, SentPicture, TeacherError, TeacherRequest, Trouble, Usage

ASKED = (Message("system", "Write."), Message("user", "a dog"))


def completion(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "A dog."}, "finish_reason": "stop"}
    return {"id": "c-1", "model": "m-2026", "choices": [choice], **changes}


def with_content(content: Any, **message: Any) -> str:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}
    return json.dumps(completion(choices=[choice]))


def test_a_request_carries_its_messages_and_parameters() -> None:
    body = chat_body(TeacherRequest(ASKED, model="m", seed=7, temperature=0.2, max_tokens=50))
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Write."}, {"role": "user", "content": "a dog"}],
        "max_tokens": 50,
        "temperature": 0.2,
        "seed": 7,
    }


def test_what_is_none_is_left_out_and_the_limit_goes_by_the_name_asked_for() -> None:
    body = chat_body(TeacherRequest(ASKED, seed=None, temperature=None), token_field="max_completion_tokens")
    assert set(body) == {"model", "messages", "max_completion_tokens"}


def test_pictures_stand_before_the_text_as_data_urls() -> None:
    message = Message("user", "What is it?", (SentPicture("image/png", b"\x01\x02"),))
    (sent,) = chat_body(TeacherRequest((message,)))["messages"]
    assert [part["type"] for part in sent["content"]] == ["image_url", "text"]
    kind, _, data = sent["content"][0]["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == b"\x01\x02"


def test_a_schema_becomes_a_response_format() -> None:
    schema = {"type": "object"}
    assert chat_body(TeacherRequest(ASKED, schema=schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": schema},
    }


def test_a_reply_is_read_with_all_that_came_beside_it() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    raw = json.dumps(completion(usage=usage, system_fingerprint="fp"))
    reply = chat_reply(raw)
    assert (reply.text, reply.model, reply.finish) == ("A dog.", "m-2026", "stop")
    assert (reply.usage, reply.fingerprint, reply.request_id) == (Usage(9, 3, 4), "fp", "c-1")
    assert reply.raw == raw
    assert chat_reply(raw, request_id="of the header").request_id == "of the header"


def test_content_may_be_null_or_a_list_of_parts() -> None:
    assert chat_reply(with_content(None, refusal="No.")).refusal == "No."
    assert chat_reply(with_content(None)).text == ""
    parts = [{"type": "text", "text": "A "}, {"type": "text", "text": "dog."}]
    assert chat_reply(with_content(parts)).text == "A dog."
    declined = chat_reply(with_content([{"type": "refusal", "refusal": "I will not."}]))
    assert (declined.text, declined.refusal) == ("", "I will not.")


@pytest.mark.parametrize(
    ("sent", "read"),
    [("length", "length"), ("max_tokens", "length"), ("SAFETY", "content_filter"), (None, "unknown")],
)
def test_reasons_to_finish_are_read_under_one_name(sent: str | None, read: str) -> None:
    choice = {"message": {"content": "A dog"}, "finish_reason": sent}
    assert chat_reply(json.dumps(completion(choices=[choice]))).finish == read


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("<html>busy</html>", "no whole JSON"),
        ('{"choices": [{"mess', "no whole JSON"),
        ("[1]", "a JSON list"),
        ('{"id": "x"}', "no `choices`"),
        ('{"choices": []}', "no `choices`"),
        ('{"choices": [{"text": "old"}]}', "without `message`"),
        ('{"choices": [{"message": {"content": 5}}]}', "JSON int"),
        ('{"error": {"message": "engine fell over"}}', "engine fell over"),
    ],
)
def test_a_body_that_is_no_completion_is_trouble_that_may_pass_and_may_have_cost(raw: str, told: str) -> None:
    with pytest.raises(TeacherError, match=told) as caught:
        chat_reply(raw)
    assert caught.value.trouble is Trouble.TRANSIENT and caught.value.paid


def test_an_error_inside_status_200_counts_as_the_status_it_names() -> None:
    with pytest.raises(TeacherError, match="slow down") as caught:
        chat_reply('{"error": {"code": 429, "message": "slow down, try again in 2s"}}')
    assert caught.value.trouble is Trouble.RATE_LIMIT and caught.value.retry_after == 2
    with pytest.raises(TeacherError) as caught:
        chat_reply(json.dumps(completion(choices=[{"error": {"code": "502", "message": "lost"}}])))
    assert caught.value.trouble is Trouble.TRANSIENT
