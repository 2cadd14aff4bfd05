"""The rules behind the published protocol, but for streams: faults, health, time, side by side."""

from typing import Final

import trio

from tools.conformance._peer import calling, http_call, json_of
from tools.conformance._rules import BrokenRuleError, must, rule
from tools.conformance._world import World
from vastar_client.wire import (
    Authenticate,
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    HealthCheck,
    HealthResponse,
    HttpRequest,
    PayloadFormat,
    ResponseFormat,
    decode_http_response,
    encode_http_request,
)
from vastar_client.wire.limits import MAX_WINDOW_BYTES, UNFINISHED_FRAME_TIMEOUT_S

_DEADLINE_MS: Final = 300
_GRACE_S: Final = 2.0
_MARK: Final = 0x12345678
_NATIVE: Final = {"payload_format": PayloadFormat.NATIVE}


@rule()
async def framing_over_limit(world: World) -> None:
    """A length above any limit is refused from its prefix, and closes the connection."""
    async with calling(world) as peer:
        await peer.send_bytes(b"\xff\xff\xff\xff\x00")
        await peer.closed()


@rule(limit_s=UNFINISHED_FRAME_TIMEOUT_S + 10, is_slow=True)
async def framing_unfinished(world: World) -> None:
    """A frame that was begun and gets no byte for 30 s closes the connection."""
    async with calling(world) as peer:
        await peer.send_bytes(b"\x00\x00\x01\x00\x00")
        begun_s = trio.current_time()
        await peer.closed()
        took_s = trio.current_time() - begun_s
        must(took_s > UNFINISHED_FRAME_TIMEOUT_S - 1, f"closed after {took_s:.1f} s already")


@rule()
async def types_unknown(world: World) -> None:
    """A type that nobody knows is InvalidRequest, and the connection lives."""
    async with calling(world) as peer:
        for number in (13, 99, 255):
            await peer.send_bytes(b"\x00\x00\x00\x05" + bytes((number,)) + bytes(4))
            await peer.refused()
        await peer.lives(world)


@rule()
async def types_of_runtime(world: World) -> None:
    """A type that only the runtime sends is InvalidRequest, and the connection lives."""
    async with calling(world) as peer:
        for number in (1, 3, 5, 6, 7, 9, 11):
            await peer.send_bytes(b"\x00\x00\x00\x05" + bytes((number,)) + bytes(4))
            await peer.refused()
        await peer.lives(world)


@rule()
async def calls_side_by_side(world: World) -> None:
    """Calls of one connection run at once, and are answered as they finish."""
    async with calling(world) as peer:
        slow = http_call(1, {"url": world.url("/sleep?ms=1500&tag=slow")})
        await peer.send(slow, http_call(2, {"url": world.url()}))
        order = [(await peer.answer()).request_id for _ in range(2)]
        must(order == [2, 1], f"answered in the order {order}")


@rule()
async def calls_gone_caller(world: World) -> None:
    """When a caller goes away, its upstream connections are closed."""
    target = "/hang?gone-caller"
    async with calling(world) as peer:
        await peer.send(http_call(1, {"url": world.url(target)}))
        await world.upstream.wait(lambda: world.upstream.began[target] > 0)
        await peer.vanish()
    with trio.move_on_after(_GRACE_S):
        await world.upstream.wait(lambda: world.upstream.gone[target] > 0)
    must(world.upstream.gone[target], f"the upstream still runs {_GRACE_S} s later")


@rule()
async def time_deadline(world: World) -> None:
    """A deadline ends a call in time, as Timeout, and the upstream may have seen it."""
    async with calling(world) as peer:
        at_ms = int(world.wall_clock_ms()) + _DEADLINE_MS
        begun_s = trio.current_time()
        call = http_call(1, {"url": world.url("/hang?deadline")}, deadline_at_ms=at_ms)
        answer = await peer.call(call)
        took_s = trio.current_time() - begun_s
        must(answer.error_class is ErrorClass.TIMEOUT, answer.error_class.name)
        must(took_s < _DEADLINE_MS / 1000 + _GRACE_S, f"answered after {took_s:.1f} s")
        sent = answer.disposition is Disposition.SENT_NO_RESPONSE
        must(sent, f"disposition {answer.disposition.name}")


