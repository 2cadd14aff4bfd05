"""Limits of a runtime of several workers hold for the host, whoever serves a call."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.commands import Caller, serving
from tests.support.workers import Team, wait_until
from vastar_client.wire import ErrorClass, ExecuteResponse

pytestmark = pytest.mark.slow

CALLERS = 12


class Upstream:
    """Counts its requests, and how many are in it at once."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 204
        self.holds_s = 0.01
        self.served = self.inside = self.most_inside = 0
        self.lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        upstream = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with upstream.lock:
                    upstream.served += 1
                    upstream.inside += 1
                    upstream.most_inside = max(upstream.most_inside, upstream.inside)
                time.sleep(upstream.holds_s)
                with upstream.lock:
                    upstream.inside -= 1
                self.send_response(upstream.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

        with Server(("127.0.0.1", 0), Answers) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}/"
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def host(
    tmp_path: Path, policies: str, workers: int = 2
) -> Iterator[tuple[Team, Upstream, list[Caller]]]:
    """A runtime with `policies`, an upstream, and callers on connections of their own."""
    config = tmp_path / "runtime.toml"
    config.write_text(policies, encoding="utf-8")
    config.chmod(0o600)
    socket = str(tmp_path / "runtime.sock")
    upstream, team = Upstream(), Team(socket)
    arguments = ("--config", str(config), "--socket", socket, "--workers", str(workers))
    with upstream.running(), serving(*arguments), ExitStack() as stack:
        callers = []
        for _ in range(CALLERS):
            callers.append(Caller(socket))
            stack.callback(callers[-1].close)
        counts: list[int] = []

        def all_serve() -> bool:
            counts[:] = [row["connections"] or 0 for row in team.rows()]
            return sum(counts) == CALLERS + 1

        wait_until(all_serve, "all are accepted")
        assert min(counts) >= CALLERS // workers // 2, "all workers take part"
        yield team, upstream, callers


def ask_all(callers: list[Caller], url: str) -> list[ExecuteResponse]:
    for caller in callers:
        caller.get(url)
    answers = [caller.receive() for caller in callers]
    assert all(isinstance(each, ExecuteResponse) for each in answers)
    return answers


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_at_once_than_there_are_places(tmp_path, most):
    with host(tmp_path, f"[defaults.bulkhead]\nmax_per_origin = {most}\n") as (
        _,
        upstream,
        callers,
    ):
        for _ in range(4):
            answers = ask_all(callers, upstream.url)
            assert {each.error_class for each in answers} == {ErrorClass.SUCCESS}
        assert upstream.served == 4 * CALLERS
        assert upstream.most_inside == most


def test_places_of_a_killed_worker_come_back(tmp_path):
    with host(tmp_path, "[defaults.bulkhead]\nmax_per_origin = 2\n") as (team, upstream, callers):
        upstream.holds_s = 0.5
        for caller in callers:
            caller.get(upstream.url)
        wait_until(lambda: upstream.inside == 2, "all places are taken")
        for pid in team.pids():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda dead=pid: dead not in team.pids(), "its death is told")
            wait_until(lambda: team.states() == ["serving"] * 2, "it serves again")
        wait_until(lambda: upstream.inside == 0, "nobody is inside any more")
        upstream.holds_s, upstream.most_inside = 0.05, 0
        with ExitStack() as stack:
            again = []
            for _ in range(CALLERS):
                again.append(Caller(team.socket))
                stack.callback(again[-1].close)
            answers = ask_all(again, upstream.url)
        assert {each.error_class for each in answers} == {ErrorClass.SUCCESS}
        assert upstream.most_inside == 2


def test_a_rate_holds_for_all_together(tmp_path):
    policies = "[defaults.origin_rate_limit]\nlimit = 5\nperiod_s = 3600\nmax_waiting = 0\n"
    with host(tmp_path, policies) as (team, upstream, callers):
        answers = ask_all(callers, upstream.url)
        kinds = [each.error_class for each in answers]
        assert kinds.count(ErrorClass.SUCCESS) == 5
        assert kinds.count(ErrorClass.RATE_LIMITED) == CALLERS - 5
        assert upstream.served == 5
        shown = team.call("status", verbose=True)["limits"]
        assert shown
        assert all(each["available"] < 1 for each in shown)


def test_a_circuit_that_opens_in_one_worker_is_open_in_all(tmp_path):
    policies = (
        "[defaults.breaker]\nmin_calls = 4\nopen_s = 600\nopen_max_s = 600\n"
        '[defaults.retry]\nmode = "off"\n'
    )
    with host(tmp_path, policies) as (team, upstream, callers):
        upstream.status = 500
        for caller in callers[:4]:
            caller.get(upstream.url)
            assert isinstance(caller.receive(), ExecuteResponse)
        answers = ask_all(callers, upstream.url)
        assert {each.error_class for each in answers} == {ErrorClass.TRANSIENT}
        assert upstream.served == 4
        assert team.call("status", verbose=True)["breakers"]
