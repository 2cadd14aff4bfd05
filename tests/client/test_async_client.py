"""Calls of the async client on Trio, in memory, under virtual time."""

import re
import time

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, echo
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
    ConnectorException,
)
from vastar_client.request import GET, HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.testing import HOLD, After, FakeRuntime, respond
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteRequest,
    PayloadFormat,
)

TOLD = ("attempts", "queued_us", "backoff_us", "refused_by", "retry_after_ms")
"""What answers and failures say of what the runtime did."""


@pytest.mark.parametrize("payload_format", ["native", "json"])
async def test_a_call_and_its_answer(autojump_clock, payload_format):
    fake = FakeRuntime(echo)
    config = RuntimeConfig(
        tenant_id="t", workspace_id="w", payload_format=payload_format, use_environment=False
    )
    async with AsyncRuntimeClient(config, dial=fake.dial) as client:
        response = await client.post(
            URL, headers=[("A", "1"), ("B", "2")], body="é", params={"q": 1}, trace_id="tr"
        )
        assert response.status_code == 200
        assert response.headers["x-method"] == "POST"
        assert response.headers["x-url"] == URL + "?q=1"
        assert response.text == "é"
        assert response.attempts == 1
        assert response.disposition is Disposition.COMPLETED
        assert response.error_class is ErrorClass.SUCCESS
        assert_nothing_is_left(client)
    request, message = fake.requests[0], fake.messages[0]
    assert dict(request.header_pairs()) == {"A": "1", "B": "2"}
    assert (request.tenant_id, request.workspace_id, request.trace_id) == ("t", "w", "tr")
    assert (message.connector_name, message.operation) == ("http", "request")
    assert message.request_id == response.request_id != 0
    assert message.payload_format is PayloadFormat[payload_format.upper()]


@pytest.mark.parametrize("payload_format", ["native", "json"])
async def test_bodies_that_are_no_text_arrive_exactly(autojump_clock, payload_format):
    config = RuntimeConfig(payload_format=payload_format)
    body = bytes(range(256))
    async with AsyncRuntimeClient(config, dial=FakeRuntime(echo).dial) as client:
        assert (await client.put(URL, data=body)).body == body
        assert (await client.put(URL, data=memoryview(body)[::1])).body == body
        assert (await client.get(URL)).body == b""


async def test_repeated_headers_are_kept_in_native_format(autojump_clock):
    pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    fake = FakeRuntime([respond(headers=pairs)])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        response = await client.get(URL, headers=[("X", "1"), ("X", "2")])
    assert response.headers_list == pairs
    assert response.headers["set-cookie"] == "a=1\nb=2"
    assert fake.requests[0].header_pairs() == [("X", "1"), ("X", "2")]


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "head", "options"])
async def test_every_verb(autojump_clock, verb):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        response = await getattr(client, verb)(URL, timeout_s=2)
    assert response.headers["x-method"] == verb.upper()


async def test_calls_run_side_by_side_on_one_connection(autojump_clock):
    fake = FakeRuntime(lambda request: After(1.0, echo(request)))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        responses = await client.execute_many([GET(f"{URL}/{n}") for n in range(64)])
        assert trio.current_time() - begin == pytest.approx(1.0)
    assert [r.headers["x-url"] for r in responses] == [f"{URL}/{n}" for n in range(64)]
    assert len({r.request_id for r in responses}) == 64


async def test_answers_find_their_calls_in_any_order(autojump_clock):
    fake = FakeRuntime(lambda _: HOLD)
    results = {}
    async with AsyncRuntimeClient(dial=fake.dial) as client, trio.open_nursery() as nursery:

        async def call(n):
            results[n] = (await client.get(f"{URL}/{n}")).text

        for n in range(5):
            nursery.start_soon(call, n)
        await trio.testing.wait_all_tasks_blocked()
        for held in sorted(fake.held, key=lambda h: h.request.url, reverse=True):
            held.reply(respond(body=held.request.url[-1]))
    assert results == {n: str(n) for n in range(5)}


@pytest.mark.parametrize(("timeout_s", "after_ms"), [(None, 60_000), (2.5, 2500)])
async def test_every_call_carries_its_deadline(autojump_clock, timeout_s, after_ms):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin_ms = time.time() * 1000
        await client.get(URL, timeout_s=timeout_s)
        end_ms = time.time() * 1000
    assert begin_ms - 1 <= fake.messages[0].deadline_at_ms - after_ms <= end_ms


@pytest.mark.parametrize("error_class", [c for c in ErrorClass if c])
async def test_failures_of_the_runtime_are_raised_with_all_they_say(autojump_clock, error_class):
    said = ConnectorException(
        "refused",
        error_class,
        disposition=Disposition.NOT_SENT,
        retry_after_ms=1200,
        attempts=3,
        refused_by="rate_limit:tenant",
        queued_us=4,
        backoff_us=5,
    )
    async with AsyncRuntimeClient(dial=FakeRuntime([said]).dial) as client:
        with pytest.raises(ConnectorException) as caught:
            await client.get(URL)
    got = caught.value
    assert isinstance(got, CallTimeout) == (error_class is ErrorClass.TIMEOUT)
    assert got.request_id != 0
    for name in ("error_class", "disposition", *TOLD):
        assert getattr(got, name) == getattr(said, name), name


async def test_every_http_status_is_an_answer(autojump_clock):
    async with AsyncRuntimeClient(dial=FakeRuntime([respond(503)]).dial) as client:
        assert (await client.get(URL)).status_code == 503


