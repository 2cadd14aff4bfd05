"""The rules of calls: who calls, how many at once, what goes upstream, control, leaving."""

import json
from typing import Final

import trio

from tools.conformance._peer import JSON, Peer, calling, http_call, json_of
from tools.conformance._rules import BrokenRuleError, NotSupportedError, must, rule
from tools.conformance._world import World
from vastar_client.wire import (
    END_OF_STREAM,
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
    RequestChunk,
)

_MANY: Final = 300
_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
_DATABASES: Final = ("db", "postgres", "mysql")
_LONGEST_ID: Final = 1024
_QUIET_S: Final = 0.5
_STATUS_KEYS: Final = ("version", "draining", "in_flight", "connections", "listeners")


async def _echoed(peer: Peer, world: World, asked: JSON, **fields: object) -> JSON:
    """What the upstream saw of a call to its /echo."""
    call = http_call(1, {"url": world.url("/echo"), **asked}, **fields)
    value = json.loads(str(json_of(await peer.call(call))["body"]))
    assert isinstance(value, dict)
    return value


def _headers(echoed: JSON) -> JSON:
    pairs = echoed["headers"]
    assert isinstance(pairs, list)
    return {str(name).lower(): value for name, value in pairs}


@rule(base=True, limit_s=30.0)
async def calls_many(world: World) -> None:
    """More calls in one write than may be in flight are all answered, and none is refused."""
    async with calling(world) as peer:
        calls = [http_call(number, {"url": world.url()}) for number in range(_MANY)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: peer.send(*calls))
            wanted = set(range(_MANY))
            while wanted:
                answer = await peer.answer()
                json_of(answer)
                must(answer.request_id in wanted, f"the id {answer.request_id} twice, or of none")
                wanted.remove(answer.request_id)
        await peer.silent()


@rule(limit_s=30.0)
async def calls_surplus(world: World) -> None:
    """Where the caller has opted in, calls beyond its credit are Transient and NotSent, at once."""
    async with calling(world) as peer:
        await peer.send(HealthCheck())
        most = (await peer.expect(HealthResponse)).available_credits
        must(most, "no credit for any call")
        calls = [http_call(n, {"url": world.url(f"/hang?surplus={n}")}) for n in range(most + 3)]
        await peer.send(*calls)
        for number in range(most, most + 3):
            answer = await peer.answer()
            must(answer.request_id == number, f"call {answer.request_id} was answered")
            must(answer.error_class is ErrorClass.TRANSIENT, answer.error_class.name)
            must(answer.disposition is Disposition.NOT_SENT, answer.disposition.name)
            must(answer.retry_after_ms, "no retry_after_ms")
        await peer.send(*map(Cancel, range(most)))
        ended = [(await peer.answer()).request_id for _ in range(most)]
        must(sorted(ended) == list(range(most)), "not one answer to each of the cancelled calls")
        await peer.lives(world)


@rule(base=True)
async def calls_of_nobody(world: World) -> None:
    """An empty tenant_id is a tenant's like others."""
    async with calling(world) as peer:
        json_of(await peer.call(http_call(1, {"url": world.url()}, tenant_id="")))


@rule()
async def calls_long_names(world: World) -> None:
    """Tenant, workspace and trace id of 1,024 characters pass; longer ones are InvalidRequest."""
    async with calling(world) as peer:
        for name in ("tenant_id", "workspace_id", "trace_id"):
            for length in (_LONGEST_ID, _LONGEST_ID + 1):
                call = http_call(length, {"url": world.url()}, **{name: "n" * length})
                answer = await peer.call(call)
                due = ErrorClass.SUCCESS if length == _LONGEST_ID else ErrorClass.INVALID_REQUEST
                told = f"{name} of {length}: {answer.error_class.name}"
                must(answer.error_class is due, told)


@rule()
async def calls_trace(world: World) -> None:
    """trace_id goes upstream: as traceparent where it is one or its 32 digits, else x-trace-id."""
    parent = f"00-{_TRACE}-b7ad6b7169203331-01"
    async with calling(world) as peer:
        for trace_id in (_TRACE, parent):
            seen = _headers(await _echoed(peer, world, {}, trace_id=trace_id))
            must(_TRACE in str(seen.get("traceparent")), f"headers {sorted(seen)} for {trace_id}")
        seen = _headers(await _echoed(peer, world, {}, trace_id="order 17"))
        must(seen.get("x-trace-id") == "order 17", f"headers {sorted(seen)} for another text")


@rule(base=True)
async def http_bodies(world: World) -> None:
    """A body that is no string goes as compact JSON with sorted keys; an empty one is none."""
    cases: tuple[tuple[object, str], ...] = (
        ({"b": [1, 2], "a": "ü"}, '{"a":"ü","b":[1,2]}'),
        ("text", "text"),
        ("", ""),
        (7, "7"),
    )
    async with calling(world) as peer:
        for body, sent in cases:
            asked: JSON = {"method": "POST", "body": body, "headers": None}
            seen = await _echoed(peer, world, asked)
            must(seen["body"] == sent, f"{body!r} went as {seen['body']!r}")


@rule(base=True)
async def http_urls(world: World) -> None:
    """Userinfo becomes Basic authorization, a fragment stays here, and spaces are encoded."""
    async with calling(world) as peer:
        url = world.url("/echo?q=a b#part").replace("://", "://user:secret@")
        seen = await _echoed(peer, world, {"url": url})
        must(seen["target"] in {"/echo?q=a%20b", "/echo?q=a+b"}, f"the target {seen['target']!r}")
        told = _headers(seen).get("authorization")
        must(told == "Basic dXNlcjpzZWNyZXQ=", "no Basic authorization")


