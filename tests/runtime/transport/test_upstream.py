"""The test upstream itself, where other tests rely on it without looking."""

import socket

import pytest
import trio
import trio.testing

from tests.support.upstream import Upstream, threaded_upstream


def test_an_upstream_in_a_thread_answers_and_tells_what_it_saw() -> None:
    with threaded_upstream() as upstream:
        with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as sock:
            sock.sendall(b"GET /status/404?x HTTP/1.1\r\nHost: h\r\n\r\n")
            received = b""
            while not received.endswith(b"status body 404"):
                received += sock.recv(1000)
        assert received.startswith(b"HTTP/1.1 404 X\r\n")
        assert upstream.wait_for("req", method="GET")["target"] == "/status/404?x"
        upstream.wait_for("conn_close")
        with pytest.raises(trio.TooSlowError):
            upstream.wait_for("req", count=2, timeout_s=0.01)
        assert [event["ev"] for event in upstream.events] == ["conn_open", "req", "conn_close"]


async def test_waiting_for_an_event_that_happened_and_for_one_that_will() -> None:
    upstream = Upstream()
    upstream.note("req", conn=1, method="GET")
    assert (await upstream.wait_for("req", method="GET"))["conn"] == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream.wait_for, "later")
        await trio.testing.wait_all_tasks_blocked()
        upstream.note("later")
