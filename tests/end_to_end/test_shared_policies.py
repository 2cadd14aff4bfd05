"""Two client processes on one runtime: what one learns and uses up holds for the other.

Real processes all around: the runtime, and each client with the published names of the package.
"""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import leaks
from tests.support.commands import ROOT, environment, serving
from tests.support.upstream import threaded_upstream

CLIENT = """
import json, sys
from vastar_client import ConnectorException, RuntimeClient, RuntimeConfig

path = sys.argv[1]
with RuntimeClient(RuntimeConfig(tenant_id="acme", socket_path=path)) as client:
    for line in sys.stdin:
        try:
            response = client.get(line.strip())
            told = {"status": response.status_code}
        except ConnectorException as error:
            told = {
                "error_class": error.error_class.name,
                "refused_by": error.refused_by,
                "retry_after_ms": error.retry_after_ms,
                "disposition": error.disposition.name,
            }
        print(json.dumps(told), flush=True)
"""

CONFIG = """
[defaults.retry]
mode = "off"
[origins."http://127.0.0.1:{limited_port}".rate_limit]
limit = 4
period_s = 3600
max_waiting = 0
"""


class ClientProcess:
    """A program that uses the blocking client, told one URL at a time."""

    def __init__(self, socket_path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, socket_path],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def get(self, url: str) -> dict[str, Any]:
        """What became of a GET."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(url + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        assert isinstance(told, dict)
        return told

    def end(self) -> None:
        """Have it end by itself; kill it where it does not."""
        killer = threading.Timer(20, self.process.kill)
        killer.start()
        self.process.communicate()
        killer.cancel()


@pytest.fixture
def clients(tmp_path: Path, upstream: Any) -> Iterator[tuple[ClientProcess, ClientProcess]]:
    (tmp_path / "vastar.toml").write_text(CONFIG.format(limited_port=upstream.port))
    path = str(tmp_path / "runtime.sock")
    with (
        serving("--socket", path, "--config", str(tmp_path / "vastar.toml")) as process,
        leaks.keep(process.pid),
    ):
        pair = ClientProcess(path), ClientProcess(path)
        try:
            assert pair[0].process.pid != pair[1].process.pid
            yield pair
        finally:
            for client in pair:
                client.end()


@pytest.fixture
def upstream() -> Iterator[Any]:
    with threaded_upstream() as upstream:
        yield upstream


def test_the_limit_the_pool_and_the_circuit_are_the_runtimes(clients, upstream):
    one, other = clients

    # One bucket for both: four calls an hour, whoever makes them.
    url = f"http://127.0.0.1:{upstream.port}/small"
    told = [client.get(url) for client in (one, other, one, other, one, other)]
    assert [each.get("status") for each in told] == [200] * 4 + [None] * 2
    for refused in told[4:]:
        assert refused["error_class"] == "RATE_LIMITED"
        assert refused["refused_by"] == "rate_limit:credential"
        assert 0 < refused["retry_after_ms"] <= 3_600_000
        assert refused["disposition"] == "NOT_SENT"

    # One pool: the second process went out on the connection that the first one's call had opened.
    assert len([event for event in upstream.events if event["ev"] == "conn_open"]) == 1

    # One circuit: what failed for one process is not tried again for the other.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        for _ in range(5):
            failed = one.get(dead)
            assert (failed["error_class"], failed["refused_by"]) == ("TRANSIENT", None)
        refused = other.get(dead)
    assert refused["error_class"] == "TRANSIENT"
    assert refused["refused_by"] == "circuit_breaker:origin"
    assert 0 < refused["retry_after_ms"] <= 5000
    assert refused["disposition"] == "NOT_SENT"
