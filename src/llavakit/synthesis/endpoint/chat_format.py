"""Chat completions on the wire: a `TeacherRequest` becomes a body, a body becomes a `TeacherReply`.

The shape is OpenAI's, as vLLM, SGLang, llama.cpp, Ollama and the hosts also serve it; where they differ in what they
leave out or put in, both are read. A body that is no chat completion is trouble that may pass, with the tokens counted
as possibly spent.

Knows no connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from llavakit.synthesis.endpoint.http_trouble import error_of, excerpt, without_keys
from llavakit.synthesis.teacher import Message, TeacherError, TeacherReply, TeacherRequest, Trouble, Usage

TokenField = Literal["max_tokens", "max_completion_tokens"]

_FINISH = {
    "max_tokens": "length",
    "model_length": "length",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "safety": "content_filter",
    "refusal": "content_filter",
}


def chat_body(request: TeacherRequest, *, token_field: TokenField = "max_tokens") -> dict[str, Any]:
    """The body of a request, as plain values.

    Parameters that are None are left out. `sample` is not sent: whoever wants several replies gives each its seed.
    token_field: the name under which the limit goes; some hosted models take only `max_completion_tokens`.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        token_field: request.max_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": dict(request.schema)},
        }
    return body


def chat_reply(raw: str, *, request_id: str = "", at: str = "the endpoint") -> TeacherReply:
    """Read a body that came with status 200. at: the URL, for the error's sentence.

    A null content is an empty text; a missing reason to finish is `unknown`.

    Raises:
        TeacherError: the body is no chat completion.
    """
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        raise _no_completion(at, f"no whole JSON ({error}), but {excerpt(raw)!r}") from error
    if not isinstance(value, dict):
        raise _no_completion(at, f"a JSON {type(value).__name__}")
    if value.get("error"):
        raise _error_inside(value["error"], at)
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _no_completion(at, f"no `choices` in {excerpt(raw)!r}")
    choice = choices[0]
    if choice.get("error"):
        raise _error_inside(choice["error"], at)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _no_completion(at, f"a choice without `message` in {excerpt(raw)!r}")
    text, refusal = _content(message.get("content"), at)
    finish = str(choice.get("finish_reason") or "unknown").lower()
    return TeacherReply(
        text=text,
        model=str(value.get("model") or ""),
        finish=_FINISH.get(finish, finish),
        usage=_usage(value.get("usage")),
        refusal=str(message.get("refusal") or refusal),
        request_id=request_id or str(value.get("id") or ""),
        fingerprint=str(value.get("system_fingerprint") or ""),
        raw=raw,
    )


def _message(message: Message) -> dict[str, Any]:
    if not message.pictures:
        return {"role": message.role, "content": message.content}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": picture.url}} for picture in message.pictures
    ]
    return {"role": message.role, "content": [*parts, {"type": "text", "text": message.content}]}


def _content(content: Any, at: str) -> tuple[str, str]:
    """(text, refusal) of a message's content: a string, null, or a list of parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise _no_completion(at, f"a `content` that is a JSON {type(content).__name__}")
    parts = [part if isinstance(part, dict) else {"text": str(part)} for part in content]
    said = "".join(str(part["text"]) for part in parts if part.get("text"))
    return said, "".join(str(part["refusal"]) for part in parts if part.get("refusal"))


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = (
        details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    )
    return Usage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), int(cached or 0))


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return int(value) if isinstance(value, int | float) else 0


def _error_inside(error: Any, at: str) -> TeacherError:
    """The error of a body that came with status 200 but tells of one, maybe with the status it should have had."""
    code = error.get("code") if isinstance(error, dict) else None
    status = (
        int(code) if isinstance(code, int | str) and str(code).isdigit() and 300 <= int(code) < 600 else 200
    )
    found = error_of(status, {}, json.dumps({"error": error}), at=at)
    return TeacherError(found.trouble, str(found), retry_after=found.retry_after, paid=True)


def _no_completion(at: str, found: str) -> TeacherError:
    sentence = f"{at} sent {found}; expected a chat completion with `choices`, each with a `message`."
    return TeacherError(Trouble.TRANSIENT, without_keys(sentence), paid=True)
