"""TLS as a channel over a channel: OpenSSL through memory, and its two directions kept apart.

`trio.SSLStream` would do, but for two things. It is of no more use once a send failed or was
cancelled, so that an upstream's early answer could be read no further than its first record; in TLS
as in TCP one direction does not need the other. And it costs some 50 us a request, where the
cryptography costs four (measured on TLS 1.3 over loopback).

What TLS itself has to say (an alert, the answer to a key update) is sent when reading brings it up,
as far as that goes without waiting, and else ahead of what is sent next (RFC 8446, 4.6.3).
"""

import ssl
from collections.abc import Sequence
from typing import Any, Final

import trio

from vastar_runtime.transport.channel import RECEIVE_BYTES, Channel
from vastar_runtime.transport.messages import Buffer

__all__ = ["TlsChannel"]

_PIECE_BYTES: Final = 65536
"""Encrypted at once, and then sent: nobody else runs in between."""
_JOIN_BYTES: Final = 16384
"""Fits into one record, which costs less than several."""


class TlsChannel:
    """One end of TLS; see `Channel`. Of use once `handshake` has returned.

    Args:
        channel: connected; owned from here on.
        context: of a client, or of a server.
        host: the name or address that the certificate must be for, also sent as SNI; None is the
            server's end.
    """

    __slots__ = (
        "_channel",
        "_failure",
        "_has_ended",
        "_incoming",
        "_is_sending",
        "_outgoing",
        "_tls",
        "_unsent",
    )

    def __init__(self, channel: Channel, context: "ssl.SSLContext", host: str | None) -> None:
        self._channel = channel
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )
        self._unsent = b""  # of the outgoing bytes, those taken first
        self._is_sending = False  # stays so when it is cut off: nothing can follow half a record
        self._has_ended = False  # nothing more will be received
        self._failure: ssl.SSLError | None = None

    def peer_certificate(self) -> dict[str, Any] | None:
        """What the other end's certificate says, where one was asked for and verified."""
        return self._tls.getpeercert()

    async def handshake(self) -> None:
        """Agree with the peer.

        Raises:
            trio.BrokenResourceError: it failed; the cause tells why.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(None)
                await self._receive()
            except ssl.SSLError as error:
                self._say_own_words()
                raise _broken(error) from error
            else:
                await self._flush(None)
                return

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """See `Channel.receive_some`. An end without TLS's own goodbye is an end as well."""
        if self._failure is not None:
            raise _broken(self._failure) from self._failure
        while True:
            # OpenSSL has looked at nothing that it has not taken, so there may be no use in asking.
            if self._incoming.pending or self._has_ended or self._tls.pending():
                data = self._decrypt(max_bytes)
                if data is not None:
                    return data
            await self._receive()

    async def _receive(self) -> None:
        data = await self._channel.receive_some()
        if data:
            self._incoming.write(data)
        else:
            self._has_ended = True
            self._incoming.write_eof()

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """All that is here, up to `max_bytes`; `None` where it is not a whole record."""
        pieces: list[bytes] = []
        room = max_bytes
        try:
            while room:
                data = self._tls.read(room)
                if not data:
                    self._has_ended = True
                    break
                pieces.append(data)
                room -= len(data)
                if not (self._incoming.pending or self._tls.pending()):
                    break
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._has_ended = True
        except ssl.SSLError as error:
            self._failure = error
            if not pieces:
                raise _broken(error) from error
        finally:
            if self._outgoing.pending:
                self._say_own_words()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _say_own_words(self) -> None:
        """Send what TLS has to say, as far as that goes at once."""
        if self._is_sending:
            return  # the sender takes it along
        self._unsent += self._outgoing.read()
        try:
            rest = self._channel.try_send((self._unsent,))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the next to send is told
        if rest is not None:
            self._unsent = b"".join(rest)

    async def send_buffers(
        self, buffers: Sequence[Buffer], *, stall_timeout_s: float | None = None
    ) -> None:
        """See `Channel.send_buffers`. After one that was cancelled or failed, only reading goes on.

        Raises:
            trio.BrokenResourceError: this, or the send before.
        """
        if self._is_sending:
            raise trio.BrokenResourceError("the send before was cut off")
        if sum(map(len, buffers)) <= _JOIN_BYTES:
            buffers = (b"".join(buffers),)
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                rest = rest[self._encrypt(rest[:_PIECE_BYTES]) :]
                if self._outgoing.pending >= _PIECE_BYTES:
                    await self._flush(stall_timeout_s)
        await self._flush(stall_timeout_s)

    def _encrypt(self, data: memoryview) -> int:
        try:
            return self._tls.write(data)
        except ssl.SSLError as error:  # the peer is gone, or wants to shake hands again
            raise _broken(error) from error

    async def _flush(self, stall_timeout_s: float | None) -> None:
        self._is_sending = True
        while data := self._unsent + self._outgoing.read():
            self._unsent = b""
            await self._channel.send_buffers((data,), stall_timeout_s=stall_timeout_s)
        self._is_sending = False

    def try_send(self, buffers: Sequence[Buffer]) -> None:  # noqa: ARG002 - encrypted it cannot be taken back
        """See `Channel.try_send`."""
        return

    def is_readable(self) -> bool:
        """See `Channel.is_readable`."""
        return bool(self._incoming.pending or self._tls.pending()) or self._channel.is_readable()

    async def wait_hangup(self) -> None:
        """See `Channel.wait_hangup`."""
        await self._channel.wait_hangup()

    async def send_eof(self) -> None:
        """See `Channel.send_eof`: not known here; HTTP does without."""

    async def aclose(self) -> None:
        """See `Channel.aclose`. Without TLS's goodbye, as HTTP allows (RFC 9112, 9.8)."""
        await self._channel.aclose()

    def abort(self) -> None:
        """See `Channel.abort`."""
        self._channel.abort()


def _broken(error: "ssl.SSLError") -> trio.BrokenResourceError:
    return trio.BrokenResourceError(str(error))