@rule()
async def time_timeout_ms(world: World) -> None:
    """The payload's timeout_ms ends a call as well."""
    async with calling(world) as peer:
        asked = {"url": world.url("/hang?timeout"), "timeout_ms": _DEADLINE_MS}
        answer = await peer.call(http_call(1, asked))
        must(answer.error_class is ErrorClass.TIMEOUT, answer.error_class.name)


@rule()
async def time_past_deadline(world: World) -> None:
    """A call whose deadline has passed is Timeout, not sent, and the upstream left alone."""
    async with calling(world) as peer:
        at_ms = int(world.wall_clock_ms()) - 1000
        call = http_call(1, {"url": world.url("/small?late")}, deadline_at_ms=at_ms)
        answer = await peer.call(call)
        must(answer.error_class is ErrorClass.TIMEOUT, answer.error_class.name)
        must(answer.disposition is Disposition.NOT_SENT, f"{answer.disposition.name}")
        must(not world.upstream.began["/small?late"], "the upstream was called")


@rule()
async def errors_bad_requests(world: World) -> None:
    """Wrong URLs, schemes, methods and headers are InvalidRequest, and nothing is sent."""
    small = world.url("/small?bad")
    cases: tuple[dict[str, object], ...] = (
        {"url": ""},
        {"url": "ftp://127.0.0.1/"},
        {"url": "/relative"},
        {"url": small, "method": "FOO"},
        {"url": small, "headers": {"Bad Name": "x"}},
        {"url": small, "headers": {"X": "a\r\nInjected: 1"}},
    )
    async with calling(world) as peer:
        for number, payload in enumerate(cases):
            answer = await peer.call(http_call(number, payload))
            is_it = answer.error_class is ErrorClass.INVALID_REQUEST
            must(is_it, f"{answer.error_class.name} for {payload}")
        must(not world.upstream.began["/small?bad"], "the upstream was called")


@rule()
async def errors_disposition(world: World) -> None:
    """A refused connection says that nothing was sent, and a success that it is complete."""
    async with calling(world) as peer:
        answer = await peer.call(http_call(1, {"url": "http://127.0.0.1:1/"}))
        must(answer.disposition is Disposition.NOT_SENT, f"{answer.disposition.name}")
        must("refused" in str(answer.error_message), f"no cause in {answer.error_message!r}")
        answer = await peer.call(http_call(2, {"url": world.url()}))
        must(answer.disposition is Disposition.COMPLETED, f"{answer.disposition.name}")
        must(answer.attempts == 1, f"{answer.attempts} attempts")


@rule()
async def http_binary(world: World) -> None:
    """A body that is no UTF-8 comes exactly, as body_base64."""
    async with calling(world) as peer:
        fields = json_of(await peer.call(http_call(1, {"url": world.url("/binary")})))
        must(str(fields.get("body_base64", "")).startswith("AAECAwQFBgcICQ"), "no body_base64")


@rule()
async def http_native(world: World) -> None:
    """A native payload is answered by a native one: headers in order, the body as bytes."""
    async with calling(world) as peer:
        request = HttpRequest(world.url("/binary"), headers=[("x-a", "1")])
        payload = b"".join(map(bytes, encode_http_request(request)))
        answer = await peer.call(http_call(1, payload, **_NATIVE))
        must(answer.error_class is ErrorClass.SUCCESS, f"{answer.error_message!r}")
        must(answer.payload_format is PayloadFormat.NATIVE, "the answer is not native")
        response = decode_http_response(bytes(answer.payload or b""))  # type: ignore[arg-type]  # one buffer
        must(bytes(response.body or b"") == bytes(range(256)), "the body is not exact")  # type: ignore[arg-type]  # the same
        must(dict(response.headers).get("content-length") == "256", f"{response.headers}")


@rule()
async def http_response_format(world: World) -> None:
    """response_format asks for JSON in answer to a native call."""
    async with calling(world) as peer:
        payload = b"".join(map(bytes, encode_http_request(HttpRequest(world.url()))))
        call = http_call(1, payload, **_NATIVE, response_format=ResponseFormat.JSON)
        answer = await peer.call(call)
        must(answer.payload_format is PayloadFormat.JSON, "the answer is not JSON")
        json_of(answer)


@rule()
async def health_answered(world: World) -> None:
    """A health check is answered, whatever it carries."""
    async with calling(world) as peer:
        await peer.send(HealthCheck())
        state = await peer.expect(HealthResponse)
        must(state.healthy, f"not healthy: {state.message!r}")
        must(state.available_credits, "no credit for any call")
        await peer.send_bytes(b"\x00\x00\x00\x04\x02\xff\xff\xff")
        await peer.expect(HealthResponse)
        await peer.lives(world)


@rule()
async def health_while_busy(world: World) -> None:
    """A health check does not wait for the calls of its connection, and counts them."""
    async with calling(world) as peer:
        await peer.send(http_call(1, {"url": world.url("/sleep?ms=1000&tag=busy")}), HealthCheck())
        state = await peer.expect(HealthResponse)
        must(state.active_requests >= 1, "no active request")
        json_of(await peer.answer())


@rule()
async def health_authenticate(world: World) -> None:
    """Authenticate is answered by a HealthResponse."""
    async with calling(world) as peer:
        await peer.send(Authenticate("no-token-of-anybody"))
        await peer.expect(HealthResponse)


@rule()
async def credit_answered(world: World) -> None:
    """A CreditUpdate for requests is answered by how many the connection may have in flight."""
    async with calling(world) as peer:
        await peer.send(CreditUpdate(credit_delta=0))
        told = await peer.expect(CreditUpdate)
        must(told.total_credits, "no credit for any call")
        await peer.lives(world)


@rule()
async def credit_negative(world: World) -> None:
    """Negative credit closes the connection."""
    async with calling(world) as peer:
        await peer.send(HealthCheck())
        await peer.expect(HealthResponse)
        # The client's own end refuses to send such: the number is put in by hand.
        frame = peer.encoded(CreditUpdate(credit_delta=_MARK))
        negative = frame.replace(_MARK.to_bytes(4, "little"), b"\xff\xff\xff\xff")
        assert negative != frame
        await peer.send_bytes(negative)
        await peer.closed()


@rule()
async def credit_overflow(world: World) -> None:
    """Credit that makes a window overflow closes the connection."""
    async with calling(world) as peer:
        update = CreditUpdate(connection_bytes=MAX_WINDOW_BYTES, request_id=1)
        await peer.send(HealthCheck())
        await peer.expect(HealthResponse)
        await peer.send(update, update)
        await peer.closed()


@rule()
async def cancel_of_a_call(world: World) -> None:
    """Cancel ends a call with one Permanent answer, and its upstream connection."""
    target = "/hang?cancelled"
    async with calling(world) as peer:
        await peer.send(http_call(7, {"url": world.url(target)}))
        await world.upstream.wait(lambda: world.upstream.began[target] > 0)
        await peer.send(Cancel(7))
        answer = await peer.answer()
        must(answer.request_id == 7, f"the id {answer.request_id}")  # noqa: PLR2004 - as above
        must(answer.error_class is ErrorClass.PERMANENT, answer.error_class.name)
        must("cancel" in str(answer.error_message), f"{answer.error_message!r}")
        with trio.move_on_after(_GRACE_S):
            await world.upstream.wait(lambda: world.upstream.gone[target] > 0)
        must(world.upstream.gone[target], f"the upstream still runs {_GRACE_S} s later")
        await peer.silent()


@rule()
async def cancel_of_nothing(world: World) -> None:
    """Cancel of an id that is unknown or has been answered is ignored."""
    async with calling(world) as peer:
        await peer.call(http_call(1, {"url": world.url()}))
        await peer.send(Cancel(1), Cancel(12345))
        await peer.silent()
        await peer.lives(world)


@rule()
async def cancel_leaves_others(world: World) -> None:
    """Cancel of one call leaves its neighbours alone."""
    async with calling(world) as peer:
        hang = http_call(1, {"url": world.url("/hang?neighbour")})
        await peer.send(hang, http_call(2, {"url": world.url("/sleep?ms=500&tag=n")}), Cancel(1))
        answers = {answer.request_id: answer for answer in [await peer.answer() for _ in range(2)]}
        must(set(answers) == {1, 2}, f"the ids {sorted(answers)}")
        json_of(answers[2])


@rule(is_last=True)
async def health_at_rest(world: World) -> None:
    """When all callers have gone, nothing is in flight."""
    async with calling(world) as peer:
        for _ in range(20):
            await peer.send(HealthCheck())
            state = await peer.expect(HealthResponse)
            if not state.active_requests:
                return
            await trio.sleep(0.2)
        raise BrokenRuleError(f"{state.active_requests} requests are still active")
