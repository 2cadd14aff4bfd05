"""systemd is told once and never waited for."""

import os
import socket
from pathlib import Path

import pytest

from vastar_runtime.notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_it_sends_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = f"@vastar-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        assert notify("READY=1", {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/nonexistent/notify", "@nobody"])
def test_without_a_manager_nothing_happens(name: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": name})


def test_the_environment_of_the_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
