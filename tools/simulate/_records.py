"""What was seen of each call, attempt and exchange, for the invariants to look at.

Three levels, as the runtime has them. A *call* is what a caller asked and was told. An *attempt* is
one request that the runtime handed to its transport, seen at that seam. An *exchange* is what an
upstream saw of it on a connection; an attempt has none where no connection could be had, and two
where the transport found an idle connection dead and sent again. Calls are told by their URL,
attempts by a header that the seam adds. All times are seconds on the virtual clock.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import attrs

from vastar_client.wire import Disposition, ExecuteResponse

if TYPE_CHECKING:
    from tools.simulate._line import Line
    from tools.simulate._moods import Reaction

__all__ = ["Attempt", "CallRecord", "Exchange", "Key", "Records"]

Key: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, origin)."""


@attrs.define(eq=False)
class CallRecord:
    """One call of a caller.

    Attributes:
        number: counts calls; it is in the URL and in every answer's body.
        origin: where it goes first.
        is_keyed: it carries an Idempotency-Key.
        follows: it wants redirects followed.
        expires_at_s: when it must have ended.
        tokens: what it may cost an LLM at most, 0 where its body is no LLM request.
        epoch: the configuration that held when it was made, counted from 0.
        answers: each final answer with the time at which the caller read it.
        left_at_s: when the caller cancelled it, or closed its connection.
        has_gone: the caller closed its connection: nobody can be answered.
    """

    number: int
    tenant: str
    workspace: str
    origin: str
    method: str
    is_keyed: bool
    follows: bool
    connection: int
    request_id: int
    began_at_s: float
    expires_at_s: float
    tokens: int = 0
    epoch: int = 0
    answers: list[tuple[float, ExecuteResponse]] = attrs.field(factory=list)
    attempts: "list[Attempt]" = attrs.field(factory=list)
    left_at_s: float | None = None
    has_gone: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be done for it."""
        return bool(self.answers) or self.has_gone

    @property
    def ended_at_s(self) -> float | None:
        """When nothing more was to be done for it."""
        if self.answers:
            return self.answers[0][0]
        return self.left_at_s if self.has_gone else None

    @property
    def exchanges(self) -> "Iterator[Exchange]":
        """What upstreams saw of it, over all attempts."""
        return (exchange for attempt in self.attempts for exchange in attempt.exchanges)


@attrs.define(eq=False)
class Attempt:
    """One request at the seam between the policies and the transport.

    Attributes:
        number: counts attempts, over all calls.
        hop: how many redirects came before it.
        key: whose it is, and where it goes.
        let_through_s: when all policies had let it through; then it may wait for a connection.
        let_through_look: before which look of the invariants that was: several may be at one time.
        status: of its answer, 0 while there is none.
        fault: in words, what it got instead of an answer.
        ended_at_s: when its answer's head was there, or it failed, or was cancelled.
        was_resent: the transport found an idle connection dead, and sent it again.
    """

    number: int
    call: CallRecord
    hop: int
    key: Key
    method: str
    let_through_s: float
    let_through_look: int
    began_at_s: float
    status: int = 0
    fault: str = ""
    ended_at_s: float | None = None
    was_resent: bool = False
    exchanges: "list[Exchange]" = attrs.field(factory=list)


@attrs.define(eq=False)
class Exchange:
    """One request as an upstream saw it, and its answer.

    Attributes:
        number: counts exchanges, over all upstreams.
        reaction: what the upstream does about it, once that is decided.
        headed_at_s: when the head of an answer was sent whole.
        asks_s: how long that head asks to be left alone.
        is_whole: the answer was sent to its end, as far as it was meant to be sent.
        answer_bytes: how long the answer is, head and body; 0 where it has no proper one.
        received_bytes: how much of it the runtime took.
        used_tokens: what the answer says that it cost an LLM.
    """

    number: int
    attempt: Attempt
    line: "Line"
    began_at_s: float
    is_sent: bool = False
    reaction: "Reaction | None" = None
    headed_at_s: float | None = None
    asks_s: float | None = None
    is_whole: bool = False
    answer_bytes: int = 0
    received_bytes: int = 0
    used_tokens: int = 0

    @property
    def reached(self) -> Disposition:
        """How far it got, by the bytes."""
        if self.answer_bytes and self.received_bytes >= self.answer_bytes:
            return Disposition.COMPLETED
        if self.received_bytes:
            return Disposition.RESPONSE_STARTED
        return Disposition.SENT_NO_RESPONSE

    @property
    def is_open(self) -> bool:
        """Whether the upstream still works on it, and its connection is there."""
        return not self.is_whole and self.line.closed_at_s is None


@attrs.define(eq=False)
class Records:
    """All that was seen, and what of it is new since the invariants looked last.

    Attributes:
        looks: how often the invariants have looked.
        let_in: the tenant of each call that was let out of the line for a place.
    """

    calls: list[CallRecord] = attrs.field(factory=list)
    attempts: list[Attempt] = attrs.field(factory=list)
    exchanges: list[Exchange] = attrs.field(factory=list)
    lines: "list[Line]" = attrs.field(factory=list)
    live: dict[int, CallRecord] = attrs.field(factory=dict)
    new_answers: list[tuple[CallRecord, ExecuteResponse]] = attrs.field(factory=list)
    new_attempts: list[Attempt] = attrs.field(factory=list)
    ended_attempts: list[Attempt] = attrs.field(factory=list)
    new_exchanges: list[Exchange] = attrs.field(factory=list)
    open_exchanges: dict[int, Exchange] = attrs.field(factory=dict)
    looks: int = 0
    let_in: list[str] = attrs.field(factory=list)

    def call_begins(self, call: CallRecord) -> None:
        """A caller has sent it."""
        self.calls.append(call)
        self.live[call.number] = call

    def attempt_begins(self, attempt: Attempt) -> None:
        """The runtime handed it to its transport."""
        self.attempts.append(attempt)
        self.new_attempts.append(attempt)
        attempt.call.attempts.append(attempt)

    def attempt_ends(self, attempt: Attempt, now_s: float) -> None:
        """Its head is there, or it has failed."""
        attempt.ended_at_s = now_s
        self.ended_attempts.append(attempt)

    def exchange_begins(self, exchange: Exchange) -> None:
        """An upstream has read its head."""
        self.exchanges.append(exchange)
        self.new_exchanges.append(exchange)
        self.open_exchanges[exchange.number] = exchange
        exchange.attempt.exchanges.append(exchange)

    def answered(self, call: CallRecord, answer: ExecuteResponse, now_s: float) -> None:
        """The caller read a final answer."""
        call.answers.append((now_s, answer))
        self.new_answers.append((call, answer))
        self.live.pop(call.number, None)

    def gone(self, call: CallRecord, now_s: float) -> None:
        """The caller closed the connection on which it would have been answered."""
        call.has_gone = True
        call.left_at_s = now_s
        self.live.pop(call.number, None)

    def seen(self) -> None:
        """The invariants have looked at what was new."""
        self.looks += 1
        self.new_answers.clear()
        self.new_attempts.clear()
        self.ended_attempts.clear()
        self.new_exchanges.clear()
        self.let_in.clear()
        over = [number for number, each in self.open_exchanges.items() if not each.is_open]
        for number in over:
            del self.open_exchanges[number]
