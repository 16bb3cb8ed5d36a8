"""The journal of everything that was asked: one SQLite file, in which a reply is safe before anything reads it.

A call is written down with what it may cost before it is sent, and its reply is committed before it is returned. A
process killed at any moment therefore loses no reply that it was given, and what it had under way is known and counted
as spent. One process writes at a time, held off by a lock that ends with it; any number may read.

Commits are SQLite's WAL with `synchronous=NORMAL`: they outlive the process, and the machine's power cut costs at most
the last moments. Knows requests by key and content. Knows no prompt, no picture and no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from llavakit.errors import LlavakitError
from llavakit.synthesis.asking.stored import Stored
from llavakit.synthesis.teacher import TeacherReply, TeacherRequest, Usage

FORMAT = 1
_APPLICATION = 0x4C4B4A31  # by which the file is known as a journal
_SCHEMA = """
CREATE TABLE texts(hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE requests(key TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE calls(
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL, max_tokens INTEGER NOT NULL,
    usd REAL NOT NULL, tokens INTEGER NOT NULL, batch TEXT NOT NULL DEFAULT '');
CREATE INDEX calls_key ON calls(key);
CREATE TABLE replies(
    key TEXT PRIMARY KEY, at TEXT NOT NULL, trouble TEXT NOT NULL, message TEXT NOT NULL, text TEXT NOT NULL,
    model TEXT NOT NULL, finish TEXT NOT NULL, refusal TEXT NOT NULL, prompt INTEGER NOT NULL,
    completion INTEGER NOT NULL, cached INTEGER NOT NULL, request_id TEXT NOT NULL, fingerprint TEXT NOT NULL,
    latency_s REAL NOT NULL, max_tokens INTEGER NOT NULL, raw BLOB NOT NULL);
CREATE TABLE batches(
    shard TEXT PRIMARY KEY, number INTEGER NOT NULL, keys TEXT NOT NULL, service_id TEXT NOT NULL, state TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
SENT = "sent"
_REPLY = (
    "SELECT at, trouble, message, text, model, finish, refusal, prompt, completion, cached, request_id, fingerprint, "
    "latency_s, max_tokens, raw FROM replies WHERE key = ?"
)


class Journal:
    """A journal that is open. Use it as a context manager.

    read_only: changes nothing, and needs no lock.

    Raises:
        LlavakitError: the file is no journal, of another format or damaged, or another process writes it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        if read_only and not path.is_file():
            raise LlavakitError(f"{path} is not there; `llavakit generate` writes it.")
        if not read_only:
            self._lock = _lock(path)
        try:
            self._db = self._open(read_only)
        except sqlite3.Error as error:
            self._unlock()
            raise _told(path, error) from error
        except LlavakitError:
            self._unlock()
            raise
        self._texts: set[str] = set()

    def _open(self, read_only: bool) -> sqlite3.Connection:
        if read_only:
            # Without a log beside it nobody writes, and opening it as unchangeable leaves nothing beside it either.
            still = "" if Path(f"{self.path}-wal").exists() else "&immutable=1"
            db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro{still}", uri=True, isolation_level=None
            )
        else:
            db = sqlite3.connect(self.path, isolation_level=None)
        application = db.execute("PRAGMA application_id").fetchone()[0]
        empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION and (read_only or not empty):
            raise LlavakitError(f"{self.path} is an SQLite file but no journal of llavakit; name another.")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if not empty and version != FORMAT:
            raise LlavakitError(
                f"{self.path} is a journal of format {version}; this version of llavakit reads {FORMAT}."
            )
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if empty:
                db.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
                )
                db.execute("INSERT INTO facts VALUES ('id', ?)", (os.urandom(8).hex(),))
        return db

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Brings all into the one file and lets go of it."""
        if self._lock is not None:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # What is asked of it

    @property
    def id(self) -> str:
        """A name of this journal, by which batches at a service are known as its own."""
        return str(self._all("SELECT value FROM facts WHERE name = 'id'")[0][0])

    def stored(self, key: str) -> Stored | None:
        """What is kept under a key."""
        rows = self._all(_REPLY, key)
        if not rows:
            return None
        at, trouble, message, text, model, finish, refusal, *numbers = rows[0]
        prompt, completion, cached, request_id, fingerprint, latency, room, raw = numbers
        usage = Usage(prompt, completion, cached)
        reply = None
        if not trouble:
            body = zlib.decompress(raw).decode("utf-8", "surrogatepass")
            reply = TeacherReply(text, model, finish, usage, refusal, request_id, fingerprint, body)
        attempts, usd = self._all("SELECT count(*), total(usd) FROM calls WHERE key = ?", key)[0]
        return Stored(key, reply, trouble, message, attempts, usd, at, latency, room)

    def count(self) -> int:
        """How many requests have a reply or a refusal."""
        return int(self._all("SELECT count(*) FROM replies")[0][0])

    def keys(self) -> Iterator[str]:
        """The keys of all that is kept, in their order."""
        for (key,) in self._db.execute("SELECT key FROM replies ORDER BY key"):
            yield key

    def spent(self) -> tuple[float, int]:
        """Money and tokens of all calls; one that was sent and never answered counts as what was reserved for it."""
        usd, tokens = self._all("SELECT total(usd), total(tokens) FROM calls")[0]
        return float(usd), int(tokens)

    def mean_usage(self) -> tuple[float, float] | None:
        """Tokens of a prompt and of a reply, on average; None while there are none."""
        number, prompt, completion = self._all(
            "SELECT count(*), avg(prompt), avg(completion) FROM replies WHERE trouble = '' AND completion > 0"
        )[0]
        return (float(prompt), float(completion)) if number else None

    def identity(self, key: str) -> dict[str, Any] | None:
        """All that was sent under a key, as `TeacherRequest.identity` has it."""
        rows = self._all("SELECT identity FROM requests WHERE key = ?", key)
        if not rows:
            return None
        found: dict[str, Any] = json.loads(rows[0][0])
        for message in found["messages"]:
            message["content"] = self._all("SELECT text FROM texts WHERE hash = ?", message["content"])[0][0]
        return found

    # What is told to it

    def begin(
        self, request: TeacherRequest, max_tokens: int, usd: float, tokens: int, batch: str = ""
    ) -> int:
        """Note a call that is about to be sent, with the most that it can cost. Returns the call's number."""
        key = request.key
        with self._transaction():
            self._note(key, request)
            row = (key, _now(), SENT, max_tokens, usd, tokens, batch)
            done = self._db.execute(
                "INSERT INTO calls(key, at, outcome, max_tokens, usd, tokens, batch) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(done.lastrowid or 0)

    def end(self, call: int, outcome: str, usd: float | None = None, tokens: int | None = None) -> None:
        """Note what became of a call that gave no reply, and what it cost: None for all that was set aside."""
        with self._transaction():
            self._settle(call, outcome, usd, tokens)

    def keep(self, call: int, key: str, reply: TeacherReply, usd: float, latency_s: float) -> None:
        """Commit a reply. It takes the place of one that had been cut."""
        usage = reply.usage
        with self._transaction():
            room = self._settle(call, reply.finish, usd, usage.prompt + usage.completion)
            raw = zlib.compress(reply.raw.encode("utf-8", "surrogatepass"), 1)
            self._db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, '', '', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key, _now(), _storable(reply.text), reply.model, reply.finish, _storable(reply.refusal),
                    usage.prompt, usage.completion, usage.cached, reply.request_id, reply.fingerprint, latency_s, room,
                    raw,
                ),
            )  # fmt: skip

    def refuse(self, call: int, key: str, trouble: str, message: str, usd: float, tokens: int) -> None:
        """Commit that a request is refused and not to be repeated. A cut reply that is there already stays."""
        with self._transaction():
            room = self._settle(call, trouble, usd, tokens)
            self._db.execute(
                "INSERT OR IGNORE INTO replies VALUES "
                "(?, ?, ?, ?, '', '', '', '', 0, 0, 0, '', '', 0, ?, x'')",
                (key, _now(), trouble, _storable(message), room),
            )
            self._db.execute("UPDATE replies SET max_tokens = ? WHERE key = ?", (room, key))

    def _settle(self, call: int, outcome: str, usd: float | None, tokens: int | None) -> int:
        rows = self._db.execute(
            "UPDATE calls SET outcome = ?, usd = coalesce(?, usd), tokens = coalesce(?, tokens) WHERE number = ? "
            "RETURNING max_tokens",
            (outcome, usd, tokens, call),
        ).fetchall()
        return int(rows[0][0])

    def _note(self, key: str, request: TeacherRequest) -> None:
        identity = request.identity()
        for message in identity["messages"]:
            text = _storable(message["content"])
            name = hashlib.sha256(text.encode()).hexdigest()
            if name not in self._texts:
                self._db.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (name, text))
                if len(self._texts) < 10_000:
                    self._texts.add(name)
            message["content"] = name
        written = json.dumps(identity, sort_keys=True)
        self._db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (key, written))

    # Batches: a shard of requests is planned here before the service hears of it

    def plan_batch(self, shard: str, keys: Mapping[str, str]) -> None:
        """Note a shard that is about to be handed to a batch service: the request's key by the key it is sent under,
        which differs where it got more room. `shard` names this attempt at them."""
        with self._transaction():
            row = (shard, len(keys), json.dumps(dict(keys)))
            self._db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, '', 'planned')", row)

    def note_batch(self, shard: str, service_id: str, state: str) -> None:
        """Note under which name the service knows a shard, and how it stands."""
        with self._transaction():
            self._db.execute(
                "UPDATE batches SET service_id = ?, state = ? WHERE shard = ?", (service_id, state, shard)
            )

    def open_batches(self) -> list[tuple[str, str, dict[str, str]]]:
        """Shards whose results have not been taken in: (shard, the service's name of it or "", keys as planned)."""
        rows = self._all("SELECT shard, service_id, keys FROM batches WHERE state != 'done' ORDER BY shard")
        return [(shard, name, json.loads(keys)) for shard, name, keys in rows]

    def calls_of_batch(self, shard: str) -> dict[str, int]:
        """The calls, by key, that went out in a shard and have not been settled."""
        rows = self._all("SELECT key, number FROM calls WHERE batch = ? AND outcome = ?", shard, SENT)
        return dict(rows)

    # The file

    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _told(self.path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _told(self.path, error) from error


def _lock(path: Path) -> IO[str]:
    """The right to write, held as long as the file is open; it ends with the process, however that ends."""
    try:
        file = Path(f"{path}.lock").open("a+", encoding="utf-8")  # noqa: SIM115 - held until the journal is closed
    except OSError as error:
        raise LlavakitError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        who = file.read().strip() or "another process"
        file.close()
        raise LlavakitError(
            f"{path} is being written by {who}; wait for it or stop it, or give another --out."
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _told(path: Path, error: sqlite3.Error) -> LlavakitError:
    said = str(error)
    if "not a database" in said:
        return LlavakitError(f"{path} is no SQLite file, so no journal; name another.")
    if "malformed" in said:
        return LlavakitError(
            f"{path} is damaged ({said}); put a copy of it back, or begin anew in another folder."
        )
    if "full" in said:
        return LlavakitError(
            f"{path} cannot grow: the disk is full. What was kept is safe; make room and go on."
        )
    return LlavakitError(f"{path} cannot be used: {said}.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _storable(text: str) -> str:
    """The text with half characters, which are no UTF-8, written out."""
    return text.encode("utf-8", "backslashreplace").decode()
