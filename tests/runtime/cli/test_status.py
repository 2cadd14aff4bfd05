"""What `status` prints, for people and for scripts."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import fake_runtime, serving
from vastar_client.wire import (
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    Message,
)
from vastar_runtime.cli import _status, main
from vastar_runtime.cli._status import describe
from vastar_runtime.runtime_files import RuntimeLock

_FOUND = {
    "pid": 12,
    "version": "1.2.3",
    "uptime_s": 7384.2,
    "draining": False,
    "in_flight": 2,
    "connections": 3,
    "available_credits": 254,
    "listeners": ["unix:/x", "tcp:127.0.0.1:5000"],
    "pools": [
        {
            "tenant": "acme",
            "workspace": "",
            "origin": "https://api.test:443",
            "idle": 1,
            "active": 10,
            "waiting": 0,
        }
    ],
}
_DATABASES = [
    {
        "tenant": "acme",
        "source": "orders",
        "origin": "postgres://db:5432",
        "open": 3,
        "idle": 1,
        "active": 2,
        "waiting": 4,
    }
]


def test_the_lines_for_people() -> None:
    assert list(describe(_FOUND, "unix:/x")) == [
        "running, pid 12, version 1.2.3, up 2 h 3 min",
        "listening on unix:/x, tcp:127.0.0.1:5000",
        "2 calls in flight, 3 connections, 254 credits left",
        "connections to upstreams:",
        "  tenant  workspace  origin                idle  active  waiting",
        "  acme    -          https://api.test:443  1     10      0",
    ]


def test_databases_have_a_table_of_their_own() -> None:
    lines = list(describe({**_FOUND, "pools": [], "databases": _DATABASES}, "unix:/x"))
    assert lines[3:] == [
        "connections to databases:",
        "  tenant  source  origin              open  idle  active  waiting",
        "  acme    orders  postgres://db:5432  3     1     2       4",
    ]


@pytest.mark.parametrize(
    ("uptime_s", "words"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h")],
)
def test_uptimes(uptime_s: float, words: str) -> None:
    assert next(describe({"uptime_s": uptime_s}, "x")) == f"running, up {words}"


def test_a_running_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.sock")
    with serving("--socket", path, "--tcp", "0") as process:
        assert main(["status", "--socket", path, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["running"] is True
        assert found["pid"] == process.pid
        assert found["in_flight"] == 0
        assert found["listeners"][0] == f"unix:{path}"
        assert main(["status", "--socket", path]) == 0
        assert capsys.readouterr().out.startswith(f"running, pid {process.pid}, version ")
        # Over TCP nobody knows who asks: a health check is all there is.
        tcp = found["listeners"][1].removeprefix("tcp:")
        assert main(["status", "--tcp", tcp]) == 0
        assert "(only what a health check tells" in capsys.readouterr().out


def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.sock")
    assert main(["status", "--socket", path]) == 3
    assert f"start one with: vastar start --socket {path}\n" in capsys.readouterr().out
    assert main(["status", "--socket", path, "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"running": False, "pid": None}


def test_one_that_takes_no_calls_but_holds_its_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r.sock")
    lock = RuntimeLock.acquire(path + ".lock", "x")
    assert main(["status", "--socket", path]) == 3
    assert f"pid {os.getpid()} holds its lock: it is starting" in capsys.readouterr().out
    lock.tell_leaving()
    assert main(["status", "--socket", path]) == 3
    assert "it is finishing calls before it stops" in capsys.readouterr().out
    lock.release()


def test_one_that_keeps_its_state_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published runtime, or another user's: what a health check tells is shown."""

    def answer(message: Message) -> Message:
        if isinstance(message, HealthCheck):
            return HealthResponse(healthy=True, active_requests=4)
        return ExecuteResponse(1, ErrorClass.INVALID_REQUEST, "Unknown connector: vastar")

    path = str(tmp_path / "r.sock")
    with fake_runtime(path, answer):
        assert main(["status", "--socket", path]) == 0
    out = capsys.readouterr().out
    assert "4 calls in flight" in out
    assert "Unknown connector: vastar" in out


_DETAILS = {
    "pipeline": ["deadline", "connector", "admission"],
    "policies": [
        {"policy": "retry", "mode": "enforce", "passed": 12, "applied": 3, "observed": 0},
        {"policy": "rate_limit", "mode": "observe", "passed": 1, "applied": 0, "observed": 99},
    ],
    "breakers": [
        {"scope": "origin", "tenant": "", "origin": "https://a.test", "state": "closed"},
        {"scope": "tenant", "tenant": "acme", "origin": "https://b.test", "state": "open"},
    ],
    "limits": [
        {"policy": "rate_limit", "scope": "tenant", "tenant": "acme", "waiting": 4},
        {"policy": "token_limit", "scope": "origin", "waiting": 0, "origin": "https://b.test"},
    ],
}


def test_the_details_for_people() -> None:
    lines = list(describe({**_FOUND, **_DETAILS}, "unix:/x", verbose=True))
    assert lines[:6] == list(describe(_FOUND, "unix:/x"))
    assert lines[6:] == [
        "a call goes through: deadline > connector > admission",
        "verdicts of the policies:",
        "  policy      mode     passed  applied  observed",
        "  retry       enforce  12      3        0",
        "  rate_limit  observe  1       0        99",
        "circuits that are not closed:",
        "  scope   tenant  origin          state",
        "  tenant  acme    https://b.test  open",
        "limits:",
        "  policy       scope   tenant  waiting  origin",
        "  rate_limit   tenant  acme    4        -",
        "  token_limit  origin  -       0        https://b.test",
    ]


