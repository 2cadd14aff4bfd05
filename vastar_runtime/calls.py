"""A call on its way through the runtime.

Shape: one mutable handle per call. The session that owns the call can cancel it, layers and
connectors read what was asked and tighten its deadline, and whoever ends it reads from
`progress` how far it got. The cancel scope is here because three parties may end a call (its
deadline, its caller, the runtime's end) and one scope serves all three: a scope costs as much as
decoding a message.
"""

import math
from typing import Final, Protocol

import attrs
import trio

from vastar_client.wire.messages import ExecuteRequest
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.policy.deadline import Deadline
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.streams import AnswerStream, Upload
from vastar_runtime.transport.progress import Progress

__all__ = ["Call", "Caller", "Holder"]

_MAX_U32: Final = 2**32 - 1


def _whole_ms(seconds: float) -> int:
    """Rounded up: who comes back a moment too early is refused again."""
    return min(max(math.ceil(seconds * 1000), 1), _MAX_U32)


@attrs.frozen
class Caller:
    """Who is at the other end of a connection, as the kernel and TLS tell.

    Attributes:
        uid: the user, or None where the transport cannot tell (TCP).
        pid: the process, where it is known.
        connection_id: counts connections, for logs.
        gid: the user's main group, where it is known.
        groups: all its groups, that one included.
        subjects: names in the certificate that it showed.
        address: where it calls from over TCP, as connections are counted.
    """

    connection_id: int = 0
    uid: int | None = None
    pid: int | None = None
    gid: int | None = None
    groups: frozenset[int] = frozenset()
    subjects: frozenset[str] = frozenset()
    address: str | None = None


class Holder(Protocol):
    """Whom memory is counted for; an `identity.Guest` is one."""

    held_bytes: int


@attrs.define(eq=False)
class Call:
    """One call: what was asked, by whom, until when, and how far it got.

    Attributes:
        request: the message as received.
        caller: who sent it.
        deadline: the limit that binds now.
        max_answer_bytes: longest answer frame, as the length prefix counts.
        scope: cancelling it ends the call; its deadline follows `deadline`.
        progress: of the attempt under way, or of the last one.
        origin: where it goes (scheme://host:port, no secrets), once known.
        stream: where its answer goes piece by piece, if its caller asked for that.
        upload: where the body of its request comes from, if it does not come with it.
        head_timeout_s: until the head of its answer, in each attempt; None is no limit of its own.
        cancelled_as: why the scope was cancelled, when it was not the deadline; `cancelled_words`
            says more, where there is more to say.
        waiting_for: what one of our own policies makes it wait for now, in words; else empty.
        attempts: requests that were tried on upstreams, over all hops.
        queued_us: time spent in lines: for a place, for a rate, for a connection.
        backoff_us: time spent between attempts.
        refused_by: `policy:scope` of the last of our own policies that refused it something.
        retry_after_ms: when that, or the upstream, said to come back; 0 is unknown.
        llm_tokens: what answers said they cost, where that was read.
        holder: for whom `collects` counts, where somebody bounds that.
        collected_bytes: of an answer, in memory until it is handed on whole.
    """

    request: ExecuteRequest
    caller: Caller
    deadline: Deadline
    max_answer_bytes: int
    progress: Progress = attrs.field(factory=Progress)
    scope: trio.CancelScope = attrs.field(init=False)
    origin: str = ""
    status_code: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    cancelled_as: FailureKind | None = None
    cancelled_words: str = ""
    waiting_for: str = ""
    attempts: int = 0
    queued_us: int = 0
    backoff_us: int = 0
    refused_by: str | None = None
    retry_after_ms: int = 0
    llm_tokens: int = 0
    stream: AnswerStream | None = None
    upload: Upload | None = None
    head_timeout_s: float | None = None
    holder: Holder | None = None
    collected_bytes: int = 0
    _reached: Disposition = Disposition.NOT_SENT

    def __attrs_post_init__(self) -> None:
        """Let the scope end with the deadline."""
        self.scope = trio.CancelScope(deadline=self.deadline.expires_at_s)

    def limit_time(self, timeout_ms: int) -> None:
        """Take the operation's own timeout into account (milliseconds from arrival, 0 = none)."""
        tightened = self.deadline.with_timeout(timeout_ms)
        if tightened is not self.deadline:  # setting the scope's deadline is not for nothing
            self.deadline = tightened
            self.scope.deadline = tightened.expires_at_s

    def collects(self, more_bytes: int) -> None:
        """So much more of its answer is in memory, until `hands_on`."""
        self.collected_bytes += more_bytes
        if self.holder is not None:
            self.holder.held_bytes += more_bytes

    def hands_on(self) -> None:
        """Its answer is another's to count, or there is none; may be called again."""
        self.collects(-self.collected_bytes)

    def come_back_after(self, retry_after_s: float) -> None:
        """Tell the caller not to come back before that; the latest that anybody said holds."""
        self.retry_after_ms = max(self.retry_after_ms, _whole_ms(retry_after_s))

    def refused(self, refused: Refused) -> None:
        """One of our own policies refused something: the answer tells who, and for how long."""
        self.refused_by = f"{refused.policy}:{refused.scope.value}"
        if refused.retry_after_s is not None:
            self.come_back_after(refused.retry_after_s)

    @property
    def disposition(self) -> Disposition:
        """How far the call got, over all its hops: never less than an upstream may have done."""
        return max(self._reached, self.progress.disposition)

    def next_hop(self) -> None:
        """Begin another request to an upstream for the same call."""
        # A response was read, so the hop behind us got this far whatever the next one does.
        self._reached = max(self._reached, Disposition.RESPONSE_STARTED)
        self.progress = Progress()

    def next_attempt(self) -> None:
        """Begin another attempt at the same request."""
        self._reached = max(self._reached, self.progress.disposition)
        self.progress = Progress()

    def also_reached(self, disposition: Disposition) -> None:
        """An attempt beside the one that `progress` speaks of got so far."""
        self._reached = max(self._reached, disposition)

    def cancel(self, why: FailureKind, words: str = "") -> None:
        """End the call as soon as it next waits; the first reason given stands."""
        if self.cancelled_as is None:
            self.cancelled_as, self.cancelled_words = why, words
        self.scope.cancel()
