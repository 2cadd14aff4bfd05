"""Opening the byte stream to a runtime, with errors that say what to run."""

import errno
import socket
import sys
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from vastar_client.config import RuntimeConfig, TcpAddress, UnixAddress
from vastar_client.errors import RuntimeUnavailable
from vastar_client.wire import (
    NEED_DATA,
    Authenticate,
    Connection,
    Disposition,
    HealthResponse,
    Role,
)

__all__ = ["dial", "unavailable"]

_MS_PER_S: Final = 1000
_REFUSED: Final = "not allowed"


async def dial(config: RuntimeConfig) -> ByteStream:
    """A connected stream to the runtime that `config` and the environment name now.

    Raises:
        RuntimeUnavailable: nothing answers there, or not within `connect_timeout_ms`, or it does
            not take the token.
        ValueError: VASTAR_TCP_PORT is no port, or the token file holds no token.
    """
    address = config.address()
    try:
        with anyio.fail_after(config.connect_timeout_ms / _MS_PER_S):
            stream = await _connect(address, config)
            try:
                await _authenticate(stream, config, address)
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
            return stream
    except TimeoutError:
        raise unavailable(address, f"no answer within {config.connect_timeout_ms} ms") from None
    except OSError as error:
        raise unavailable(address, _reason(error)) from error


async def _connect(address: UnixAddress | TcpAddress, config: RuntimeConfig) -> ByteStream:
    if isinstance(address, UnixAddress):
        return _direct(await anyio.connect_unix(address.path))
    context = config.current_tls()
    if context is None:
        return _direct(await anyio.connect_tcp(address.host, address.port))
    return await anyio.connect_tcp(
        address.host,
        address.port,
        ssl_context=context,
        tls_hostname=address.host,
        tls_standard_compatible=False,
    )


async def _authenticate(
    stream: ByteStream, config: RuntimeConfig, address: UnixAddress | TcpAddress
) -> None:
    """Show the token, where there is one, and read what the runtime says to it."""
    token = config.current_token()
    if token is None:
        return
    wire = Connection(Role.CLIENT)
    await stream.send(b"".join(wire.send(Authenticate(token=token))))
    while (answer := wire.next_event()) is NEED_DATA:
        try:
            wire.receive_data(await stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            raise unavailable(address, "it ended the connection when shown the token") from None
    if not isinstance(answer, HealthResponse):
        raise unavailable(address, "it knows no tokens")
    message = answer.message or ""
    if message.startswith(_REFUSED):
        raise RuntimeUnavailable(
            f"the Vastar runtime at {address} does not take the token: {message}",
            disposition=Disposition.NOT_SENT,
        )


def _direct(stream: ByteStream) -> ByteStream:
    """`stream`, or a quicker way to its socket where it runs on Trio."""
    trio = sys.modules.get("trio")
    raw = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # not Django's
    if trio is None or not trio.lowlevel.in_trio_task() or not isinstance(raw, socket.socket):
        return stream
    from vastar_client._trio_stream import TrioStream  # noqa: PLC0415  # it brings Trio

    return TrioStream(stream, raw)


def unavailable(address: UnixAddress | TcpAddress | str, reason: str) -> RuntimeUnavailable:
    """The error for a runtime that cannot be reached at `address`."""
    return RuntimeUnavailable(
        f"no Vastar runtime at {address}: {reason}. "
        f"Start one with `python -m vastar_runtime start{_flag(address)}`",
        disposition=Disposition.NOT_SENT,
    )


def _flag(address: UnixAddress | TcpAddress | str) -> str:
    """What makes `start` listen at `address`; the default socket needs nothing."""
    if isinstance(address, UnixAddress) and address != UnixAddress(RuntimeConfig.socket_path):
        return f" --socket {address.path}"
    if isinstance(address, TcpAddress):
        return f" --tcp {address.host}:{address.port}"
    return ""


def _reason(error: OSError) -> str:
    cause: BaseException = error
    while not isinstance(cause, OSError) or cause.errno is None:
        if cause.__cause__ is None:
            return str(error) or type(error).__name__
        cause = cause.__cause__
    match cause.errno:
        case errno.ENOENT:
            return "there is no such socket"
        case errno.ECONNREFUSED:
            return "nothing listens there"
        case errno.EACCES:
            return "permission denied (it belongs to another user)"
    return cause.strerror or str(cause)
