"""Calls through the transport over a fake network in virtual time: answers, limits, ends."""

import json
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import House, make_request
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    FaultKind,
    Phase,
    Progress,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.fake import Serve

Hosts = Callable[..., None]


async def test_a_call_and_what_is_known_of_it(house: House) -> None:
    async with await house.ask("/dup?x=1") as response:
        assert response.status == 200
        assert response.reason == b"X"
        assert response.http_version == "1.1"
        assert response.headers == [
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x-d", b"first"),
            (b"x-d", b"second"),
            (b"x-d", b"third"),
            (b"x-empty", b""),
            (b"content-length", b"3"),
        ]
        assert await response.read_some() == b"dup"
        assert await response.read_some() == b""
        assert await response.read_some() == b""
    progress = house.progress
    assert progress.disposition is Disposition.COMPLETED
    assert (progress.request_begun, progress.request_sent) == (True, True)
    assert (progress.reused, progress.resent) == (False, False)
    assert progress.first_byte_us == progress.connect_us == 0
    house.check_nothing_is_left()


@pytest.mark.parametrize(
    ("method", "body", "sent", "framing"),
    [
        (b"GET", None, b"", None),
        (b"GET", b"", b"", "0"),
        (b"POST", None, b"", "0"),
        (b"DELETE", None, b"", None),
        (b"POST", b"abc", b"abc", "3"),
        (b"PUT", memoryview(b"xabcx")[1:4], b"abc", "3"),
        (b"PATCH", [b"a", bytearray(b"b"), memoryview(b"c")], b"abc", "3"),
        (b"POST", [b"z" * 70_000] * 5, b"z" * 350_000, "350000"),
    ],
)
async def test_the_request_arrives_as_it_was_given(
    house: House, method: bytes, body: object, sent: bytes, framing: str | None
) -> None:
    headers = [(b"X-Twice", b"1"), (b"x-twice", b"2"), (b"X-Latin", b"caf\xe9")]
    _, text = await house.fetch("/echo?q=%20", method=method, body=body, headers=headers)
    seen = json.loads(text)
    assert (seen["method"], seen["target"]) == (method.decode(), "/echo?q=%20")
    expected = [["host", "api.test"], ["X-Twice", "1"], ["x-twice", "2"], ["X-Latin", "café"]]
    assert seen["headers"] == expected + ([["content-length", framing]] if framing else [])
    assert seen["body"] == sent.decode()


@pytest.mark.parametrize(
    ("target", "status", "body", "persists"),
    [
        ("/small", 200, b'{"ok": true, "msg": "hello world"}', True),
        ("/binary", 200, bytes(range(256)), True),
        ("/big?n=3000", 200, b"y" * 3000, True),
        ("/big?n=0", 200, b"", True),
        ("/chunked", 200, b"ab0ab1ab2", True),
        ("/sse?n=2&gap=1000", 200, None, True),
        ("/drip?n=5", 200, b".....", True),
        ("/early", 200, b'{"early": 1}', True),
        ("/status/204", 204, b"", True),
        ("/status/304", 304, b"", True),
        ("/status/503", 503, b"status body 503", True),
        ("/nolen", 200, b"until close", False),
        ("/http10", 200, b"old", False),
    ],
)
@pytest.mark.parametrize("cut", [65536, 1])
async def test_every_framing_and_whether_the_connection_is_kept(
    house: House, cut: int, *, target: str, status: int, body: bytes | None, persists: bool
) -> None:
    for _ in range(2):
        async with await house.ask(target) as response:
            house.network.channels[-1].receive_limit_bytes = cut
            assert response.status == status
            received = await response.read_all()
            assert body is None or received == body
            assert response.ended
        assert house.progress.disposition is Disposition.COMPLETED
    assert house.counts == (0, int(persists), 0)
    assert len(house.network.connected) == (1 if persists else 2)
    house.check_nothing_is_left()


async def test_head_has_no_body_and_the_next_request_is_not_confused(house: House) -> None:
    for method in (b"HEAD", b"GET", b"HEAD", b"HEAD", b"GET"):
        async with await house.ask("/small", method=method) as response:
            assert dict(response.headers)[b"content-length"] == b"34"
            assert len(await response.read_all()) == (0 if method == b"HEAD" else 34)
    assert len(house.network.connected) == 1


