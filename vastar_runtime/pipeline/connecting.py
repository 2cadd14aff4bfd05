"""The innermost layers: a place in the connection pool, the limit on one attempt, the transport.

The limits on an attempt begin when there is a connection to be had: waiting for one in the pool
says nothing about the upstream. They end with the head of the answer. A streamed answer has a time
of its own for that, which stands still while the caller's own body is waited for.
"""

import trio

from vastar_runtime.pipeline.attempt import FIRST_ERROR, Attempt, Ended, Layer
from vastar_runtime.pipeline.guarding import Forbidden
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy import retry_after
from vastar_runtime.policy.classify import Fault
from vastar_runtime.transport import TransportError, UpstreamResponse

__all__ = ["AttemptTimeoutLayer", "PoolLayer", "TransportLayer"]


class PoolLayer:
    """Has an attempt wait for a connection, or for leave to open one."""

    name = "connection_pool"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._transport = surroundings.transport

    async def __call__(self, attempt: Attempt) -> Ended:
        """Take a place for the attempt; from then on it counts as tried."""
        hop = attempt.hop
        call, key, transport = hop.call, hop.key, self._transport
        progress = attempt.progress
        try:
            place = await transport.acquire((key[0], key[1]), hop.request.origin, progress)
        except TransportError as error:
            return Ended.with_error(hop, error)
        finally:
            if progress.queued_us:
                call.queued_us += progress.queued_us
        attempt.place = place
        if progress.queued_us is not None:
            attempt.at_s = trio.current_time()
        attempt.begun_at_s = attempt.at_s
        call.attempts += 1
        try:
            return await self._inner(attempt)
        finally:
            transport.release(place)  # does nothing where the transport took it over
            if progress.resent:
                call.attempts += 1


class AttemptTimeoutLayer:
    """Ends an attempt that takes too long: a stream's head, and what is configured."""

    name = "attempt_timeout"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        del surroundings
        self._inner = inner

    async def __call__(self, attempt: Attempt) -> Ended:
        """Bound the attempt, where there is a bound."""
        timeout_s = attempt.hop.policies.attempt_timeout_s
        if timeout_s is None:
            return await self._await_head(attempt)
        with trio.move_on_after(timeout_s):
            return await self._await_head(attempt)
        return _too_late(attempt, f"the limit of {timeout_s * 1000:.0f} ms on one attempt passed")

    async def _await_head(self, attempt: Attempt) -> Ended:
        call = attempt.hop.call
        timeout_s = call.head_timeout_s
        if timeout_s is None:
            return await self._inner(attempt)
        with trio.move_on_after(timeout_s) as patience:
            if call.upload is not None:
                call.upload.restarts(patience, timeout_s)
            return await self._inner(attempt)
        return _too_late(attempt, f"no head of an answer for {timeout_s:g} s")


def _too_late(attempt: Attempt, words: str) -> Ended:
    origin = attempt.hop.request.origin
    error = TransportError.at(attempt.progress, origin.address, words, timed_out=True)
    return Ended.with_error(attempt.hop, error, Fault.ATTEMPT_TIMEOUT)


class TransportLayer:
    """Sends the request and reads the head of the answer."""

    name = "transport"

    def __init__(self, surroundings: Surroundings) -> None:
        self._transport = surroundings.transport
        self._guard = surroundings.guard
        self._wall_clock_s = surroundings.wall_clock_s

    async def __call__(self, attempt: Attempt) -> Ended:
        """Make the attempt."""
        hop, place = attempt.hop, attempt.place
        assert place is not None, "the pool's layer is outside of this one"
        try:
            response = await self._transport.exchange(place, hop.request, attempt.progress)
        except TransportError as error:
            if isinstance(error.__cause__, Forbidden):
                self._guard.tell(hop.call, error.__cause__)
                return Ended.by_refusal(error.__cause__.refused)
            return Ended.with_error(hop, error)
        asked_s = None
        if response.status >= FIRST_ERROR:
            asked_s = _retry_after_s(response, self._wall_clock_s())
        return Ended.with_response(hop, trio.current_time(), response, asked_s)


def _retry_after_s(response: UpstreamResponse, wall_now_s: float) -> float | None:
    """What this answer asks for; each name's first value, as a second one says something else."""
    found: dict[bytes, str] = {}
    for name, value in response.headers:
        if name in {b"retry-after", b"retry-after-ms"}:
            found.setdefault(name, value.decode("latin-1"))
    if not found:
        return None
    return retry_after.parse(found.get(b"retry-after"), found.get(b"retry-after-ms"), wall_now_s)