@rule(base=True)
async def http_host(world: World) -> None:
    """A Host header of the caller is obeyed."""
    async with calling(world) as peer:
        seen = await _echoed(peer, world, {"headers": {"Host": "other.example"}})
        must(_headers(seen).get("host") == "other.example", f"host {_headers(seen).get('host')}")


@rule(base=True)
async def databases_without_a_query(world: World) -> None:
    """db, postgres and mysql without a query are Permanent or InvalidRequest, never retried."""
    due = {ErrorClass.PERMANENT, ErrorClass.INVALID_REQUEST}
    async with calling(world) as peer:
        for name in _DATABASES:
            answer = await peer.call(ExecuteRequest(1, "conformance", name, "request"))
            must(answer.error_class in due, f"{name}: {answer.error_class.name}")


async def _controlled(peer: Peer, operation: str) -> ExecuteResponse:
    """The answer of connector `vastar`.

    Raises:
        NotSupportedError: there is none, or it does not answer this caller.
    """
    answer = await peer.call(ExecuteRequest(1, "conformance", "vastar", operation))
    said = answer.error_message or ""
    if answer.error_class is ErrorClass.INVALID_REQUEST and said.startswith("Unknown connector"):
        raise NotSupportedError(said)
    return answer


@rule()
async def control_status(world: World) -> None:
    """Connector vastar tells its status to its own user; InvalidRequest `not allowed` to others."""
    async with calling(world) as peer:
        answer = await _controlled(peer, "status")
        if answer.error_class is ErrorClass.INVALID_REQUEST:
            words = str(answer.error_message)
            must(words.startswith("not allowed"), f"refused with {words!r}")
            return
        told = json_of(answer)
        must(set(_STATUS_KEYS) <= set(told), f"the keys {sorted(told)}")


@rule(is_last=True, is_fatal=True)
async def control_drain(world: World) -> None:
    """Asked to leave, it says Goaway to who speaks credit, ends what is under way, refuses more."""
    async with calling(world) as peer, calling(world) as control, calling(world) as published:
        await published.call(http_call(1, {"url": world.url()}))
        await peer.send(CreditUpdate(credit_delta=0))
        await peer.expect(CreditUpdate)
        await peer.send(http_call(1, {"url": world.url("/sleep?ms=1500&tag=under-way")}))
        asked = await _controlled(control, "drain")
        if asked.error_class is ErrorClass.INVALID_REQUEST:
            raise NotSupportedError(f"it is not to be asked here: {asked.error_message}")
        json_of(asked)
        goaway = await peer.expect(Goaway)
        must(goaway.drain_ms, "no drain_ms: how long do calls have?")
        await peer.send(HealthCheck(), http_call(2, {"url": world.url()}))
        must(not (await peer.expect(HealthResponse)).healthy, "it says that it is healthy")
        answer = await peer.answer()
        must(answer.request_id == 2, "the call under way was answered first")  # noqa: PLR2004 - its id
        must(answer.error_class is ErrorClass.TRANSIENT, answer.error_class.name)
        must(answer.disposition is Disposition.NOT_SENT, answer.disposition.name)
        json_of(await peer.answer())
        # The end of the connection may come; anything else is for who asked for it.
        with trio.move_on_after(_QUIET_S):
            event = await published.receive()
            must(event is END_OF_STREAM, f"{event!r} came unasked")


@rule()
async def control_unknown(world: World) -> None:
    """An operation that connector vastar does not have is InvalidRequest."""
    async with calling(world) as peer:
        answer = await _controlled(peer, "no-such-operation")
        must(answer.error_class is ErrorClass.INVALID_REQUEST, answer.error_class.name)


@rule()
async def cancel_twice(world: World) -> None:
    """Two Cancels of a call end it once; one of an id that two calls share ends both."""
    async with calling(world) as peer:
        hang = http_call(1, {"url": world.url("/hang?twice")})
        await peer.send(hang, Cancel(1), Cancel(1))
        answer = await peer.answer()
        must(answer.error_class is ErrorClass.PERMANENT, answer.error_class.name)
        await peer.silent()
        await peer.send(hang, hang, Cancel(1))
        for _ in range(2):
            must((await peer.answer()).error_class is ErrorClass.PERMANENT, "not cancelled")
        await peer.silent()


@rule()
async def cancel_of_an_upload(world: World) -> None:
    """Cancel ends a call whose body is not whole; chunks that still come are discarded."""
    async with calling(world) as peer:
        asked = {"url": world.url("/echo"), "method": "POST"}
        call = http_call(4, asked, body_follows=True)
        await peer.send(call, RequestChunk(4, 0, b"a beginning"), Cancel(4))
        answer = await peer.receive()
        while isinstance(answer, CreditUpdate):
            answer = await peer.receive()
        if not isinstance(answer, ExecuteResponse):
            raise BrokenRuleError(f"{answer!r} where the answer was due")
        if answer.error_class is ErrorClass.SUCCESS:
            raise NotSupportedError("the call was made without its body")
        must(answer.error_class is ErrorClass.PERMANENT, answer.error_class.name)
        await peer.send(RequestChunk(4, 1, b"too late", last=True))
        await peer.silent()
        await peer.lives(world)


@rule()
async def credit_of_nothing(world: World) -> None:
    """Credit for a stream that is unknown or has ended is ignored."""
    async with calling(world) as peer:
        await peer.call(http_call(1, {"url": world.url()}))
        await peer.send(CreditUpdate(1000, request_id=1), CreditUpdate(1000, request_id=77))
        await peer.silent()
        await peer.lives(world)
