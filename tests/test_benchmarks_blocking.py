"""The benchmark of the blocking client works: its echo server, its loads, and a short run."""

import sys
from collections.abc import Iterator

import pytest

from benchmarks import _blocking_load, blocking_client
from benchmarks._blocking_load import ThreadsSpec, TurnsSpec
from benchmarks._load import WrongAnswer, check_answer, decoded_answer
from benchmarks._processes import running_upstream
from benchmarks._report import Options
from benchmarks._upstream import SMALL_BODY
from benchmarks._wire_echo import Peer
from vastar_client.testing import FakeRuntime, respond
from vastar_client.wire import (
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    Role,
)


def frames_of(*messages: ExecuteRequest | HealthCheck) -> bytes:
    connection = Connection(Role.CLIENT)
    return b"".join(part for message in messages for part in connection.send(message))


def answers_in(data: bytes) -> list[ExecuteResponse]:
    connection = Connection(Role.CLIENT)
    connection.receive_data(data)
    answers = []
    while isinstance(event := connection.next_event(), ExecuteResponse):
        answers.append(event)
    return answers


IDS = (0, 1, 2**40, 2**64 - 1)
CALLS = frames_of(
    *(ExecuteRequest(each, "t", "http", "request", trace_id="x" * (each % 7)) for each in IDS)
)


@pytest.mark.parametrize("size_bytes", [1, 7, 100, len(CALLS)])
def test_the_echo_answers_each_call_as_the_runtime_would(size_bytes: int) -> None:
    peer = Peer()
    pieces = [CALLS[at : at + size_bytes] for at in range(0, len(CALLS), size_bytes)]
    data = b"".join(map(peer.take, pieces))
    answers = answers_in(data)
    assert [answer.request_id for answer in answers] == list(IDS)
    assert {answer.error_class for answer in answers} == {ErrorClass.SUCCESS}
    frame_bytes = len(data) // len(IDS)
    check_answer(data[:frame_bytes])
    assert decoded_answer(data[:frame_bytes]) == answers[0]


def test_the_echo_answers_nothing_else() -> None:
    with pytest.raises(ValueError, match="type 2"):
        Peer().take(frames_of(HealthCheck()))


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    with FakeRuntime(lambda _: respond(body=SMALL_BODY)) as fake:
        yield fake


def test_threads_that_share_a_client_are_counted(runtime: FakeRuntime) -> None:
    path = runtime.config.socket_path
    sample = _blocking_load.share(ThreadsSpec("http://x/", path, 3, seconds=0.1, warm_s=0.02))
    assert sample.requests_per_s > 0
    assert 0 < sample.p50_us <= sample.p99_us
    assert len(runtime._peers) == 1, "they share one connection"


def test_clients_take_turns(runtime: FakeRuntime) -> None:
    with running_upstream() as upstream:
        spec = TurnsSpec(f"{upstream}/small", runtime.config.socket_path, seconds=0.01, warm_s=0.01)
        sample = _blocking_load.take_turns(spec)
    assert list(sample.p50_us) == ["runtime", "requests", "requests, no environment", "httpx"]
    assert all(0 < sample.p50_us[who] <= sample.p99_us[who] for who in sample.p50_us)


def test_a_wrong_answer_ends_it() -> None:
    with FakeRuntime([respond(body=b"other")]) as fake:
        spec = ThreadsSpec("http://x/", fake.config.socket_path, 1, seconds=0.05, warm_s=0.01)
        with pytest.raises(WrongAnswer, match="5 bytes"):
            _blocking_load.share(spec)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_it_runs() -> None:
    report = blocking_client.run(Options(seconds=0.1, rounds=1))
    assert [row["who"] for row in report.rows] == [
        "1 thread, runtime",
        "1 thread, requests",
        "1 thread, requests, no environment",
        "1 thread, httpx",
        "16 deep, wire echo, raw load",
        "64 deep, wire echo, raw load",
        "16 threads, wire echo",
        "16 threads, runtime",
    ]
    assert len(report.claims) == 3
