"""Several workers, as processes: who serves whom, what ends them, and what is told of them."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.commands import Caller, end, serving, silent_upstream, vastar
from tests.support.metrics_text import Scraped
from tests.support.workers import Team, is_alive, wait_until
from vastar_client.wire import END_OF_STREAM, ErrorClass, ExecuteResponse
from vastar_runtime.cli.exit_codes import ExitCode


@pytest.fixture
def team(tmp_path) -> Team:
    return Team(str(tmp_path / "runtime.sock"))


def serve(team: Team, *arguments: str, workers: int = 2):
    return serving("--socket", team.socket, "--workers", str(workers), *arguments)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in listed.split()]


@contextmanager
def callers(team: Team, count: int) -> Iterator[list[Caller]]:
    """So many connections, one after the other as fast as they come."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            caller = Caller(team.socket)
            stack.callback(caller.close)
            found.append(caller)
        yield found


def spread(team: Team, count: int) -> list[int]:
    """The connections of each worker, the fewest first, once so many and the asking one are in."""
    counts: list[int] = []

    def are_in() -> bool:
        counts[:] = sorted(row["connections"] or 0 for row in team.rows())
        return sum(counts) == count + 1

    wait_until(are_in, "all are accepted")
    return counts


@contextmanager
def answering(gate: threading.Event | None = None) -> Iterator[str]:
    """The URL of a server that answers every request, once the gate is open."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if gate is not None:
                gate.wait(20)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def refused(team: Team) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(team.socket) != 0


@pytest.mark.parametrize("count", [16, 41])
def test_long_lived_connections_spread_evenly(team, count):
    with serve(team) as process:
        with callers(team, count):
            counts = spread(team, count)
            # Two may be off: the one that asks, and one that nobody took in time on a busy machine.
            assert counts[0] >= count // 2 - 2
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK


def test_a_killed_worker_is_replaced_and_its_sibling_serves_on(team):
    with serve(team) as process:
        before = team.call("status")
        assert before["pid"] == process.pid
        first, second = (row["pid"] for row in before["workers"])
        assert sorted(children(process.pid)) == sorted([first, second])
        for _ in range(4):
            # While the first dies and comes again, somebody answers each call.
            os.kill(first, signal.SIGKILL)
            wait_until(lambda dead=first: dead not in team.pids(), "its death is told")
            wait_until(lambda: team.states() == ["serving"] * 2, "it serves again")
            (first,) = set(team.pids()) - {second}
        assert [row["restarts"] for row in team.rows()] in ([4, 0], [0, 4])
        # The new one takes callers as the other does.
        with callers(team, 8):
            assert spread(team, 8)[0] >= 3
        code, logged = end(process, signal.SIGTERM)
    assert code == ExitCode.OK
    assert '"reason":"SIGKILL"' in logged
    assert not any(is_alive(pid) for pid in (first, second))


def test_a_signal_drains_all_and_leaves_nobody(team):
    with serve(team, "--log-level", "info") as process, silent_upstream() as (url, wait_taken):
        pids = team.pids()
        caller = Caller(team.socket)
        caller.get(url)
        wait_taken()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(team), "nobody is let in")
        # One worker has nothing to finish, the other has a call.
        wait_until(lambda: sum(map(is_alive, pids)) == 1, "the idle one is gone")
        assert process.poll() is None
        code, _ = end(process, signal.SIGINT)
        assert code == ExitCode.FORCED
        assert caller.receive() is END_OF_STREAM
        caller.close()
        assert not any(map(is_alive, pids))
    assert list(Path(team.socket).parent.iterdir()) == []


def test_a_manager_that_signals_every_process_cuts_nothing(team):
    gate = threading.Event()
    with answering(gate) as url, serve(team) as process:
        pids = team.pids()
        caller = Caller(team.socket)
        caller.get(url)
        wait_until(lambda: team.call("status")["in_flight"] == 1, "it is under way")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(team), "nobody is let in")
        for pid in pids:
            with suppress(ProcessLookupError):  # the idle one may be gone
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: sum(map(is_alive, pids)) == 1, "the idle one is gone")
        gate.set()
        answer = caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert answer.error_class is ErrorClass.SUCCESS
        caller.close()
        assert end(process)[0] == ExitCode.OK


def test_calls_in_flight_are_finished_in_their_time(team):
    with (
        serve(team, "--drain-s", "0.3") as process,
        silent_upstream() as (url, wait_taken),
    ):
        caller = Caller(team.socket)
        caller.get(url)
        wait_taken()
        code, _ = end(process, signal.SIGINT)
        assert code == ExitCode.OK
        cut = caller.receive()
        assert isinstance(cut, ExecuteResponse)
        assert cut.error_class is ErrorClass.TRANSIENT
        caller.close()


def test_workers_drain_when_their_supervisor_is_dead(team):
    with serve(team) as process:
        pids = team.pids()
        process.kill()
        wait_until(lambda: not any(map(is_alive, pids)), "the workers have ended")
        process.wait()
        with serve(team) as again:
            assert len(team.pids()) == 2
            assert end(again, signal.SIGTERM)[0] == ExitCode.OK


def test_a_worker_told_to_end_by_hand_is_replaced(team):
    with serve(team) as process:
        first = team.pids()[0]
        os.kill(first, signal.SIGINT)  # a terminal's, which is none of its business
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: first not in team.pids(), "it has ended")
        wait_until(lambda: team.states() == ["serving"] * 2, "another serves")
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK


def test_a_worker_that_hangs_is_told_of_as_such(team):
    with serve(team) as process:
        first, second = team.pids()
        os.kill(second, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            # The connection may have to wait a moment until the other one takes it.
            assert sorted(team.states()) == ["not answering", "serving"]
            assert time.monotonic() - began_s < 10
            metrics = Scraped(team.call("status", metrics=True)["metrics"].encode())
            assert metrics.value("vastar_workers", state="not answering") == 1
            with pytest.raises(Exception, match=f"pid {second}: it does not answer"):
                team.call("reload")
        finally:
            os.kill(second, signal.SIGCONT)
        wait_until(lambda: team.states() == ["serving"] * 2, "it answers")
        assert team.pids() == [first, second]
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK


def test_all_take_up_a_new_configuration_or_none_does(team, tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text("[http]\ndefault_timeout_s = 5\n")
    with serve(team, "--config", str(file)) as process:
        file.write_text("[http]\ndefault_timeout_s = 6\n[server]\nworkers = 3\n")
        assert team.call("reload") == {"applied": ["http.default_timeout_s"], "needs_restart": []}
        pids = team.pids()
        broken = tmp_path / "broken.pem"
        broken.write_text("no certificate")
        file.write_text(f'[http]\ndefault_timeout_s = 7\n[tls]\nca_file = "{broken}"\n')
        with pytest.raises(Exception, match=r"(?s)worker 0, pid \d+: .*worker 1, pid \d+: "):
            team.call("reload")
        file.write_text("[http]\ndefault_timeout_s = junk\n")
        with pytest.raises(Exception, match="is not valid TOML"):
            team.call("reload")
        process.send_signal(signal.SIGHUP)
        # The file is unusable: whoever is started now gets what the others have.
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: pids[0] not in team.pids(), "its death is told")
        wait_until(lambda: team.states() == ["serving"] * 2, "it serves again")
        file.write_text("[http]\ndefault_timeout_s = 6\n")
        assert team.call("reload") == {"applied": [], "needs_restart": []}
        # SIGHUP to one worker is a reload of all.
        file.write_text("[http]\ndefault_timeout_s = 8\n")
        os.kill(team.pids()[0], signal.SIGHUP)
        code, logged = end_after_reloads(process, team)
    assert code == ExitCode.OK
    assert logged.count('"applied":["http.default_timeout_s"]') == 6  # twice by each of three


def end_after_reloads(process, team: Team) -> tuple[int, str]:
    wait_until(lambda: not team.call("reload")["applied"], "nothing is left to take up")
    return end(process, signal.SIGTERM)


def test_what_keeps_a_worker_from_starting_ends_all_and_is_said_once(team, tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    file = tmp_path / "vastar.toml"
    file.write_text(f'[tls]\nca_file = "{broken}"\n')
    done = vastar("serve", "--socket", team.socket, "--workers", "3", "--config", str(file))
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.count("vastar: ") == 1
    assert str(broken) in done.stderr
    assert not Path(team.socket).exists()


def test_counts_of_all_are_added_and_those_of_the_dead_stay(team):
    with serve(team, "--metrics-listen", "127.0.0.1:0") as process:
        with callers(team, 6) as open_ones:
            for caller in open_ones:
                caller.get("http://127.0.0.1:1/")
                assert isinstance(caller.receive(), ExecuteResponse)
        told = team.call("status", verbose=True, metrics=True)
        accepted = [row["calls_accepted"] for row in told["workers"]]
        assert sum(accepted) == told["calls_accepted"] == 7
        assert min(accepted) >= 2
        assert told["in_flight"] == 0
        assert told["pipeline"]

        def failed() -> float:
            text = team.call("status", metrics=True)["metrics"]
            scraped = Scraped(text.encode())
            family = scraped.families["vastar_calls_total"]
            return sum(
                each.value for each in family.samples if each.labels.get("connector") == "http"
            )

        assert failed() == 6
        first = told["workers"][0]["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in team.pids(), "its death is told")
        assert failed() == 6
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK


def test_from_outside_it_is_one_runtime(team, tmp_path):
    log = tmp_path / "log"
    where = ("--socket", team.socket)
    started = vastar("start", *where, "--workers", "2", "--log-file", str(log))
    assert started.returncode == ExitCode.OK, started.stderr
    status = vastar("status", *where)
    assert status.returncode == ExitCode.OK
    lines = status.stdout.splitlines()
    (pid,) = [word for word in lines[0].split(", ") if word.startswith("pid ")]
    assert f"{pid}," in started.stdout
    assert [line.split()[2] for line in lines if line.split()[0] in {"0", "1"}][-2:] == [
        "serving",
        "serving",
    ]
    assert vastar("clean", *where).returncode == ExitCode.ALREADY_RUNNING
    again = vastar("start", *where, "--workers", "2", "--log-file", str(log))
    assert again.returncode == ExitCode.ALREADY_RUNNING
    assert vastar("reload", *where).returncode == ExitCode.OK
    stopped = vastar("stop", *where)
    assert (stopped.returncode, stopped.stdout) == (ExitCode.OK, f"stopped: unix:{team.socket}\n")
    assert vastar("status", *where).returncode == ExitCode.NOT_RUNNING


def test_one_worker_is_one_process(team):
    with serve(team, workers=1) as process:
        assert children(process.pid) == []
        assert "workers" not in team.call("status")
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK


def classes_of_calls(url: str, by: list[Caller]) -> list[ErrorClass]:
    """What becomes of a call by each, all at once."""
    for caller in by:
        caller.get(url)
    answers = [caller.receive() for caller in by]
    return [each.error_class for each in answers if isinstance(each, ExecuteResponse)]


def test_a_limit_is_of_all_workers_together(team, tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text("[defaults.tenant_rate_limit]\nlimit = 5\nperiod_s = 3600\nmax_waiting = 0\n")
    with answering() as url, serve(team, "--config", str(file)) as process:
        with callers(team, 8) as open_ones:
            assert spread(team, 8)[0] >= 3
            classes = [each for _ in range(3) for each in classes_of_calls(url, open_ones)]
        assert classes.count(ErrorClass.SUCCESS) == 5
        assert classes.count(ErrorClass.RATE_LIMITED) == 19
        # What one has used up is used up for who comes in its place.
        first = team.pids()[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in team.pids(), "its death is told")
        wait_until(lambda: team.states() == ["serving"] * 2, "it serves again")
        with callers(team, 4) as open_ones:
            assert classes_of_calls(url, open_ones) == [ErrorClass.RATE_LIMITED] * 4
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK
