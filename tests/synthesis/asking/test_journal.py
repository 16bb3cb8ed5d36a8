"""What is told to the journal is there after any end of the process, and one process writes at a time."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.synthesis.asking.teachers import replied, requests

from llavakit.errors import LlavakitError
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.stored import is_settled
from llavakit.synthesis.teacher import Message, SentPicture, TeacherReply, TeacherRequest, Usage

ONE = next(requests(1))


def told(journal: Journal, request: TeacherRequest, reply: TeacherReply, usd: float = 0.5) -> None:
    call = journal.begin(request, request.max_tokens, 2.0, 200)
    journal.keep(call, request.key, reply, usd, 1.5)


def test_a_reply_comes_back_as_it_was_given(tmp_path: Path) -> None:
    reply = TeacherReply(
        "two\nlines 犬 \x00 \ud800", "m-2", "stop", Usage(7, 8, 3), "", "id-1", "fp", '{"raw": "犬\ud800"}'
    )
    with Journal(tmp_path / "j.sqlite") as journal:
        told(journal, ONE, reply)
    with Journal(tmp_path / "j.sqlite", read_only=True) as journal:
        stored = journal.stored(ONE.key)
        assert stored is not None and stored.reply is not None
        assert stored.reply.text == "two\nlines 犬 \x00 \\ud800"  # half a character is written out
        assert stored.reply.raw == reply.raw
        assert (stored.reply.usage, stored.reply.model, stored.reply.fingerprint) == (
            reply.usage,
            "m-2",
            "fp",
        )
        assert (stored.attempts, stored.usd, stored.sent_max_tokens) == (1, 0.5, 100)
        assert journal.stored("0" * 64) is None
        assert journal.count() == 1 and list(journal.keys()) == [ONE.key]


def test_all_that_was_sent_can_be_read_again_and_long_prompts_are_kept_once(tmp_path: Path) -> None:
    system = Message("system", "rules " * 5000)
    asked = [
        TeacherRequest((system, Message("user", f"n {n}", (SentPicture("image/png", b"p"),))), "m")
        for n in range(50)
    ]
    with Journal(tmp_path / "j.sqlite") as journal:
        for request in asked:
            told(journal, request, replied(request))
        assert journal.identity(asked[7].key) == asked[7].identity()
    assert (tmp_path / "j.sqlite").stat().st_size < 200_000  # fifty copies of the system message are 1.5 MB


def test_a_call_that_never_ended_counts_as_what_was_set_aside_for_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        told(journal, ONE, replied(ONE, usage=Usage(10, 20)), usd=0.25)
        journal.begin(ONE, 100, 2.0, 300)
        ended = journal.begin(ONE, 100, 2.0, 300)
        journal.end(ended, "overloaded", 0.0, 0)
        assert journal.spent() == (2.25, 330)


def test_a_cut_reply_gives_way_to_a_longer_one_and_is_settled_then(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        told(journal, ONE, replied(ONE, "length"))
        assert not is_settled(journal.stored(ONE.key), ONE, 2.0)
        assert is_settled(journal.stored(ONE.key), ONE, 1.0)
        call = journal.begin(ONE, 200, 2.0, 200)
        journal.keep(call, ONE.key, replied(ONE, "length"), 0.5, 1.0)
        stored = journal.stored(ONE.key)
        assert stored is not None and (stored.sent_max_tokens, stored.attempts, stored.usd) == (200, 2, 1.0)
        assert is_settled(stored, ONE, 2.0)


def test_a_refusal_of_the_larger_room_leaves_the_cut_reply(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        told(journal, ONE, replied(ONE, "length"))
        call = journal.begin(ONE, 200, 0.0, 0)
        journal.refuse(call, ONE.key, "refused", "the context is too long", 0.0, 0)
        stored = journal.stored(ONE.key)
        assert stored is not None and stored.reply is not None and stored.reply.finish == "length"
        assert is_settled(stored, ONE, 2.0)


def test_a_second_writer_is_told_who_writes_and_readers_may_read(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        told(journal, ONE, replied(ONE))
        with pytest.raises(LlavakitError, match=f"is being written by process {os.getpid()} on "):
            Journal(path)
        with Journal(path, read_only=True) as reader:
            assert reader.count() == 1
    with Journal(path) as journal:
        assert journal.count() == 1


def test_reading_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    before = sorted(tmp_path.iterdir())
    with Journal(path, read_only=True) as reader:
        reader.count()
    assert sorted(tmp_path.iterdir()) == before
    assert not path.with_name("j.sqlite-wal").exists()


def test_a_killed_writer_leaves_what_it_had_committed_and_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom llavakit.synthesis.asking.journal import Journal\n"
        "from tests.synthesis.asking.teachers import replied, requests\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for one in requests(20):\n"
        "    journal.keep(journal.begin(one, 100, 1.0, 10), one.key, replied(one), 0.1, 0.1)\n"
        "journal.begin(one, 100, 1.0, 10)\nos.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "j.sqlite")], cwd=root, env=env, check=False
    )
    assert ended.returncode == -9
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.count() == 20
        assert journal.spent()[0] == pytest.approx(3.0)


def not_sqlite(path: Path) -> None:
    path.write_text("this is no database at all, whatever its name says " * 100)


def another_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine(x)")


def later_format(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")


def damaged(path: Path) -> None:
    with Journal(path) as journal:
        for request in requests(300):
            told(journal, request, replied(request))
    content = bytearray(path.read_bytes())
    content[8192:60_000] = b"\xff" * (60_000 - 8192)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (not_sqlite, "is no SQLite file"),
        (another_database, "no journal of llavakit"),
        (later_format, "a journal of format 9"),
        (damaged, "is damaged"),
    ],
)
def test_what_is_no_journal_is_refused_in_a_sentence(tmp_path: Path, make: object, sentence: str) -> None:
    path = tmp_path / "j.sqlite"
    make(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(LlavakitError, match=sentence), Journal(path) as journal:
        for request in requests(300):
            journal.stored(request.key)
    if make is not damaged and make is not later_format:
        assert path.read_bytes() == before
