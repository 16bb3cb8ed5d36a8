"""`llavakit fake-endpoint` prints its URL first, serves, and ends at once when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from llavakit.cli.main import main

SOURCE = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end_even_while_it_works(told: signal.Signals) -> None:
    command = [sys.executable, "-m", "llavakit.cli.main", "fake-endpoint", "--slots", "1", "--latency", "60"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        body = {"messages": [{"role": "user", "content": "hi"}]}
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{url}/chat/completions", json=body, timeout=0.1, trust_env=False)
        stats = httpx2.get(url.removesuffix("/v1") + "/stats", trust_env=False).json()
        assert (stats["busy"], stats["at_once"]) == (1, 1)
        start = time.monotonic()
        server.send_signal(told)
        assert server.wait(5) == 0 and time.monotonic() - start < 2
        assert server.stdout.read() == "1 requests, 1 worked on, 0 answered\n"


def test_faults_are_listed_and_wrong_ones_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fake-endpoint", "--fault", "list"])
    assert not ended.value.code and "truncated" in capsys.readouterr().out
    for wrong, told in (("cut", "NAME=RATE"), ("cat=0.1", "no fault 'cat'"), ("cut=7", "share from 0 to 1")):
        with pytest.raises(SystemExit) as ended:
            main(["fake-endpoint", "--fault", wrong])
        assert ended.value.code == 2 and told in capsys.readouterr().err
