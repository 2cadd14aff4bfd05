"""The fake runtime that ships with the package: what a connector's author can do with it."""

import threading

import pytest
import trio

from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import CallTimeout, ConnectorException, RuntimeUnavailable
from vastar_client.testing import HOLD, After, FakeRuntime, respond, respond_stream
from vastar_client.wire import Disposition, ErrorClass

URL = "http://api.test/x"


@pytest.mark.parametrize("payload_format", ["native", "json"])
def test_replies_in_turn_and_what_was_asked(payload_format):
    fake = FakeRuntime([respond(json={"n": 1}), respond(429, headers={"Retry-After": "2"})])
    with RuntimeClient(RuntimeConfig(payload_format=payload_format), dial=fake.dial) as client:
        assert client.post(URL, json={"q": "é"}, idempotency_key="k").json() == {"n": 1}
        assert client.get(URL, follow_redirects=False, decode_content=False).status_code == 429
        with pytest.raises(ConnectorException, match="FakeRuntime has no reply left for <HTTPReq"):
            client.get(URL)
    first, second, _ = fake.requests
    body = first.body if isinstance(first.body, str) else first.body.decode()
    assert (first.method, first.url, body) == ("POST", URL, '{"q":"é"}')
    assert first.get_header("content-type") == "application/json"
    assert first.idempotency_key == "k"
    assert (second.follow_redirects, second.decode_content) == (False, False)
    assert (first.follow_redirects, first.decode_content) == (True, True)


def test_a_function_decides():
    fake = FakeRuntime(lambda request: respond(404 if "missing" in request.url else 200))
    with fake, RuntimeClient(fake.config) as client:
        assert client.get(URL).status_code == 200
        assert client.get(URL + "/missing").status_code == 404


def test_an_answer_with_json_keeps_its_own_content_type():
    assert respond(json=1).headers == {"content-type": "application/json"}
    assert respond(json=1, headers={"Content-Type": "a/b"}).headers == {"content-type": "a/b"}


@pytest.mark.parametrize("payload_format", ["native", "json"])
def test_what_the_runtime_did_can_be_told(payload_format):
    fake = FakeRuntime(
        [respond(), respond(503, attempts=3, refused_by="cooldown:credential", retry_after_ms=70)]
    )
    with RuntimeClient(RuntimeConfig(payload_format=payload_format), dial=fake.dial) as client:
        first, second = client.get(URL), client.get(URL)
    assert (first.attempts, first.refused_by, first.retry_after_ms) == (1, None, 0)
    assert (second.attempts, second.refused_by) == (3, "cooldown:credential")
    assert second.retry_after_ms == 70


def test_what_the_runtime_did_is_told_at_the_end_of_a_stream():
    said = respond(503, body="x", refused_by="bulkhead:tenant", retry_after_ms=8)
    said.queued_us, said.backoff_us = 4, 5
    stream = respond_stream(["x"], attempts=3, refused_by="bulkhead:tenant", retry_after_ms=70)
    failed = ConnectorException("why", refused_by="rate_limit:tenant", queued_us=6, backoff_us=7)
    fake = FakeRuntime([said, stream, respond_stream(["x", failed], refused_by="a:b", attempts=2)])
    with RuntimeClient(dial=fake.dial) as client:
        with client.stream("GET", URL) as first:
            assert first.read() == b"x"
        with client.stream("GET", URL) as second:
            assert (second.read(), second.refused_by) == (b"x", "bulkhead:tenant")
        with client.stream("GET", URL) as third, pytest.raises(ConnectorException) as caught:
            third.read()
    assert (first.queued_us, first.backoff_us) == (4, 5)
    assert (first.refused_by, first.retry_after_ms) == ("bulkhead:tenant", 8)
    assert (second.attempts, second.retry_after_ms) == (3, 70)
    assert (caught.value.refused_by, caught.value.attempts) == ("rate_limit:tenant", 2)
    assert (caught.value.queued_us, caught.value.backoff_us) == (6, 7)


def test_failures_of_the_runtime_itself():
    error = ConnectorException(
        "circuit open", ErrorClass.TRANSIENT, disposition=Disposition.NOT_SENT, retry_after_ms=9
    )
    with (
        RuntimeClient(dial=FakeRuntime([error]).dial) as client,
        pytest.raises(ConnectorException, match="circuit open") as caught,
    ):
        client.get(URL)
    assert (caught.value.disposition, caught.value.retry_after_ms) == (Disposition.NOT_SENT, 9)


