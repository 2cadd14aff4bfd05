"""One end of a connection, sans-IO: framing, codec and state table in one object.

Shape (after h11): bytes go in through `receive_data`, messages come out of `next_event`;
messages go in through `send`, buffers come out. The object knows its role only as an index into
the state table. It does no I/O, so whoever drives it must confess a failed write with
`send_failed`: from then on nothing can be sent, since half a frame may be on the wire.
"""

from copy import copy
from enum import Enum, auto
from typing import Final

from vastar_client.wire import codec, framing
from vastar_client.wire.enums import MessageType
from vastar_client.wire.errors import LocalProtocolError, RemoteProtocolError
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES, MAX_REQUEST_FRAME_BYTES
from vastar_client.wire.messages import Buffer, CreditUpdate, Message
from vastar_client.wire.state import (
    FAULTS,
    SENDS,
    Consequence,
    Fault,
    Phase,
    Role,
    action_of,
    credit_is_sound,
    is_sendable_type,
)

__all__ = ["END_OF_STREAM", "NEED_DATA", "Connection", "FrameTooLongError", "Signal"]


class Signal(Enum):
    """What `next_event` returns besides messages."""

    NEED_DATA = auto()
    END_OF_STREAM = auto()


NEED_DATA: Final = Signal.NEED_DATA
"""There is no whole frame: receive more."""

END_OF_STREAM: Final = Signal.END_OF_STREAM
"""The peer ended its half of the stream between two frames."""


