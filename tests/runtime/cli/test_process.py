"""The end of a process is seen, also of one that nobody has reaped."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vastar_runtime.cli._process import Process


@pytest.fixture(params=["pidfd", "polled"])
def sleeper(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    if request.param == "polled":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.communicate()


def test_it_waits_and_signals(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process(sleeper.pid)
    assert not process.wait(0.01)
    process.send(signal.SIGTERM)
    if hasattr(os, "pidfd_open"):
        assert process.wait(10), "a zombie has ended"
    sleeper.wait()
    assert process.wait(10)
    process.send(signal.SIGTERM)
    process.close()
    process.close()


def test_there_is_none(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError):
        Process(sleeper.pid)
