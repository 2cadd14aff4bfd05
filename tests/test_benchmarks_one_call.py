"""The benchmarks of single calls and of the start work: no timing is asserted here."""

import socket
import sys
import threading
from itertools import count

import pytest

from benchmarks import _one_call, connection_reuse, one_deep, start
from benchmarks._load import WrongAnswer
from benchmarks._one_call import OneCallSpec
from benchmarks._report import Options
from benchmarks._upstream import SMALL_RESPONSE
from vastar_client.wire import Connection, HealthCheck, HealthResponse, Role


def health() -> bytes:
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(_one_call._frame(HealthCheck()))
    runtime.next_event()
    return b"".join(runtime.send(HealthResponse(healthy=True)))


def test_an_exchange_waits_for_the_whole_frame() -> None:
    near, far = socket.socketpair()
    frame = health()
    with near, far:

        def answer() -> None:
            far.recv(100)
            for at in range(len(frame)):
                far.send(frame[at : at + 1])

        thread = threading.Thread(target=answer)
        thread.start()
        received = _one_call._exchange(near, b"ask")
        thread.join()
    assert received == frame
    _one_call._check_health(received)


def test_an_end_instead_of_an_answer_is_told() -> None:
    near, far = socket.socketpair()
    with near:
        far.send(b"\0")
        far.close()
        with pytest.raises((WrongAnswer, ConnectionError)):
            _one_call._exchange(near, b"ask")


def test_only_the_upstreams_own_answer_is_one() -> None:
    _one_call._check_direct(SMALL_RESPONSE)
    for wrong in (SMALL_RESPONSE[:-1], SMALL_RESPONSE.replace(b"200", b"404"), b""):
        with pytest.raises(WrongAnswer):
            _one_call._check_direct(wrong)


def test_warm_calls_are_not_told() -> None:
    numbers = count()
    seen: list[bytes] = []
    taken_us = _one_call._timed(3, lambda: b"%d" % next(numbers), seen.append)
    assert seen == [b"0", b"1", b"2"]
    assert len(taken_us) == 3
    assert min(taken_us) > 0


def test_each_workspace_has_its_own_call() -> None:
    frames = {_one_call._get("http://x/", name) for name in ("", "a", "b")}
    assert len(frames) == 3
    assert OneCallSpec("first", "", "", 1).warm > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_they_run() -> None:
    short = Options(seconds=0.05, rounds=1)
    assert [row["what"] for row in one_deep.run(short).rows] == list(one_deep._KINDS.values())
    assert len(connection_reuse.run(short).rows) == 2
    assert len(start.run(short).rows) == 3