async def test_answers_say_what_the_runtime_did(autojump_clock):
    said = respond(503, attempts=2, refused_by="retry_quota:tenant", retry_after_ms=9)
    said.queued_us, said.backoff_us = 4, 5
    async with AsyncRuntimeClient(dial=FakeRuntime(lambda _: said).dial) as client:
        for got in (await client.get(URL), await client.execute("http", "request", {"url": URL})):
            assert got.disposition is Disposition.COMPLETED
            for name in TOLD:
                assert getattr(got, name) == getattr(said, name), name


async def test_any_connector_can_be_called(autojump_clock):
    fake = FakeRuntime(lambda message: b'{"got": %d}' % len(message.payload))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        answer = await client.execute("db", "query", {"sql": "select 1"}, tenant_id="t")
        assert answer.json() == {"got": 18}
        assert (await client.execute("db", "query", b"raw")).payload == b'{"got": 3}'
        assert (await client.execute("db", "ping")).json() == {"got": 2}
    assert (fake.messages[0].connector_name, fake.messages[0].tenant_id) == ("db", "t")


async def test_execute_many_gives_failures_as_values_in_order(autojump_clock):
    fake = FakeRuntime(
        lambda request: (
            ConnectorException("no", ErrorClass.PERMANENT)
            if request.url.endswith("1")
            else After(3.0 if request.url.endswith("0") else 0.1, echo(request))
        )
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        first, second, third = await client.execute_many(GET(f"{URL}/{n}") for n in range(3))
        assert await client.execute_many([]) == []
    assert isinstance(first, HTTPResponse)
    assert first.headers["x-url"].endswith("0")
    assert isinstance(second, ConnectorException)
    assert third.headers["x-url"].endswith("2")


BROKEN = [
    (HTTPRequest("GET", 5), "HTTPRequest.url is int: it must be str"),
    (HTTPRequest(None, URL), "HTTPRequest.method is NoneType"),
    (HTTPRequest("GET", URL, {"A": b"1"}), "the value of header 'A' is bytes"),
    (HTTPRequest("GET", URL, body="\ud800"), "surrogates not allowed"),
    (HTTPRequest("GET", URL, tenant_id=5), "tenant_id is int"),
    ("http://no.request/", "execute_http takes an HTTPRequest, not str"),
    (HTTPRequest("GET", URL, {"X": "\ud800"}), "the request cannot be sent"),
]


@pytest.mark.parametrize("payload_format", ["native", "json"])
async def test_a_broken_request_among_many_is_a_value_as_well(autojump_clock, payload_format):
    config = RuntimeConfig(payload_format=payload_format)
    async with AsyncRuntimeClient(config, dial=FakeRuntime(echo).dial) as client:
        broken = [request for request, _ in BROKEN]
        first, *failed, last = await client.execute_many([GET(URL), *broken, GET(URL)])
        assert_nothing_is_left(client)
    assert first.ok
    assert last.ok
    for value, (_, message) in zip(failed, BROKEN, strict=True):
        assert type(value) is ConnectorException
        assert message in value.message
        assert value.error_class is ErrorClass.INVALID_REQUEST
        assert value.disposition is Disposition.NOT_SENT


async def test_health(autojump_clock):
    fake = FakeRuntime()
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert await client.health() == fake.health


@pytest.mark.parametrize("payload", [b"", b"\xff" * 8, b"{}"])
@pytest.mark.parametrize("payload_format", PayloadFormat)
async def test_an_unreadable_payload_is_the_runtimes_fault(autojump_clock, payload, payload_format):
    fake = FakeRuntime([payload])
    config = RuntimeConfig(payload_format=payload_format.name.lower())
    async with AsyncRuntimeClient(config, dial=fake.dial) as client:
        with pytest.raises(ConnectorException, match="the runtime's answer cannot be read") as e:
            await client.get(URL)
    assert e.value.error_class is ErrorClass.PERMANENT
    assert e.value.request_id


async def test_a_request_over_the_frame_limit_fails_alone(autojump_clock):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(ConnectorException, match="exceeds the limit of 67108864") as caught:
            await client.execute("db", "query", memoryview(bytes(64 * 1024 * 1024)))
        assert caught.value.error_class is ErrorClass.INVALID_REQUEST
        assert caught.value.disposition is Disposition.NOT_SENT
        assert (await client.get(URL)).ok
        assert_nothing_is_left(client)


@pytest.mark.parametrize("options", [{"tenant_id": "\ud800"}, {"headers": {"X": "\ud800"}}])
async def test_text_that_is_no_unicode_fails_alone(autojump_clock, options):
    async with AsyncRuntimeClient(dial=FakeRuntime(echo).dial) as client:
        with pytest.raises(ConnectorException, match="the request cannot be sent") as caught:
            await client.get(URL, **options)
        assert caught.value.error_class is ErrorClass.INVALID_REQUEST
        assert (await client.get(URL)).ok
        assert_nothing_is_left(client)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (HTTPRequest("GET", 5), "HTTPRequest.url is int: it must be str"),
        (HTTPRequest(None, URL), "HTTPRequest.method is NoneType"),
        (HTTPRequest("GET", URL, tenant_id=5), "tenant_id is int"),
        (HTTPRequest("GET", URL, trace_id=b"x"), "trace_id is bytes"),
        (HTTPRequest("GET", URL, idempotency_key=1), "idempotency_key is int"),
        (HTTPRequest("GET", URL, {"A": 1}), "header 'A' is int"),
    ],
)
async def test_wrong_types_are_named(autojump_clock, request_, message):
    async with AsyncRuntimeClient(dial=FakeRuntime(echo).dial) as client:
        with pytest.raises(TypeError, match=re.escape(message)):
            await client.execute_http(request_)


def test_the_request_ids_fit_the_wire():
    ids = AsyncRuntimeClient()._calls._ids
    first, second = next(ids), next(ids)
    assert 0 < first < second < 2**63
    assert ExecuteRequest(first, "t", "http", "request").request_id == first