def test_details_are_shown_on_request_and_where_there_are_any() -> None:
    plain = list(describe(_FOUND, "x"))
    assert list(describe({**_FOUND, **_DETAILS}, "x")) == plain
    assert list(describe(_FOUND, "x", verbose=True)) == plain
    calm = {**_FOUND, "breakers": [], "limits": [], "policies": [], "pipeline": []}
    assert list(describe(calm, "x", verbose=True)) == [
        *plain,
        "circuits that are not closed: none",
    ]


def _teller(**told: object) -> Callable[[Message], Message]:
    def answer(message: Message) -> Message:
        assert isinstance(message, ExecuteRequest)
        return ExecuteResponse(message.request_id, payload=json.dumps(told).encode())

    return answer


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {}),
        (["--json"], {}),
        (["--metrics"], {"metrics": True}),
        (["--verbose"], {"verbose": True}),
        (["--json", "--verbose", "--metrics"], {"metrics": True, "verbose": True}),
    ],
)
def test_only_what_is_wanted_is_asked_for(
    tmp_path: Path, options: list[str], asked: dict[str, bool]
) -> None:
    path = str(tmp_path / "r.sock")
    with fake_runtime(path, _teller(pid=1, metrics="a 1.0\n")) as heard:
        assert main(["status", "--socket", path, *options]) == 0
    (request,) = heard
    assert isinstance(request, ExecuteRequest)
    assert (request.connector_name, request.operation) == ("vastar", "status")
    assert isinstance(request.payload, bytes | memoryview)
    assert json.loads(bytes(request.payload)) == asked


def test_the_metrics_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '# HELP a A.\n# TYPE a gauge\na{b="\\n"} 1.0\n'
    path = str(tmp_path / "r.sock")
    with fake_runtime(path, _teller(pid=1, metrics=text)):
        assert main(["status", "--socket", path, "--metrics"]) == 0
        assert capsys.readouterr().out == text
        assert main(["status", "--socket", path, "--metrics", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"] == text


def test_a_runtime_without_metrics_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r.sock")
    with fake_runtime(path, _teller(pid=1)):
        assert main(["status", "--socket", path, "--metrics"]) == 1
    assert capsys.readouterr() == ("", f"vastar: unix:{path}: this runtime tells no metrics\n")


def test_a_runtime_that_keeps_its_metrics_to_itself_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(message: Message) -> Message:
        if isinstance(message, HealthCheck):
            return HealthResponse(healthy=True)
        return ExecuteResponse(1, ErrorClass.INVALID_REQUEST, "not allowed")

    path = str(tmp_path / "r.sock")
    with fake_runtime(path, answer):
        assert main(["status", "--socket", path, "--metrics"]) == 1
    assert capsys.readouterr() == ("", f"vastar: unix:{path}: status: not allowed\n")


def test_workers_are_a_table_and_one_that_does_not_answer_has_blanks() -> None:
    row = {"worker": 0, "pid": 5, "state": "serving", "uptime_s": 61.5, "restarts": 0}
    counts = {"connections": 3, "in_flight": 1, "calls_accepted": 9}
    silent = {**row, "worker": 1, "state": "not answering", "uptime_s": None, "restarts": 2}
    lines = list(describe({**_FOUND, "workers": [{**row, **counts}, silent]}, "x"))
    at = lines.index("workers:")
    assert [" ".join(line.split()) for line in lines[at + 1 : at + 4]] == [
        "worker pid state up restarts connections in_flight calls_accepted",
        "0 5 serving 1 min 1 s 0 3 1 9",
        "1 5 not answering - 2 - - -",
    ]


def test_a_worker_that_reached_no_other_says_so() -> None:
    assert "(nobody answers)" in describe({**_FOUND, "alone": "nobody answers"}, "x")


def test_tenants_are_told_what_they_used_and_what_is_left():
    found = {
        "tenants": [
            {"tenant": "", "workspace": "", "calls": 2, "llm_tokens": 0},
            {"tenant": "acme", "workspace": "", "calls": 3, "llm_tokens": 7},
        ],
        "limits": [
            {"policy": "rate_limit", "scope": "tenant", "of": "acme", "available": 2.0},
            {"policy": "rate_limit", "scope": "origin", "of": "https://h.test", "available": 9.0},
        ],
    }
    assert list(_status._tenants(found)) == [
        "used since the start:",
        "  tenant               workspace  calls  llm_tokens",
        "  (the commands' own)  -          2      0",
        "  acme                 -          3      7",
        "left of limits:",
        "  policy      scope   of    available",
        "  rate_limit  tenant  acme  2.0",
    ]
    assert list(_status._tenants({})) == ["used since the start: nothing"]


def test_a_name_that_a_caller_chose_writes_nothing_to_the_terminal_but_itself():
    row = {"tenant": "acme\x1b[2J\n  forged  0\x9b\u202e", "workspace": "prüf", "calls": 1}
    for lines in (
        [*_status._tenants({"tenants": [row]})],
        [*describe({**_FOUND, "pools": [{**row, "origin": "http://h\r"}]}, "x")],
    ):
        assert all(line.isprintable() for line in lines)
        (told,) = (line for line in lines if "acme" in line)
        assert r"acme\x1b[2J\n  forged  0\x9b\u202e" in told
        assert "prüf" in told
