"""The connection state machine: what each end may send, and what each fault costs.

Theory. A connection starts as the published protocol, BASE: calls and answers, nothing else may
reach the caller. A caller *opts in* by what it sends, never by a handshake: a health check, a
cancel, a stream makes the connection EXTENDED (the types that answer those may come back), a
CreditUpdate makes it CREDITED (Goaway and request credits may come too). Opting in cannot be
undone. Both ends run the same machine on the same frames, so the client knows what may arrive
and the runtime what it may send.

`SENDS[role][phase][action]` is the next phase; a missing key is the only way for a frame to be
illegal. CLOSED is terminal: `{}`.

Faults are the other input: what arrived was no legal frame. `FAULTS[role][fault]` says whether
the connection goes on. A runtime forgives what leaves the framing intact, as the published one
does: one bad message of a caller must not fail its other calls. A client forgives nothing: an
answer that it cannot read is a call that would never end.

Not in the table: request ids (two unary calls with one id are each answered, so ids have no
state), credit amounts, and time. END is the peer's half of the stream: after it the other half
may still send, so it is no phase.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from vastar_client.wire.enums import MessageType
from vastar_client.wire.limits import MAX_WINDOW_BYTES
from vastar_client.wire.messages import CreditUpdate, ExecuteRequest, Message

__all__ = ["FAULTS", "SENDS", "Action", "Consequence", "Fault", "Phase", "Role", "action_of"]


class _Fast(Enum):
    """An Enum whose members hash by address, each being the only one of its kind.

    Enum's own hash is Python code that would run several times for each frame.
    """

    __hash__ = object.__hash__


class Role(_Fast):
    """Which end of the connection this is."""

    CLIENT = auto()
    RUNTIME = auto()


class Phase(_Fast):
    """What has been agreed on a connection so far."""

    BASE = auto()
    EXTENDED = auto()
    CREDITED = auto()
    CLOSED = auto()


class Action(_Fast):
    """A frame as the machine sees it: its type, and where one type means two things, which."""

    CALL = auto()
    STREAM_CALL = auto()
    ANSWER = auto()
    HEALTH_CHECK = auto()
    HEALTH_RESPONSE = auto()
    REQUEST_CREDIT = auto()
    STREAM_CREDIT = auto()
    STREAM_START = auto()
    STREAM_CHUNK = auto()
    STREAM_END = auto()
    CANCEL = auto()
    GOAWAY = auto()
    REQUEST_CHUNK = auto()
    KEEP_ALIVE = auto()
    AUTHENTICATE = auto()


class Fault(Enum):
    """What can be wrong with received bytes."""

    ZERO_LENGTH = auto()
    OVERSIZE = auto()
    UNKNOWN_TYPE = auto()
    BAD_BUFFER = auto()
    NOT_ALLOWED = auto()
    """A frame that the sender may not send in this phase, or ever."""
    BAD_CREDIT = auto()
    """Negative or overflowing credit."""
    CUT_SHORT = auto()
    """The stream ended inside a frame."""


class Consequence(Enum):
    """What a fault does to the connection."""

    GOES_ON = auto()
    CLOSES = auto()


_LEADS_TO: Final = {
    Action.CALL: Phase.BASE,
    Action.STREAM_CALL: Phase.EXTENDED,
    Action.HEALTH_CHECK: Phase.EXTENDED,
    Action.REQUEST_CREDIT: Phase.CREDITED,
    Action.STREAM_CREDIT: Phase.CREDITED,
    Action.CANCEL: Phase.EXTENDED,
    Action.REQUEST_CHUNK: Phase.EXTENDED,
    Action.AUTHENTICATE: Phase.EXTENDED,
}
"""What a client may send, always, and the least that it agrees to by that."""

_ALLOWED_FROM: Final = {
    Action.ANSWER: Phase.BASE,
    Action.HEALTH_RESPONSE: Phase.EXTENDED,
    Action.STREAM_CREDIT: Phase.EXTENDED,
    Action.STREAM_START: Phase.EXTENDED,
    Action.STREAM_CHUNK: Phase.EXTENDED,
    Action.STREAM_END: Phase.EXTENDED,
    Action.KEEP_ALIVE: Phase.EXTENDED,
    Action.REQUEST_CREDIT: Phase.CREDITED,
    Action.GOAWAY: Phase.CREDITED,
}
"""What a runtime may send, and the phase from which on; it never changes the phase."""

_OPEN: Final = (Phase.BASE, Phase.EXTENDED, Phase.CREDITED)
"""In the order of opting in."""


def _client_sends(phase: Phase) -> dict[Action, Phase]:
    return {action: max(phase, to, key=_OPEN.index) for action, to in _LEADS_TO.items()}


def _runtime_sends(phase: Phase) -> dict[Action, Phase]:
    reached = _OPEN[: _OPEN.index(phase) + 1]
    return {action: phase for action, needed in _ALLOWED_FROM.items() if needed in reached}


SENDS: Final[Mapping[Role, Mapping[Phase, Mapping[Action, Phase]]]] = MappingProxyType(
    {
        Role.CLIENT: {**{phase: _client_sends(phase) for phase in _OPEN}, Phase.CLOSED: {}},
        Role.RUNTIME: {**{phase: _runtime_sends(phase) for phase in _OPEN}, Phase.CLOSED: {}},
    }
)

FAULTS: Final[Mapping[Role, Mapping[Fault, Consequence]]] = MappingProxyType(
    {
        Role.RUNTIME: {
            Fault.ZERO_LENGTH: Consequence.CLOSES,
            Fault.OVERSIZE: Consequence.CLOSES,
            Fault.UNKNOWN_TYPE: Consequence.GOES_ON,
            Fault.BAD_BUFFER: Consequence.GOES_ON,
            Fault.NOT_ALLOWED: Consequence.GOES_ON,
            Fault.BAD_CREDIT: Consequence.CLOSES,
            Fault.CUT_SHORT: Consequence.CLOSES,
        },
        Role.CLIENT: dict.fromkeys(Fault, Consequence.CLOSES),
    }
)
"""By the role of the end that received the fault."""

_ACTION_OF_TYPE: Final[Mapping[MessageType, Action]] = MappingProxyType(
    {
        MessageType.EXECUTE_REQUEST: Action.CALL,
        MessageType.EXECUTE_RESPONSE: Action.ANSWER,
        MessageType.HEALTH_CHECK: Action.HEALTH_CHECK,
        MessageType.HEALTH_RESPONSE: Action.HEALTH_RESPONSE,
        MessageType.CREDIT_UPDATE: Action.REQUEST_CREDIT,
        MessageType.STREAM_START: Action.STREAM_START,
        MessageType.STREAM_CHUNK: Action.STREAM_CHUNK,
        MessageType.STREAM_END: Action.STREAM_END,
        MessageType.CANCEL: Action.CANCEL,
        MessageType.GOAWAY: Action.GOAWAY,
        MessageType.REQUEST_CHUNK: Action.REQUEST_CHUNK,
        MessageType.KEEP_ALIVE: Action.KEEP_ALIVE,
        MessageType.AUTHENTICATE: Action.AUTHENTICATE,
    }
)


def action_of(message: Message) -> Action:
    """What `message` is to the machine."""
    if isinstance(message, ExecuteRequest) and (message.stream or message.body_follows):
        return Action.STREAM_CALL
    if isinstance(message, CreditUpdate) and message.request_id:
        return Action.STREAM_CREDIT
    return _ACTION_OF_TYPE[message.TYPE]


def is_sendable_type(role: Role, message_type: MessageType) -> bool:
    """Whether an end of `role` ever sends frames of `message_type`."""
    return _ACTION_OF_TYPE[message_type] in _EVER_SENT[role]


def credit_is_sound(update: CreditUpdate) -> bool:
    """Whether the amounts of `update` can be added to a window at all."""
    return (
        0 <= update.credit_delta <= MAX_WINDOW_BYTES
        and 0 <= update.connection_bytes <= MAX_WINDOW_BYTES
    )


_EVER_SENT: Final = {
    role: frozenset(action for phase in phases.values() for action in phase)
    for role, phases in SENDS.items()
}