@pytest.mark.parametrize(
    ("target", "phase", "kind", "cause", "disposition"),
    [
        (
            "/closenow",
            Phase.HEAD,
            FaultKind.RESET,
            "closed before the response",
            Disposition.SENT_NO_RESPONSE,
        ),
        (
            "/reset",
            Phase.HEAD,
            FaultKind.RESET,
            "connection reset",
            Disposition.SENT_NO_RESPONSE,
        ),
        (
            "/garbage",
            Phase.HEAD,
            FaultKind.GARBLED,
            "invalid HTTP: no HTTP/1.x status line",
            Disposition.RESPONSE_STARTED,
        ),
        (
            "/short",
            Phase.BODY,
            FaultKind.RESET,
            "response cut short: 9 of 100 bytes",
            Disposition.RESPONSE_STARTED,
        ),
        (
            "/sse?n=1&done=0&cut=1",
            Phase.BODY,
            FaultKind.RESET,
            "response cut short: 64 bytes",
            Disposition.RESPONSE_STARTED,
        ),
    ],
)
async def test_what_an_upstream_can_do_wrong(
    house: House,
    target: str,
    phase: Phase,
    kind: FaultKind,
    *,
    cause: str,
    disposition: Disposition,
) -> None:
    with pytest.raises(TransportError) as caught:
        await house.fetch(target, method=b"POST")
    error = caught.value
    assert (error.phase, error.cause, error.disposition) == (phase, cause, disposition)
    assert error.kind is kind
    assert error.origin == "api.test:80"
    assert str(error) == f"{phase.value} failed for api.test:80: {cause}"
    assert not error.timed_out
    assert house.progress.disposition is disposition
    house.check_nothing_is_left()


# Limits.


async def test_a_key_never_has_more_connections_than_it_may(house: House) -> None:
    house.make(TransportSettings(connections_per_key=3))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(house.fetch, "/sleep?ms=1000")
        await trio.sleep(0.5)
        assert house.counts == (3, 0, 7)
    assert trio.current_time() == pytest.approx(4.0)
    assert len(house.network.connected) == 3
    assert house.counts == (0, 3, 0)


async def test_a_thousand_waiters_are_served_in_the_order_they_came(house: House) -> None:
    house.make(TransportSettings(connections_per_key=2))
    ended: list[int] = []

    async def call(number: int) -> None:
        progress = Progress()
        request = make_request("/sleep?ms=10")
        async with await house.transport.request(("t", "w"), request, progress) as response:
            await response.read_all()
        ended.append(number)
        assert progress.queued_us is None if number < 2 else progress.queued_us >= 0

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
            if number < 2:
                continue
            assert house.counts[2] >= number - 2 - len(ended)
    assert sorted(ended) == [*range(1000)]
    assert max(abs(place - number) for place, number in enumerate(ended)) <= 1
    assert len(house.network.connected) == 2


async def test_idle_connections_of_other_keys_make_room(house: House) -> None:
    house.make(TransportSettings(connections_total=2))
    for port in (1, 2, 3):
        await house.fetch(port=port)
    assert {status.origin for status in house.transport.stats()} == {
        "http://api.test:2",
        "http://api.test:3",
    }
    house.check_nothing_is_left()


async def test_a_waiting_call_shows_that_nothing_was_sent(house: House) -> None:
    house.make(TransportSettings(connections_per_key=1))
    async with await house.ask("/drip?n=100"):
        with trio.move_on_after(5) as scope:
            await house.ask()
        assert scope.cancelled_caught
        assert house.progress.phase is Phase.POOL
        assert house.progress.disposition is Disposition.NOT_SENT
        assert house.counts == (1, 0, 0)


async def test_a_deadline_during_the_head_closes_the_connection_at_once(house: House) -> None:
    with trio.move_on_after(5):
        await house.ask("/hang?s=1000")
    assert house.progress.phase is Phase.HEAD
    assert house.progress.disposition is Disposition.SENT_NO_RESPONSE
    await house.upstream.wait_for("client_closed_while_busy")
    assert trio.current_time() == 5
    house.check_nothing_is_left()


# The end.


async def test_closing_ends_the_calls_under_way_and_those_that_wait(house: House) -> None:
    house.make(TransportSettings(connections_per_key=3))
    await house.fetch(port=99)
    failed: list[tuple[str, FaultKind]] = []

    async def call(target: str) -> None:
        with pytest.raises(TransportError) as caught:
            await house.fetch(target)
        failed.append((caught.value.cause, caught.value.kind))

    async with trio.open_nursery() as nursery:
        for target in ("/hang", "/drip?n=1000", "/sleep?ms=100000", "/small", "/small"):
            nursery.start_soon(call, target)
            await trio.sleep(0.1)
        assert house.counts == (3, 1, 2)
        await house.transport.aclose()
    assert failed == [("the transport was closed", FaultKind.LOCAL)] * 5
    house.check_nothing_is_left()
    with pytest.raises(TransportError, match="waiting for a connection failed for api"):
        await house.fetch()


async def test_closing_while_a_connection_opens(house: House, serve: Hosts) -> None:
    serve(Serve(house.upstream.handle, after_s=3))
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(TransportError, match="was closed") as caught:
                await house.fetch(host="other.test")
            assert caught.value.kind is FaultKind.LOCAL

        nursery.start_soon(call)
        await trio.sleep(1)
        await house.transport.aclose()
    assert house.progress.disposition is Disposition.NOT_SENT
    house.check_nothing_is_left()
