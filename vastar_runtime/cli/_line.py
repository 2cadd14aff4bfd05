"""A connection of a command to a runtime: a socket, what is still to be sent, and the frames.

Shape: one thread and `select`, no event loop: a command has one thing to do, and begins to do it in
a fraction of the time. Messages are put into a queue and go out while the line waits for what
comes (`turn`), so that a command may send a body and read its answer at once.
"""

import errno
import select
import time
from typing import TYPE_CHECKING, Final, TypeVar

from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Authenticate,
    Connection,
    HealthResponse,
    Message,
    ProtocolError,
    Role,
    Signal,
)
from vastar_runtime.cli._dialing import dial, token_to_show
from vastar_runtime.config import Address, TcpAddress, UnixAddress
from vastar_runtime.listeners import PeerCredentials, fault_of_path, peer_credentials

if TYPE_CHECKING:
    import ssl

__all__ = ["ControlError", "Line", "NotRunningError"]

_RECEIVE_BYTES: Final = 262_144
_REFUSED: Final = "not allowed"

_Wanted = TypeVar("_Wanted", bound=Message)


class ControlError(Exception):
    """The runtime could not be asked; the message says why."""


class NotRunningError(ControlError):
    """Nobody listens at the address."""


class Line:
    """One connection to a runtime.

    Args:
        address: where the runtime listens.
        timeout_s: for connecting, and for shaking hands over TLS.
        tls: what to trust over TCP, in place of what the environment names.
        calls: whether calls will be made, for which a token counts over a Unix socket too.

    Raises:
        NotRunningError: nobody listens there.
        ControlError: it cannot be reached, or lets nobody in with this certificate or token.
    """

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        *,
        tls: "ssl.SSLContext | None" = None,
        calls: bool = False,
    ) -> None:
        self._address = address
        self._connection = Connection(Role.CLIENT)
        self._unsent = bytearray()
        if isinstance(address, UnixAddress) and (fault := fault_of_path(address.path)):
            raise ControlError(fault)
        try:
            self._socket, self._again = dial(address, timeout_s, tls)
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunningError(f"no runtime listens on {address}") from None
        except TimeoutError:
            raise ControlError(f"{address}: takes no connection in {timeout_s:g} s") from None
        except OSError as error:
            reason = (
                getattr(error, "verify_message", None) or (error.strerror or str(error)).lower()
            )
            if error.errno == errno.EACCES:
                reason += "; the runtime belongs to another user"
            raise ControlError(f"{address}: {reason}") from None
        except ValueError as error:
            raise ControlError(str(error)) from None
        if calls or isinstance(address, TcpAddress):
            try:
                self._show_token(timeout_s)
            except BaseException:
                self.close()
                raise

    def _show_token(self, timeout_s: float) -> None:
        try:
            token = token_to_show()
        except ValueError as error:
            raise ControlError(str(error)) from None
        if token is None:
            return
        self.put(Authenticate(token=token))
        message = self.receive(HealthResponse, timeout_s).message or ""
        if message.startswith(_REFUSED):
            raise ControlError(f"{self._address}: {message}")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    @property
    def peer(self) -> PeerCredentials | None:
        """The process that listens, as the kernel says; None over TCP."""
        return peer_credentials(self._socket)

    @property
    def is_sending(self) -> bool:
        """Whether some of what was put is still to go."""
        return bool(self._unsent)

    def put(self, message: Message) -> None:
        """Queue `message`; `turn` sends it.

        Raises:
            LocalProtocolError: it cannot be written, or is too long.
        """
        for buffer in self._connection.send(message):
            self._unsent += buffer

    def next_message(self) -> Message | None:
        """The next message that has come whole, or None.

        Raises:
            ControlError: no more can come.
        """
        try:
            event = self._connection.next_event()
        except ProtocolError as error:
            raise ControlError(f"{self._address}: is no Vastar runtime ({error})") from None
        if event is END_OF_STREAM:
            words = f"{self._address}: closed the connection without an answer"
            if isinstance(self._address, TcpAddress) and len(self._again) == 1:
                words += "; if it speaks TLS, name its authority by VASTAR_TLS_CA_FILE"
            raise ControlError(words)
        assert event is NEED_DATA or not isinstance(event, Signal)
        return None if isinstance(event, Signal) else event

    def turn(self, timeout_s: float | None, beside: int | None = None) -> bool:
        """Send and receive what is possible, after waiting until something is.

        Args:
            timeout_s: the longest wait; None waits for ever.
            beside: a descriptor that is also waited for.

        Returns:
            Whether there is something to be read from `beside`.

        Raises:
            ControlError: the connection was lost.
        """
        line = self._socket.fileno()
        watched = [line] if beside is None else [line, beside]
        readable, writable, _ = select.select(watched, [line] * self.is_sending, [], timeout_s)
        try:
            # What it said last is worth more than the news that it takes no more.
            if line in readable:
                self._connection.receive_data(self._socket.recv(_RECEIVE_BYTES))
            elif writable:
                del self._unsent[: self._socket.send(self._unsent)]
        except self._again:
            pass  # select was wrong about it, or TLS has to read or write something of its own
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ControlError(f"{self._address}: connection lost ({reason})") from None
        return beside in readable

    def receive(self, wanted: type[_Wanted], timeout_s: float) -> _Wanted:
        """The next message of a type, waited for; others are passed over.

        Raises:
            ControlError: none came within `timeout_s`, or the connection was lost.
        """
        ends_at_s = time.monotonic() + timeout_s
        while True:
            message = self.next_message()
            if isinstance(message, wanted):
                return message
            if message is None:
                left_s = ends_at_s - time.monotonic()
                if left_s <= 0:
                    raise ControlError(f"{self._address}: no answer in {timeout_s:g} s")
                self.turn(left_s)
