"""A teacher behind a URL: connections to one server that speaks OpenAI's chat completions.

`reply` makes one attempt and tells trouble as it is; who asks decides about another. The HTTP layer neither retries nor
follows redirections. Proxies of the environment are used for hosts that are not this machine; nothing else of the
environment has a say, `.netrc` included.

A key is read from LLAVAKIT_TEACHER_KEY, or for OpenAI's own hosts from OPENAI_API_KEY. It is sent, and never written or
told.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.chat_format import TokenField, chat_body, chat_reply
from llavakit.synthesis.endpoint.http_trouble import RateHeaders, error_of, read_rate_headers, without_keys
from llavakit.synthesis.teacher import TeacherError, TeacherReply, TeacherRequest, Trouble

_CONNECT_S = 10.0
_LANE_WIDTH = 8


@dataclass(slots=True)
class _Lane:
    """A small pool of connections and how many requests are under way in it.

    A pool looks through all of its connections for each request, so many at once are spread over small pools.
    """

    client: httpx2.AsyncClient
    width: int
    under_way: int


class Endpoint:
    """An OpenAI-compatible server, as an asynchronous context manager.

    url: with or without `/v1` at its end. key: read from the environment when None; "" sends none. timeout_s: seconds
    that one attempt may take in all. token_field: the name of the limit of tokens, see `chat_body`. connections: the
    most that are open at once; ask for as many as there are requests under way.

    Raises:
        LlavakitError: the URL is none of http or https, or has a key or a query in it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 120.0,
        token_field: TokenField = "max_tokens",
        connections: int = 1024,
    ) -> None:
        self.url = whole_url(url)
        self.timeout_s, self.token_field, self.connections = timeout_s, token_field, connections
        self.rate: RateHeaders | None = None  # as last seen
        self._key = key_for(self.url) if key is None else key
        self._lanes: list[_Lane] | None = None
        self._trust = _trust(self.url)

    @property
    def name(self) -> str:
        return self.url

    async def __aenter__(self) -> Self:
        self._lanes = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lanes, self._lanes = self._lanes or [], None
        for lane in lanes:
            await lane.client.aclose()

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        """One attempt.

        Raises:
            TeacherError: there is no reply; its `trouble` says what that means.
        """
        body = json.dumps(chat_body(request, token_field=self.token_field)).encode()
        response = await self.send("POST", "/chat/completions", body, kind="application/json")
        request_id = response.headers.get("x-request-id", "")
        try:
            return chat_reply(response.text, request_id=request_id, at=f"{self.url}/chat/completions")
        except TeacherError as error:
            raise self._keyless(error) from error.__cause__

    async def models(self) -> list[str]:
        """The names of the models that are served.

        Raises:
            TeacherError: the server is not there, or its list cannot be read.
        """
        response = await self.send("GET", "/models")
        return [str(entry["id"]) for entry in listed(response.text, at=f"{self.url}/models")]

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        kind: str = "",
        timeout_s: float | None = None,
    ) -> httpx2.Response:
        """One request to a path below the URL; the response is whole and has status 200.

        kind: the body's content type. timeout_s: in place of the endpoint's.

        Raises:
            TeacherError: anything else happened.
        """
        lane = self._lane()
        at, seconds = self.url + path, self.timeout_s if timeout_s is None else timeout_s
        lane.under_way += 1
        try:
            async with asyncio.timeout(seconds):
                response = await lane.client.request(
                    method, at, content=body, headers={"Content-Type": kind} if kind else None
                )
        except TimeoutError as error:
            message = f"{at} gave no whole answer within {seconds:g} s."
            raise TeacherError(Trouble.TRANSIENT, message, paid=True) from error
        except httpx2.ConnectTimeout as error:
            message = f"{at} did not take a connection within {min(_CONNECT_S, self.timeout_s):g} s."
            raise TeacherError(Trouble.TRANSIENT, message) from error
        except httpx2.ConnectError as error:
            message = f"Nothing can be reached at {at} ({error}); is the server running, is the URL right?"
            raise TeacherError(Trouble.TRANSIENT, without_keys(message, self._key)) from error
        except httpx2.ProxyError as error:
            message = f"The proxy on the way to {at} failed ({error}); look at HTTPS_PROXY and NO_PROXY."
            raise TeacherError(Trouble.TRANSIENT, without_keys(message, self._key)) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            sent = not isinstance(error, httpx2.WriteError)
            message = f"The connection to {at} was cut before the answer was whole ({type(error).__name__})."
            raise TeacherError(Trouble.TRANSIENT, message, paid=sent) from error
        finally:
            lane.under_way -= 1
        self.rate = read_rate_headers(response.headers) or self.rate
        if response.status_code != 200:
            raise self._keyless(error_of(response.status_code, response.headers, response.text, at=at))
        return response

    def _keyless(self, error: TeacherError) -> TeacherError:
        """The error without our key, should the server have said it."""
        told = without_keys(str(error), self._key)
        return TeacherError(error.trouble, told, retry_after=error.retry_after, paid=error.paid)

    def _lane(self) -> _Lane:
        """The first lane with room, so that open connections are used again; another one when all are full."""
        if self._lanes is None:
            raise LlavakitError(f"The endpoint {self.url} is not open; use it as `async with Endpoint(...)`.")
        for lane in self._lanes:
            if lane.under_way < lane.width:
                return lane
        width = min(_LANE_WIDTH, self.connections - sum(lane.width for lane in self._lanes))
        if width > 0:
            self._lanes.append(_Lane(self._client(width), width, 0))
            return self._lanes[-1]
        return min(self._lanes, key=lambda lane: lane.under_way / lane.width)

    def _client(self, width: int) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_S, self.timeout_s)),
            limits=httpx2.Limits(
                max_connections=width, max_keepalive_connections=width, keepalive_expiry=30.0
            ),
            verify=self._trust,
            proxy=proxy_for(self.url),
            trust_env=False,
        )


