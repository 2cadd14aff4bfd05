"""`serve`: which of the three it is to be."""

import argparse
import os
import socket
from typing import Any

import pytest

from vastar_runtime import server
from vastar_runtime.cli import _serve as under_test
from vastar_runtime.cli import main
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import ConfigError, Problem, RuntimeConfig
from vastar_runtime.workers import supervise
from vastar_runtime.workers.frames import FrameError
from vastar_runtime.workers.place import WorkerPlace


@pytest.fixture
def calls(monkeypatch, tmp_path) -> list[tuple[str, Any]]:
    """What is run in place of the real thing."""
    found: list[tuple[str, Any]] = []
    monkeypatch.setenv("VASTAR_SOCKET_PATH", str(tmp_path / "x"))

    def run(config: RuntimeConfig, load: Any) -> server.Ending:
        found.append(("alone", load().server.workers))
        return server.Ending.DRAINED

    def supervised(config: RuntimeConfig, load: Any, now_s: float) -> tuple[int, str | None]:
        found.append(("supervised", load().server.workers))
        return 2, "no certificate\nno key"

    monkeypatch.setattr(server, "run", run)
    monkeypatch.setattr(supervise, "supervise", supervised)
    monkeypatch.setattr("vastar_runtime.logs.configure", lambda *_: None)
    return found


@pytest.mark.parametrize("arguments", [[], ["--workers", "1"], ["--workers=auto"]])
def test_one_worker_needs_no_supervisor(arguments, calls, monkeypatch):
    monkeypatch.setattr(supervise.os, "sched_getaffinity", lambda _: {0})
    assert main(["serve", *arguments]) == ExitCode.OK
    assert [name for name, _ in calls] == ["alone"]


def test_several_are_supervised_and_a_refusal_is_said_once(calls, capsys):
    assert main(["serve", "--workers", "3"]) == ExitCode.USAGE
    assert calls == [("supervised", 3)]
    assert capsys.readouterr().err == "vastar: no certificate\nvastar: no key\n"


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (server.Ending.DRAINED, ExitCode.OK),
        (server.Ending.DRAIN_TIME_OVER, ExitCode.OK),
        (server.Ending.FORCED, ExitCode.FORCED),
    ],
)
def test_a_worker_serves_at_its_place(ending, status, monkeypatch):
    places: list[WorkerPlace] = []

    def run_worker(place: WorkerPlace) -> server.Ending:
        places.append(place)
        return ending

    monkeypatch.setattr(server, "run_worker", run_worker)
    place = WorkerPlace(1, 2, 9)
    assert main(["serve", "--worker-place", place.to_text()]) == status
    assert places == [place]


@pytest.mark.parametrize("fault", [FrameError("it is gone"), OSError("bad descriptor")])
def test_who_is_no_worker_is_told_so(fault, monkeypatch, capsys):
    def run_worker(_: WorkerPlace) -> server.Ending:
        raise fault

    monkeypatch.setattr(server, "run_worker", run_worker)
    assert main(["serve", "--worker-place", WorkerPlace(1, 2, 9).to_text()]) == ExitCode.USAGE
    assert capsys.readouterr().err == f"vastar: this is not the place of a worker: {fault}\n"


def test_a_place_that_is_none_is_told(capsys):
    assert main(["serve", "--worker-place", "junk"]) == ExitCode.USAGE
    assert "no place of a worker" in capsys.readouterr().err


def test_a_worker_leaves_it_to_the_supervisor_to_say_why_it_cannot_serve(monkeypatch, capsys):
    def run_worker(_: WorkerPlace) -> server.Ending:
        raise ConfigError([Problem("x", "", "y", "z")])

    monkeypatch.setattr(server, "run_worker", run_worker)
    assert main(["serve", "--worker-place", WorkerPlace(1, 2, 9).to_text()]) == ExitCode.USAGE
    assert capsys.readouterr() == ("", "")


def test_the_option_of_workers_is_no_users_business(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    assert "--workers" in told
    assert "worker-place" not in told
    assert callable(under_test.serve)
    assert argparse.SUPPRESS not in told


def test_descriptors_that_are_no_sockets_are_no_place(capsys, tmp_path):
    with socket.socket() as other:
        place = WorkerPlace(0, 2, os.dup(other.fileno()))
    os.close(place.control_fd)
    assert main(["serve", "--worker-place", place.to_text()]) == ExitCode.USAGE
    assert "not the place of a worker" in capsys.readouterr().err