class FrameTooLongError(LocalProtocolError):
    """A message that this side may not send because of its length. Nothing was sent.

    Attributes:
        limit_bytes: the limit, as the length prefix counts.
    """

    def __init__(self, frame_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a frame of {frame_bytes} bytes exceeds the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


def _unsound_credit(update: CreditUpdate) -> str:
    return (
        f"credit of {update.credit_delta} and {update.connection_bytes}: "
        "credit is never negative and never above 2^31-1"
    )


_KNOWN_TYPES: Final = {int(member): member for member in MessageType}
_PEER_OF: Final = {Role.CLIENT: Role.RUNTIME, Role.RUNTIME: Role.CLIENT}


class Connection:
    """The protocol state of one end.

    Args:
        role: which end this is.
        max_received_frame_bytes: longest frame accepted; by default 64 MiB from callers and the
            published answer limit from a runtime.
        max_sent_frame_bytes: longest frame sent; by default the other end's default.
    """

    __slots__ = (
        "_decoder",
        "_ended",
        "_faults",
        "_lost",
        "_peer_sends",
        "_phase",
        "_send_open",
        "_sends",
        "max_sent_frame_bytes",
        "role",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_received_frame_bytes: int | None = None,
        max_sent_frame_bytes: int | None = None,
    ) -> None:
        limits = (MAX_REQUEST_FRAME_BYTES, MAX_ANSWER_FRAME_BYTES)
        receives, sends = limits if role is Role.RUNTIME else limits[::-1]
        self.role: Final = role
        self.max_sent_frame_bytes: Final = max_sent_frame_bytes or sends
        self._decoder = framing.FrameDecoder(max_received_frame_bytes or receives)
        self._sends = SENDS[role]
        self._peer_sends = SENDS[_PEER_OF[role]]
        self._faults = FAULTS[role]
        self._phase = Phase.BASE
        self._ended = False
        self._lost: RemoteProtocolError | None = None
        self._send_open = True

    @property
    def phase(self) -> Phase:
        """What has been agreed; CLOSED once this side can no longer send."""
        return self._phase if self._send_open else Phase.CLOSED

    @property
    def opted_in(self) -> bool:
        """Whether the caller has shown that it speaks the extensions."""
        return self._phase is not Phase.BASE

    @property
    def in_frame(self) -> bool:
        """Whether the peer has begun a frame that is not whole yet."""
        return self._decoder.in_frame

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; `b""` is the end of its half of the stream.

        After an error that `closes` they are dropped.
        """
        if self._lost is not None:
            return
        if data:
            self._decoder.receive_data(data)
        else:
            self._ended = True

    def next_event(self) -> Message | Signal:
        """The next message, or why there is none.

        Raises:
            RemoteProtocolError: the peer broke the protocol. With `closes` false the next call
                goes on behind the frame at fault; with `closes` true every further call raises
                an equal error (a new one: a raised one keeps its frames alive).
        """
        if self._lost is not None:
            raise copy(self._lost)
        try:
            frame = self._decoder.next_frame()
        except framing.ZeroLengthFrameError as error:
            raise self._fault(Fault.ZERO_LENGTH, error) from None
        except framing.OversizeFrameError as error:
            raise self._fault(Fault.OVERSIZE, error) from None
        if frame is None:
            if not self._ended:
                return NEED_DATA
            if self._decoder.in_frame:
                raise self._fault(
                    Fault.CUT_SHORT, RemoteProtocolError("the stream ended inside a frame")
                )
            return END_OF_STREAM
        return self._understand(*frame)

    def _understand(self, type_byte: int, flatbuffer: memoryview) -> Message:
        """The message of a whole frame, if the peer may send it now."""
        message_type = _KNOWN_TYPES.get(type_byte)
        if message_type is None:
            raise self._fault(
                Fault.UNKNOWN_TYPE,
                RemoteProtocolError(
                    f"unknown message type {type_byte}: known are 0 to {max(_KNOWN_TYPES)}"
                ),
            )
        peer = _PEER_OF[self.role]
        if not is_sendable_type(peer, message_type):
            raise self._fault(
                Fault.NOT_ALLOWED,
                RemoteProtocolError(
                    f"message type {type_byte} ({message_type.name}) is never sent by a "
                    f"{peer.name.lower()}"
                ),
            )
        try:
            message = codec.decode_message(message_type, flatbuffer)
        except codec.MalformedError as error:
            raise self._fault(Fault.BAD_BUFFER, error) from None
        if isinstance(message, CreditUpdate) and not credit_is_sound(message):
            raise self._fault(
                Fault.BAD_CREDIT,
                RemoteProtocolError(_unsound_credit(message)),
            )
        next_phase = self._peer_sends[self._phase].get(action_of(message))
        if next_phase is None:
            raise self._fault(
                Fault.NOT_ALLOWED,
                RemoteProtocolError(
                    f"{message_type.name} is not allowed on a connection that is {self._phase.name}"
                ),
            )
        self._phase = next_phase
        return message

    def _fault(self, fault: Fault, error: RemoteProtocolError) -> RemoteProtocolError:
        """`error` with the consequence that the table sets for `fault`."""
        error.closes = self._faults[fault] is Consequence.CLOSES
        if error.closes:
            self._lost = copy(error)
        return error

    def send(self, message: Message) -> list[Buffer]:
        """The frame of `message` as buffers to write one after another.

        The first begins with the frame header; a large body is one of the later ones, uncopied.

        Raises:
            LocalProtocolError: this side may not send it now, or a field cannot be written.
            FrameTooLongError: it is longer than this side may send. The connection is unharmed.
        """
        if not self._send_open:
            raise LocalProtocolError("nothing can be sent on a connection after a failed write")
        next_phase = self._sends[self._phase].get(action_of(message))
        if next_phase is None:
            raise LocalProtocolError(
                f"a {self.role.name.lower()} may not send {message.TYPE.name} on a connection "
                f"that is {self._phase.name}"
            )
        if isinstance(message, CreditUpdate) and not credit_is_sound(message):
            raise LocalProtocolError(_unsound_credit(message))
        buffers = codec.encode_message(message)
        flatbuffer_bytes = codec.buffers_bytes(buffers)
        if flatbuffer_bytes + 1 > self.max_sent_frame_bytes:
            raise FrameTooLongError(flatbuffer_bytes + 1, self.max_sent_frame_bytes)
        self._phase = next_phase
        header = framing.frame_header(message.TYPE, flatbuffer_bytes)
        if not buffers:
            return [header]
        buffers[0] = header + buffers[0]
        return buffers

    def send_failed(self) -> None:
        """A write failed or was cut: half a frame may be on the wire, so no more can be sent."""
        self._send_open = False
