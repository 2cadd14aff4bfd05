"""Bytes that a call holds from its request until its answer's body has ended.

What a request sends is known and charged before it goes; what its answer brings is known only
once it came, and is charged then, as debt where that is more than is left. A long answer is charged
while it passes, a piece at a time: others must not find a limit untouched until a stream of hours
ends.

Bytes are those of bodies as they cross the network, before any decoding: what the usage counters
count too. A request costs at least one, or nothing would keep requests without a body from going
out, and bringing more, while the limit is in debt.
"""

from collections.abc import Sequence
from typing import Final

import trio

from vastar_client.wire.codec import buffers_bytes
from vastar_runtime.calls import Call
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter
from vastar_runtime.transport.messages import BodySource, UpstreamRequest

__all__ = ["STEP_BYTES", "VolumeHold", "request_bytes"]

STEP_BYTES: Final = 1024 * 1024
"""Of an answer, until it is charged again."""


def request_bytes(request: UpstreamRequest) -> int:
    """What `request` is charged before it goes; a body of unknown length counts as it went."""
    body = request.body
    if isinstance(body, BodySource):
        return max(body.length_bytes or 0, 1)
    if isinstance(body, (list, tuple)):
        return max(buffers_bytes(body), 1)
    return len(body) if body else 1


class VolumeHold:
    """The bytes of one request and its answer. `settle` ends it, once; later calls change nothing.

    Args:
        call: counts what is received.
        request: as it was sent.
        reservations: what it was charged.
    """

    __slots__ = ("_body", "_call", "_charged_bytes", "_reservations", "_seen_bytes", "_sent_bytes")

    def __init__(
        self,
        call: Call,
        request: UpstreamRequest,
        reservations: Sequence[tuple[Pacer[RateLimiter], Allowed]],
    ) -> None:
        self._call = call
        self._reservations = reservations
        self._charged_bytes = request_bytes(request)
        self._seen_bytes = call.received_bytes
        self._body = request.body if isinstance(request.body, BodySource) else None
        self._sent_bytes = self._charged_bytes if self._body is None else self._body.consumed_bytes

    def passed(self) -> None:
        """More of the answer's body was received; cheap while that is little."""
        if self._call.received_bytes - self._seen_bytes >= STEP_BYTES:
            more_bytes = self._unseen_bytes()
            for pacer, permit in self._reservations:
                pacer.limiter.charge_more(trio.current_time(), permit, more_bytes)

    def settle(self, now_s: float) -> None:
        """The request was sent: what it took is spent, and what came of the answer."""
        if self._body is not None:
            # It may be read on behind an early answer; begun again it has not become less.
            self._sent_bytes = max(self._sent_bytes, self._body.consumed_bytes)
        more_bytes = self._unseen_bytes() + max(self._sent_bytes, 1) - self._charged_bytes
        for pacer, permit in self._take():
            pacer.settle(now_s, permit, permit.cost + more_bytes)

    def refund(self, now_s: float) -> None:
        """The request was never sent: all comes back."""
        for pacer, permit in self._take():
            pacer.refund(now_s, permit)

    def _unseen_bytes(self) -> int:
        seen_bytes, self._seen_bytes = self._seen_bytes, self._call.received_bytes
        return self._seen_bytes - seen_bytes

    def _take(self) -> Sequence[tuple[Pacer[RateLimiter], Allowed]]:
        reservations, self._reservations = self._reservations, ()
        return reservations
