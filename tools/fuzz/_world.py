"""Carries out the steps of an attack over real sockets, and lets the judges see all bytes.

One thread, sockets that do not block: while a step waits or sends, whatever comes on any connection
is judged at once. Every attack ends in quiet: what hangs is cancelled, every connection shows that
it still works, all are closed, and then the runtime has to be as it was before. A connection of its
own, the witness, is there through all attacks and must never notice any of them.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from tools.fuzz._circuits import Circuits
from tools.fuzz._line import Address, Check, Line, dial
from tools.fuzz._messages import frame_of
from tools.fuzz._model import ConnectionModel
from tools.fuzz._steps import Step
from tools.fuzz._upstream import Upstream
from tools.fuzz._violation import Violation
from vastar_client.wire import Cancel, ExecuteRequest, HealthCheck, HealthResponse

__all__ = ["Address", "World"]

_RECEIVE_BYTES: Final = 1 << 20
_POLL_S: Final = 0.005
_BARRIER_ID: Final = 0x5EED


class World:
    """A runtime under attack.

    Args:
        address: of the runtime.
        upstream: behind it, where calls may reach one.
        is_base: only the published protocol is spoken.
        patience_s: how long something certain may take.
        is_one_process: health counts the calls of all connections; else only those of the process
            that answers, of which nothing but the own connection is known.

    Attributes:
        steps: of the attack under way.
        connections: by number.
        salt: begins the tokens of this attack: a request that comes late is none of the next one.
    """

    def __init__(
        self,
        address: Address,
        upstream: Upstream | None,
        *,
        is_base: bool = False,
        patience_s: float = 5.0,
        is_one_process: bool = True,
    ) -> None:
        self.address = address
        self.upstream = upstream
        self.is_base = is_base
        self.patience_s = patience_s
        self.is_one_process = is_one_process
        self.steps: list[Step] = []
        self.connections: dict[int, Line] = {}
        self.salt = ""
        self._attacks = 0
        self._witness: Line | None = None
        self._baseline = 0
        self._credits: int | None = None
        self._circuits = Circuits()

    # --- an attack ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin an attack: the runtime is quiet, and nothing of the one before counts."""
        self.abandon()
        self.steps = []
        self._attacks += 1
        self.salt = f"s{self._attacks % 1_000_000:06}"
        if self.upstream is not None:
            self.upstream.forget()
        if self._witness is None or not self._witness.is_open:
            self._witness = self._dial()
        if not self.is_base:
            health = self._ask_witness()
            self._baseline, self._credits = health.active_requests, health.available_credits

    def abandon(self) -> None:
        """Close the connections of the attack; what they were owed is forgotten."""
        for line in self.connections.values():
            line.close()
        self.connections.clear()

    def close(self) -> None:
        """Leave the runtime."""
        self.abandon()
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def do(self, step: Step) -> None:
        """Carry out one step; those of connections that are not open do nothing.

        Raises:
            Violation: a rule does not hold.
        """
        self.steps.append(step)
        if step.kind == "open":
            if step.connection in self.connections:
                self.connections[step.connection].close()
            self.connections[step.connection] = self._dial()
            return
        if step.kind == "pause":
            self._pump(lambda: False, 0.05)
            return
        if step.kind == "arrived":
            self._await_arrival(step.data.decode("latin1"))
            return
        line = self.connections.get(step.connection)
        if line is None or not line.is_open:
            return
        if step.kind in {"send", "eof"} and line.model.has_ended:
            return  # our half is over: the kernel takes no more, whatever the runtime does
        match step.kind:
            case "send":
                self._send(line, step.data)
            case "eof":
                self._end(line)
            case "close":
                line.close()
            case "wait":
                self._wait_certain([line])

    def run(self, steps: Iterable[Step], salt: str = "") -> None:
        """A whole attack, quiet included; `salt` is the one in `steps`, if any.

        Raises:
            Violation: a rule does not hold.
        """
        self.begin()
        old, new = salt.encode(), self.salt.encode()
        for step in steps:
            self.do(attrs.evolve(step, data=step.data.replace(old, new)) if old else step)
        self.settle()

    def settle(self) -> None:
        """End the attack, and see that everything is as before.

        Raises:
            Violation: it is not.
        """
        lines = [line for line in self.connections.values() if line.is_open]
        self._wait_certain(lines)
        self._cancel_rest(lines)
        for line in lines:
            if line.is_open and not line.model.must_close and not self._can_speak(line):
                self._leave(line)
        self._barrier([line for line in lines if line.is_open and self._can_speak(line)])
        self._wait_certain([line for line in lines if line.is_open])
        models = [line.model for line in self.connections.values()]
        self.abandon()
        self._be_quiet()
        for model in models:
            model.settled()

    # --- its parts ------------------------------------------------------------------------------

    def _can_speak(self, line: Line) -> bool:
        model = line.model
        return not (model.must_close or model.may_close or model.has_ended or model.in_frame)

    def _cancel_rest(self, lines: list[Line]) -> None:
        if self.is_base:
            return
        for line in lines:
            if line.is_open and self._can_speak(line):
                open_ids = {call.request.request_id for call in line.model.owed}
                for request_id in sorted(open_ids):
                    self._send(line, frame_of(Cancel(request_id)))
        self._wait_certain(lines)

    def _leave(self, line: Line) -> None:
        """End a connection on which nothing more can be said: within a frame, or half-closed."""
        if not line.model.owed and not line.model.may_close and not self.is_base:
            self._end(line)
            self._wait_for(line, lambda: line.model.has_closed)
        line.close()

    def _barrier(self, lines: list[Line]) -> None:
        """One more exchange on each: what was answered twice, or too much, comes before it."""
        for line in lines:
            if self.is_base:
                request = ExecuteRequest(_BARRIER_ID, "acme", "db", "request")
                self._send(line, frame_of(request))
            else:
                self._send(line, frame_of(HealthCheck()))
        self._wait_certain(lines)

    def _be_quiet(self) -> None:
        """The witness sees nothing left, and the upstream holds nothing any more."""
        if self.is_base:
            return
        until_s = time.monotonic() + self.patience_s
        while (health := self._ask_witness()).active_requests > self._baseline:
            if time.monotonic() > until_s:
                raise Violation("quiet", f"all connections are closed, and yet {health}")
            time.sleep(_POLL_S)
        if health.available_credits != self._credits:
            raise Violation("no credit leaks", f"{health} on a connection that had {self._credits}")
        while self.upstream is not None and self.upstream.holds_any:
            if time.monotonic() > until_s:
                raise Violation("nothing hangs upstream", "its caller has left, the call goes on")
            time.sleep(_POLL_S)

    def _ask_witness(self) -> HealthResponse:
        witness = self._witness
        assert witness is not None
        if not witness.is_open:
            raise Violation("other connections are unaffected", "the witness was closed")
        self._send(witness, frame_of(HealthCheck()))
        self._wait_for(witness, lambda: not witness.model.owed_health)
        health = witness.last_health
        assert health is not None
        if not health.healthy:
            raise Violation("health is true", f"{health}, but nobody asked it to leave")
        return health

    def _await_arrival(self, token: str) -> None:
        upstream = self.upstream
        if upstream is None:
            return

        def is_settled() -> bool:
            owed = (call for line in self._lines() if line.is_open for call in line.model.owed)
            is_owed = any(call.target and call.target.token == token for call in owed)
            return upstream.hits(token) > 0 or not is_owed

        self._pump(is_settled, min(0.5, self.patience_s))

    # --- sockets --------------------------------------------------------------------------------

    def _dial(self) -> Line:
        model = ConnectionModel(self.upstream, is_base=self.is_base, circuits=self._circuits)
        try:
            return dial(self.address, self.patience_s, model)
        except OSError as error:
            raise Violation("connections are accepted", str(error)) from None

    def _send(self, line: Line, data: bytes) -> None:
        """Send all of it, receiving meanwhile: who only sends may wait for ever."""
        asked = line.model.owed_health
        line.model.sent(data)
        for _ in range(line.model.owed_health - asked):
            self._note_check(line)
        until_s = time.monotonic() + self.patience_s
        rest = memoryview(data)
        while rest and line.is_open:
            try:
                rest = rest[line.socket.send(rest) :]
            except BlockingIOError:
                self._pump(lambda: False, _POLL_S)
                if time.monotonic() > until_s and not line.model.must_close:
                    raise Violation("frames are read", "it takes no more bytes") from None
                if time.monotonic() > until_s:
                    return
            except OSError:  # it closed: the reason, if there is one, is still to be read
                self._wait_for(line, lambda: line.model.has_closed)

    def _end(self, line: Line) -> None:
        line.model.sent_eof()
        with contextlib.suppress(OSError):
            line.socket.shutdown(socket.SHUT_WR)

    def _wait_certain(self, lines: list[Line]) -> None:
        for line in lines:
            if line.is_open:
                self._wait_for(line, lambda line=line: line.model.owes_nothing_certain)  # type: ignore[misc]  # bound now

    def _wait_for(self, line: Line, is_done: Callable[[], bool]) -> None:
        def has_come() -> bool:
            return is_done() or not line.is_open

        if not self._pump(has_come, self.patience_s):
            raise line.model.late()

    def _pump(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Receive on all connections until `is_done`; whether it was, in time."""
        until_s = time.monotonic() + timeout_s
        while not is_done():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            lines = [line for line in self.connections.values() if line.is_open]
            if self._witness is not None and self._witness.is_open:
                lines.append(self._witness)
            poll = select.poll()
            for line in lines:
                poll.register(line.socket, select.POLLIN)
            ready = {number for number, _ in poll.poll(min(left_s, _POLL_S) * 1000)}
            for line in lines:
                if line.socket.fileno() in ready:
                    self._receive(line)
        return True

    def _receive(self, line: Line) -> None:
        try:
            data = line.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            line.close()
            line.model.closed(is_reset=True)
            return
        if not data:
            line.close()
            line.model.closed(is_reset=False)
            return
        line.model.received(data)
        while line.model.health:
            line.last_health = line.model.health.popleft()
            self._judge_health(line, line.checks.popleft(), line.last_health)

    # --- health ---------------------------------------------------------------------------------

    def _lines(self) -> Iterable[Line]:
        yield from self.connections.values()

    def _held(self, by: Line) -> frozenset[int]:
        """Calls that are certain to be under way: our upstream holds them, nobody gave them up."""
        upstream = self.upstream
        return frozenset(
            id(call)
            for line in self._lines()
            if line.is_open and self._can_speak(line) and (self.is_one_process or line is by)
            for call in line.model.owed
            if upstream is not None
            and call.target is not None
            and call.is_plain
            and call.is_far
            and not call.target.timeout_ms
            and upstream.holds(call.target.token)
        )

    def _note_check(self, line: Line) -> None:
        ended = sum(len(each.model.ended) for each in self._lines())
        was_idle = not line.model.owed and line.model.owed_health == 1
        line.checks.append(Check(ended, self._held(line), was_idle))

    def _judge_health(self, line: Line, check: Check, health: HealthResponse) -> None:
        """What it says of calls in flight, against what is certain."""
        if health.message and "not allowed" in health.message:
            return  # the answer to a token
        most = self._baseline + sum(
            len(each.model.owed) + len(each.model.ended) for each in self._lines()
        )
        least = len(check.held & self._held(line))
        is_known = line is not self._witness or bool(self.connections)
        if is_known and not least <= health.active_requests <= most - check.ended:
            raise Violation("health is true", f"{health}: {least} to {most} calls were in flight")
        is_idle = check.was_idle and not line.model.owed
        if is_idle and self._credits is not None and health.available_credits != self._credits:
            raise Violation(
                "no credit leaks", f"{health} on an idle connection that has {self._credits}"
            )
