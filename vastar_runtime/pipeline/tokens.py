"""LLM tokens that a call holds from its request until its answer's body has ended.

A reservation is made of what the request says, and settled by the `usage` of the answer: of a whole
JSON body at its end, of an event stream from the events as they pass. The body is looked at only
where tokens are limited; what cannot be read (compressed for the caller, cut short) is settled by
its length.
"""

from collections.abc import Sequence
from typing import Final

from vastar_runtime.calls import Call
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.policy.llm_usage import LlmRequest, StreamUsage, Usage, read_answer
from vastar_runtime.policy.rate_limit import Allowed
from vastar_runtime.policy.token_limit import TokenLimiter

__all__ = ["TokenHold"]

_MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of a JSON answer; longer ones are settled by their length."""


class TokenHold:
    """The reservations of one request. `settle` ends them, once; later calls change nothing."""

    __slots__ = ("_call", "_kept", "_received_bytes", "_request", "_reservations", "_usage")

    def __init__(
        self,
        request: LlmRequest,
        reservations: Sequence[tuple[Pacer[TokenLimiter], Allowed]],
        *,
        is_event_stream: bool,
        call: Call | None = None,
    ) -> None:
        self._call = call
        self._request = request
        self._reservations = reservations
        self._received_bytes = 0
        self._kept: list[bytes] | None = None if is_event_stream else []
        self._usage = StreamUsage()

    def saw(self, data: bytes) -> None:
        """A piece of the answer's decoded body passed by."""
        self._received_bytes += len(data)
        if self._kept is not None:
            self._kept.append(data)
            if self._received_bytes > _MAX_KEPT_BYTES:
                self._kept = None

    def saw_event(self, data: str) -> None:
        """The data of an event of the answer's stream passed by."""
        self._usage.feed_event(data)

    def settle(self, now_s: float) -> None:
        """The request was acted on: what it used is spent, the rest comes back."""
        usage = self._read_usage()
        if usage is not None and self._reservations and self._call is not None:
            self._call.llm_tokens += usage.total_tokens
        for pacer, permit in self._take():
            pacer.limiter.settle_answer(now_s, permit, self._request, usage, self._received_bytes)
            pacer.wake(now_s)

    def refund(self, now_s: float) -> None:
        """The request was never acted on: all comes back."""
        for pacer, permit in self._take():
            pacer.refund(now_s, permit)

    def _take(self) -> Sequence[tuple[Pacer[TokenLimiter], Allowed]]:
        reservations, self._reservations = self._reservations, ()
        return reservations

    def _read_usage(self) -> Usage | None:
        if self._kept:
            return read_answer(b"".join(self._kept))
        return self._usage.usage
