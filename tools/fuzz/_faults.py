"""InvalidRequests that are owed for what was sent amiss, and which of them are certain.

Where an offence may have ended the reading (a window that perhaps overflowed) what was sent amiss
behind it may be answered or not, but one answer has to say why the connection closed.
"""

import attrs

from vastar_client.wire import ErrorClass, ExecuteResponse

__all__ = ["Faults"]

_WORDS = 300


@attrs.frozen
class _Fault:
    request_id: int
    words: str
    is_certain: bool


@attrs.define(eq=False)
class Faults:
    """Of one connection.

    Attributes:
        is_doubtful: from here on nothing may be read any more.
    """

    is_doubtful: bool = False
    _owed: list[_Fault] = attrs.field(factory=list)
    _has_reason: bool = False

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, request_id: int, error: object) -> str:
        """An answer for `error`, with that id where it could be read; the words of it."""
        words = str(error)[:_WORDS]
        self._owed.append(_Fault(request_id, words, not self.is_doubtful))
        return words

    @property
    def is_told(self) -> bool:
        """Nothing is owed for certain."""
        return not any(fault.is_certain for fault in self._owed)

    @property
    def is_reason_due(self) -> bool:
        """A close would come without the words for it."""
        return bool(self._owed) and not (self._has_reason and self.is_told)

    def answered(self, event: ExecuteResponse, *, has_call: bool) -> bool:
        """Whether `event` is for one of them: with its id, or with 0 where no call has that."""
        if event.error_class is not ErrorClass.INVALID_REQUEST:
            return False
        self._has_reason |= not event.request_id and self.is_doubtful
        exact = [fault for fault in self._owed if fault.request_id == event.request_id]
        loose = self._owed if not event.request_id and not has_call else []
        for fault in (*exact, *loose):
            self._owed.remove(fault)
            return True
        return False

    def read_otherwise(self) -> bool:
        """Whether one is left, which another reader took for no fault."""
        if self._owed:
            self._owed.pop(0)
            return True
        return False
