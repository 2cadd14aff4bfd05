"""A client's side of the journal: what it says of its calls, at once and in one piece each."""

import os
import time
from collections.abc import Callable
from typing import Final

from tools.soak._mix import Planned
from tools.soak._words import (
    Began,
    Ended,
    Journal,
    Rested,
    Wrong,
    journal_line,
    wrong_with_answer,
    wrong_with_events,
)
from vastar_client import ConnectionClosed, ConnectorException, Disposition, RuntimeUnavailable
from vastar_client.wire import HealthResponse

__all__ = ["Diary"]

_SHOWN: Final = 300


def _to_stdout(line: bytes) -> None:
    os.write(1, line)


class Diary:
    """Writes lines.

    Args:
        write: takes each line whole.
        now_s: of the clock that all processes share.
    """

    def __init__(
        self,
        write: Callable[[bytes], None] = _to_stdout,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._now_s = now_s
        self._until_s: dict[str, float] = {}

    def _say(self, said: Journal) -> None:
        self._write(journal_line(said))

    def began(self, call: Planned) -> None:
        """A call begins right behind this."""
        now_s = self._now_s()
        self._until_s[call.id] = now_s + call.timeout_s
        self._say(Began(call.id, call.kind, now_s, call.is_counted, call.is_once, call.timeout_s))

    def ended(
        self, call: Planned, how: str, disposition: Disposition | None = None, attempts: int = 0
    ) -> None:
        """It has ended."""
        now_s = self._now_s()
        late_s = max(now_s - self._until_s.pop(call.id), 0.0)
        self._say(Ended(call.id, now_s, how, disposition, attempts, late_s))

    def failed(self, call: Planned, error: ConnectorException) -> None:
        """It has ended with an error."""
        how = error.get_error_class_name()
        if isinstance(error, RuntimeUnavailable):
            how = "absent"
        elif isinstance(error, ConnectionClosed):
            how = "lost"
        elif error.refused_by == "drain:runtime":
            how = "draining"
        elif error.refused_by == "in_flight:connection":
            self.look(f"{call.id} was one too many on a connection that keeps to its number")
        self.ended(call, how, error.disposition, error.attempts)

    def answered(self, call: Planned, body: bytes, disposition: Disposition, attempts: int) -> None:
        """It has ended with an answer, which is looked at."""
        if call.is_counted:
            self.look(wrong_with_answer(body, call.id, call.body))
        self.ended(call, "answer", disposition, attempts)

    def told_health(self, call: Planned, health: HealthResponse) -> None:
        """It has ended with an account of health: good, or that of a runtime that is leaving."""
        if not health.healthy and "draining" not in (health.message or ""):
            self.look(f"not healthy: {health.message}")
        self.ended(call, "answer" if health.healthy else "draining")

    def told_row(self, call: Planned, value: object) -> None:
        """It has ended with a row of the database, which has to be the call's own."""
        self.look(None if value == call.id else f"a row of {value!r} for {call.id}")
        self.ended(call, "answer")

    def look_at_events(self, call: Planned, data: list[str], *, is_whole: bool) -> None:
        """Whether these events are the call's."""
        self.look(wrong_with_events(data, call.id, call.amount, is_whole=is_whole))

    def look(self, wrong: str | None) -> None:
        """Tell what must not be, where something is."""
        if wrong is not None:
            self._say(Wrong(wrong[:_SHOWN], self._now_s()))

    def rested(self) -> None:
        """There is neither call nor connection."""
        self._say(Rested(self._now_s()))