def listed(raw: str, *, at: str) -> list[dict[str, Any]]:
    """The entries of a list object, `{"data": [{"id": ...}]}`.

    Raises:
        TeacherError: it is none.
    """
    try:
        entries = json.loads(raw)["data"]
        if all(isinstance(entry["id"], str) for entry in entries):
            return list(entries)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise TeacherError(
            Trouble.TRANSIENT, f"{at} sent no list of objects with an `id` ({error})."
        ) from error
    raise TeacherError(Trouble.TRANSIENT, f"{at} sent a list whose entries have no text as `id`.")


def whole_url(url: str) -> str:
    """The URL up to `/v1`, which is put behind it where no path is given.

    Raises:
        LlavakitError: it is none of http or https, or has a key or a query in it.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LlavakitError(f"{url!r} is no URL of an endpoint; expected such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise LlavakitError(
            f"The URL of the endpoint at {parts.hostname} has a user name, a password or a query in it; "
            "give the key as LLAVAKIT_TEACHER_KEY, which is never written anywhere."
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def key_for(url: str) -> str:
    """The key that the environment holds for this URL; "" where it holds none.

    OPENAI_API_KEY goes to OpenAI's hosts alone: a key of one house is not shown to another.
    """
    host = urlsplit(url).hostname or ""
    key = os.environ.get("LLAVAKIT_TEACHER_KEY", "")
    if not key and (host == "openai.com" or host.endswith(".openai.com")):
        key = os.environ.get("OPENAI_API_KEY", "")
    return key.strip()


def proxy_for(url: str) -> str | None:
    """The environment's proxy for this URL; None where there is none, and always for this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this very machine's."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trust(url: str) -> ssl.SSLContext:
    """The system's certificates, or those of SSL_CERT_FILE; reading them takes time that plain http does not need."""
    if url.startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
