"""What all machines of the fuzzer are made of: connections, half frames, one rule for messages.

Rules only draw: what they send is carried out and judged by the world. Connections are numbered
anew and never used again, and tokens count up, so that a list of steps means the same without those
before it.
"""

from collections.abc import Callable
from typing import Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tools.fuzz import strategies
from tools.fuzz._steps import Step
from tools.fuzz._violation import Violation
from tools.fuzz._world import World
from vastar_client.wire import Message

__all__ = ["Machine", "Session"]

_MOST_CONNECTIONS: Final = 4
_MOST_OPEN_CALLS: Final = 40


@attrs.define(eq=False)
class Session:
    """What the examples of one run share.

    Attributes:
        world: the runtime under attack.
        is_base: only the published protocol.
        examples: begun so far.
        failure: the first violation, the steps that led to it, and their salt.
        is_over: whether nothing more is to be tried.
    """

    world: World
    is_base: bool
    examples: int = 0
    failure: tuple[Violation, tuple[Step, ...], str] | None = None
    is_over: Callable[[], bool] = attrs.field(default=lambda: False)


class Machine(RuleBasedStateMachine):
    """What all profiles can do: connect, wait, leave, ask."""

    session: Session

    def __init__(self) -> None:
        super().__init__()
        self._world = self.session.world
        self._alive = self.session.failure is None and not self.session.is_over()
        self._next_connection = 0
        self._next_token = 0
        self._rest: dict[int, bytes] = {}
        if self._alive:
            self.session.examples += 1
            self._guarded(self._world.begin)
            self._open()

    def _guarded(self, act: Callable[[], None]) -> None:
        if not self._alive:
            return
        try:
            act()
        except Violation as violation:
            self._alive = False
            self.session.failure = violation, tuple(self._world.steps), self._world.salt
            self._world.abandon()
            raise

    def _do(self, kind: str, connection: int = 0, data: bytes = b"") -> None:
        self._guarded(lambda: self._world.do(Step(kind, connection, data)))

    def _open(self) -> None:
        self._do("open", self._next_connection)
        self._next_connection += 1

    def _usable(self) -> list[int]:
        """Connections on which something can be said."""
        return [
            number
            for number, line in self._world.connections.items()
            if line.is_open and not line.model.has_ended and not line.model.must_close
        ]

    def _pick(self, data: st.DataObject, *, whole: bool = True) -> int | None:
        """A connection, by a number that is drawn whatever there is.

        What is drawn may depend on what was drawn before, never on what the runtime did meanwhile:
        Hypothesis takes an example that differs from itself for an error.
        """
        drawn = data.draw(st.integers(0, 11))
        usable = [n for n in self._usable() if not (whole and n in self._rest)]
        if not usable and self._alive and self._next_connection < 3 * _MOST_CONNECTIONS:
            self._open()
            usable = [self._next_connection - 1] if self._alive else []
        return usable[drawn % len(usable)] if usable else None

    def _send(self, connection: int | None, pieces: list[bytes]) -> None:
        if connection is not None and self._room(connection):
            for piece in pieces:
                self._do("send", connection, piece)

    def _draw_pieces(self, data: st.DataObject, raw: st.SearchStrategy[bytes]) -> list[bytes]:
        return data.draw(raw.flatmap(strategies.splits))

    def _say(self, connection: int, message: Message) -> None:
        self._do("send", connection, strategies.frame_of(message))

    def _room(self, connection: int) -> bool:
        return len(self._world.connections[connection].model.owed) < _MOST_OPEN_CALLS

    @rule()
    def connect(self) -> None:
        """One more connection."""
        few = len(self._usable()) < _MOST_CONNECTIONS
        if few and self._next_connection < 3 * _MOST_CONNECTIONS:
            self._open()

    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        """A full close, whatever is under way."""
        connection = self._pick(data, whole=False)
        if connection is not None:
            self._rest.pop(connection, None)
            self._do("close", connection)

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        """Everything certain comes."""
        connection = self._pick(data, whole=False)
        if connection is not None:
            self._do("wait", connection)

    @rule(data=st.data())
    def half_a_frame(self, data: st.DataObject) -> None:
        """The beginning of a frame; the rest comes later, or never."""
        connection = self._pick(data)
        raw = strategies.frame_of(data.draw(strategies.requests(is_base=self.session.is_base)))
        cut = data.draw(st.integers(1, len(raw) - 1))
        if connection is not None and self._room(connection):
            self._do("send", connection, raw[:cut])
            self._rest[connection] = raw[cut:]

    @rule(drawn=st.integers(0, 11))
    def the_rest(self, drawn: int) -> None:
        """The rest of half a frame."""
        if self._rest:
            connection = sorted(self._rest)[drawn % len(self._rest)]
            self._do("send", connection, self._rest.pop(connection))

    @rule(data=st.data())
    def message(self, data: st.DataObject) -> None:
        """Level 3, one or several in one piece."""
        connection = self._pick(data)
        frames = strategies.message_level(is_base=self.session.is_base)
        pieces = self._draw_pieces(data, frames | frames | strategies.merged(frames))
        self._send(connection, pieces)

    def teardown(self) -> None:
        """Quiet, and everything as before."""
        self._guarded(self._world.settle)
