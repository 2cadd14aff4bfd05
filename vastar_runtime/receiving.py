"""From a socket that was accepted to a caller that is served: doors, who it is, TLS.

A plain task per connection. Over a Unix socket the kernel says who calls; over TCP with a
certificate configured a handshake comes first, for which a caller has as long as for a frame.
"""

import socket
from typing import Final

from vastar_runtime.assembly import Runtime
from vastar_runtime.audit import audit
from vastar_runtime.calls import Caller
from vastar_runtime.identity import Guest, TlsError, greet, name_of
from vastar_runtime.listeners import peer_credentials
from vastar_runtime.logs import get_logger
from vastar_runtime.transport import Channel, SocketChannel

__all__ = ["receive"]

_log = get_logger(__name__)
_GONE: Final = "a connection was gone when it was accepted"


async def receive(runtime: Runtime, sock: socket.socket) -> None:
    """Serve who is at the other end of `sock`, which is closed then. Raises only cancellation."""
    with sock:
        try:
            peer = peer_credentials(sock)
            address = None if peer else _address_of(sock)
            channel = SocketChannel(sock)
        except OSError as error:  # the caller is gone again
            _log.debug(_GONE, errno=error.errno)
            return
        who = name_of(None if peer is None else peer.uid, address)
        caller = (
            Caller(address=who)
            if peer is None
            else Caller(0, peer.uid, peer.pid or None, peer.gid, peer.groups)
        )
        guest = runtime.doors.enter(who)
        if guest is None:
            channel.abort()
            return
        try:
            if peer is not None or sock.family == socket.AF_UNIX or runtime.caller_tls is None:
                await runtime.serve(channel, caller=caller, guest=guest)
            else:
                await _serve_over_tls(runtime, channel, who, guest)
        finally:
            runtime.doors.leave(who)
            channel.abort()


async def _serve_over_tls(runtime: Runtime, channel: Channel, who: str, guest: Guest) -> None:
    assert runtime.caller_tls is not None
    timeout_s = runtime.config.server.unfinished_frame_timeout_s
    try:
        secure, subjects = await greet(channel, runtime.caller_tls, timeout_s)
    except TlsError as error:
        audit("tls_refused", who=who, rule="tls:handshake", reason=str(error))
        return
    await runtime.serve(secure, caller=Caller(subjects=subjects, address=who), guest=guest)


def _address_of(sock: socket.socket) -> str | None:
    """Where a TCP caller calls from.

    Raises:
        OSError: it is gone.
    """
    name = sock.getpeername()
    return str(name[0]) if isinstance(name, tuple) else None
