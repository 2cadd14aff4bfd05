"""Opening the socket of a command to a runtime; over TCP with TLS and a token where these are set.

The variables are those of the client library, VASTAR_TLS_CA_FILE and VASTAR_TOKEN_FILE, so that a
command gets in wherever the programs beside it do.
"""

import os
import socket
from typing import TYPE_CHECKING

from vastar_runtime.config import Address, TcpAddress, UnixAddress

if TYPE_CHECKING:
    import ssl

__all__ = ["dial", "token_to_show", "trusting"]


def token_to_show() -> str | None:
    """The token that the environment names, if any.

    Raises:
        ValueError: its file cannot be read or holds none; the message does not quote it.
    """
    path = os.environ.get("VASTAR_TOKEN_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - shown as given
            token = file.readline().strip()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if not token or not token.isascii():
        raise ValueError(f"{path}: its first line is no token")
    return token


def dial(
    address: Address, timeout_s: float, tls: "ssl.SSLContext | None" = None
) -> tuple[socket.socket, tuple[type[OSError], ...]]:
    """A connected socket that blocks no more, and what it raises instead of blocking.

    Args:
        address: where the runtime listens.
        timeout_s: for connecting, and for shaking hands.
        tls: what to trust over TCP, in place of what the environment names.

    Raises:
        OSError: it cannot be reached, or they do not come to terms.
        ValueError: the file of authorities cannot be used.
    """
    again: tuple[type[OSError], ...] = (BlockingIOError,)
    if isinstance(address, UnixAddress):
        sock = _connect_unix(address.path, timeout_s)
    else:
        context = tls or _environments_tls()
        sock = socket.create_connection((address.host, address.port), timeout_s)
        if context is not None:
            sock, again = _secured(sock, context, address), _again_of_tls()
    sock.setblocking(False)
    return sock, again


def trusting(cert_file: str) -> "ssl.SSLContext":
    """What trusts the certificates of a file and no others, under whatever name they are met.

    For the runtime that was started with this very file.

    Raises:
        OSError: it cannot be used.
    """
    import ssl  # noqa: PLC0415 - 5 ms that most commands never need

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # also where its issuer is not in there
    context.load_verify_locations(cert_file)
    return context


def _environments_tls() -> "ssl.SSLContext | None":
    path = os.environ.get("VASTAR_TLS_CA_FILE")
    if not path:
        return None
    import ssl  # noqa: PLC0415 - as above

    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ValueError(f"{path}: holds no certificates ({error.strerror})") from None


def _connect_unix(path: str, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _secured(
    sock: socket.socket, context: "ssl.SSLContext", address: TcpAddress
) -> "ssl.SSLSocket":
    try:
        return context.wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise


def _again_of_tls() -> tuple[type[OSError], ...]:
    import ssl  # noqa: PLC0415 - as above

    return BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError
