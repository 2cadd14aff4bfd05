"""A session whose connectors do with streams and bodies what the words of an operation say."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from tests.support.sessions import Script, request, session_with
from tests.support.streaming import StreamCaller
from vastar_client.wire import ExecuteRequest
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply, Streamed
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.transport import BodyAborted

__all__ = ["script", "stream_request", "streaming_session"]


async def script(call: Call) -> Outcome:
    """Do what the words of the operation say, one after another.

    `head`; `x9`: send nine bytes; `take`: take a piece of the body; `all`: all of it; `1.5`: sleep.
    """
    try:
        for word in call.request.operation.split():
            await _do(call, word)
    except BodyAborted as error:
        return Failure(FailureKind.INVALID_REQUEST, str(error))
    return Reply(b"done") if call.stream is None else Streamed(200)


async def _do(call: Call, word: str) -> None:
    stream, upload = call.stream, call.upload
    if word == "head":
        assert stream is not None
        await stream.start(200, [("a", "b")], is_sse=False)
    elif word.startswith("x"):
        assert stream is not None
        await stream.send(b"x" * int(word[1:] or 1))
    elif word in {"take", "all"}:
        assert upload is not None
        while await upload.receive() and word == "all":
            pass
    else:
        await trio.sleep(float(word))


def stream_request(request_id: int, operation: str, **fields: object) -> ExecuteRequest:
    return request(request_id, operation, stream=True, **fields)


@asynccontextmanager
async def streaming_session(
    scripts: Mapping[str, Script] | None = None, **fields: object
) -> AsyncIterator[tuple[StreamCaller, RuntimeState]]:
    async with (
        trio.open_nursery() as nursery,
        session_with(scripts or {"test": script}, **fields) as (end, state),  # type: ignore[arg-type]
    ):
        caller = StreamCaller(end)
        nursery.start_soon(caller.run)
        yield caller, state
        nursery.cancel_scope.cancel()