def test_a_mistake_in_the_function_shows_in_the_call():
    with (
        FakeRuntime(lambda _: 1 / 0) as fake,
        RuntimeClient(fake.config) as client,
        pytest.raises(ConnectorException, match="raised ZeroDivisionError"),
    ):
        client.get(URL)


def test_a_delay_on_a_real_clock():
    with FakeRuntime([After(0.01, respond())]) as fake, RuntimeClient(fake.config) as client:
        assert client.get(URL).ok


async def test_a_delay_on_a_virtual_clock_takes_no_time(autojump_clock):
    fake = FakeRuntime([After(3600, respond(body="patience"))])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.get(URL, timeout_s=4000)).text == "patience"


async def test_a_runtime_that_is_switched_off():
    fake = FakeRuntime()
    fake.available = False
    with pytest.raises(RuntimeUnavailable, match="switched off"):
        await AsyncRuntimeClient(dial=fake.dial).__aenter__()


def test_the_socket_exists_inside_the_block_only():
    fake = FakeRuntime([HOLD])
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        _ = fake.config
    with fake:
        config = fake.config
        assert config.use_environment is False
    with pytest.raises(RuntimeUnavailable, match="no such socket"):
        RuntimeClient(config).connect()


@pytest.mark.parametrize("reply", [HOLD, After(3, respond())])
async def test_a_call_that_waits_is_answered_at_its_deadline(autojump_clock, reply):
    fake = FakeRuntime([reply, respond(body="next")])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(CallTimeout, match="while the FakeRuntime held the call") as caught:
            await client.get(URL, timeout_s=2)
        assert trio.current_time() - begin == pytest.approx(2, abs=0.5)
        assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
        assert fake.held == []
        assert fake.cancelled == []
        assert (await client.get(URL)).text == "next"


def test_a_deadline_on_a_real_clock_over_a_socket():
    with FakeRuntime([HOLD, respond()]) as fake, RuntimeClient(fake.config) as client:
        client.connect()  # which may take longer than the call has
        with pytest.raises(CallTimeout, match="held the call"):
            client.get(URL, timeout_s=0.01)
        assert client.get(URL).ok


async def test_a_held_call_that_has_ended_takes_no_reply(autojump_clock):
    fake = FakeRuntime([HOLD, HOLD, After(9, respond()), respond(body="next")])
    async with AsyncRuntimeClient(dial=fake.dial) as client, trio.open_nursery() as nursery:

        async def timed_out():
            with pytest.raises(CallTimeout):
                await client.get(URL, timeout_s=1)

        nursery.start_soon(timed_out)
        with trio.move_on_after(0.5):
            await client.get(URL)
        expired, cancelled = fake.held
        await trio.sleep(2)
        for held in (expired, cancelled):
            held.reply(respond(body="too late"))
        with trio.move_on_after(1):
            await client.get(URL)
        assert (await client.get(URL)).text == "next"
        assert len(fake.cancelled) == 2


def test_delays_that_nobody_waits_for_end_with_the_runtime():
    before = threading.active_count()
    with FakeRuntime([After(60, respond()), HOLD, respond()]) as fake:
        client = RuntimeClient(fake.config)
        client.connect()
        for _ in range(2):
            with pytest.raises(CallTimeout):
                client.get(URL, timeout_s=0.01)
        client.close()
    names = {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= before + ("vastar-client" in names)


@pytest.mark.parametrize("reply", [None, "text", 200, After(0.01, None)])
def test_a_reply_that_is_none_is_named(reply):
    with (
        RuntimeClient(dial=FakeRuntime(lambda _: reply).dial) as client,
        pytest.raises(ConnectorException, match=r"gave (NoneType|str|int), which is no reply"),
    ):
        client.get(URL)


@pytest.mark.parametrize("reply", [respond(body=bytes(11_000_000)), respond(status_code="x")])
def test_a_reply_that_cannot_be_sent_says_so(reply):
    with RuntimeClient(dial=FakeRuntime([reply, respond()]).dial) as client:
        with pytest.raises(ConnectorException, match="reply of the FakeRuntime cannot be sent"):
            client.get(URL)
        assert client.get(URL).ok


def test_calls_of_the_http_connector_by_execute():
    fake = FakeRuntime(lambda _: respond(json=1))
    with RuntimeClient(dial=fake.dial) as client:
        client.execute("http", "request", {"url": URL, "query": {"a": 1}})
        for payload in ({"method": "GET"}, b"garbage", []):
            with pytest.raises(ConnectorException, match="the request cannot be read") as caught:
                client.execute("http", "request", payload)
            assert caught.value.error_class is ErrorClass.INVALID_REQUEST
    assert [(r.method, r.url) for r in fake.requests] == [("GET", URL + "?a=1")]
