"""The closed sets of numbers on the wire: message types and the enumerations inside messages.

Each value is a wire fact (`fbs/vastar_ipc.fbs`): append, never renumber.
"""

from enum import IntEnum

__all__ = ["Disposition", "ErrorClass", "MessageType", "PayloadFormat", "ResponseFormat"]


class MessageType(IntEnum):
    """The type byte of a frame. 0 to 4 are the published protocol, the rest our extensions."""

    EXECUTE_REQUEST = 0
    EXECUTE_RESPONSE = 1
    HEALTH_CHECK = 2
    HEALTH_RESPONSE = 3
    CREDIT_UPDATE = 4
    STREAM_START = 5
    STREAM_CHUNK = 6
    STREAM_END = 7
    CANCEL = 8
    GOAWAY = 9
    REQUEST_CHUNK = 10
    KEEP_ALIVE = 11
    AUTHENTICATE = 12


class ErrorClass(IntEnum):
    """What the runtime itself could not do. The published SDKs retry 1, 3 and 4."""

    SUCCESS = 0
    TRANSIENT = 1
    PERMANENT = 2
    RATE_LIMITED = 3
    TIMEOUT = 4
    INVALID_REQUEST = 5


class Disposition(IntEnum):
    """How far a call got: whether the upstream may have acted on it."""

    UNKNOWN = 0
    NOT_SENT = 1
    SENT_NO_RESPONSE = 2
    RESPONSE_STARTED = 3
    COMPLETED = 4


class PayloadFormat(IntEnum):
    """How a payload is written: JSON text, or a nested FlatBuffer of the connector's own table."""

    JSON = 0
    NATIVE = 1


class ResponseFormat(IntEnum):
    """Which payload format the caller wants the answer in."""

    AS_REQUEST = 0
    JSON = 1
    NATIVE = 2
