"""TLS with callers over TCP: the runtime's certificate, and theirs where they show one."""

import ssl
from typing import Any, Final

import trio

from vastar_runtime.config import TcpConfig
from vastar_runtime.transport import Channel
from vastar_runtime.transport.tls_channel import TlsChannel

__all__ = ["TlsError", "caller_context", "greet"]

_DNS: Final = "DNS"


class TlsError(Exception):
    """A caller and the runtime do not come to terms."""


def caller_context(tcp: TcpConfig) -> "ssl.SSLContext | None":
    """What callers over TCP are met with; None where they are met in the clear.

    Raises:
        OSError: a file cannot be read, or is not what it should be (`ssl.SSLError` is one).
    """
    if tcp.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tcp.cert_file, tcp.key_file, password=b"")  # never ask a terminal
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if tcp.client_ca_file is not None:
        context.load_verify_locations(tcp.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if tcp.require_client_cert else ssl.CERT_OPTIONAL
    return context


async def greet(
    channel: Channel, context: "ssl.SSLContext", timeout_s: float
) -> tuple[Channel, frozenset[str]]:
    """Shake hands with a caller; the channel inside, and the names in the caller's certificate.

    Raises:
        TlsError: it failed or took too long; closing `channel` is left to you.
    """
    secure = TlsChannel(channel, context, None)
    try:
        with trio.fail_after(timeout_s):
            await secure.handshake()
    except trio.TooSlowError:
        raise TlsError(f"no TLS handshake within {timeout_s:g} s") from None
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise TlsError(str(error)) from None
    return secure, _names(secure.peer_certificate())


def _names(certificate: dict[str, Any] | None) -> frozenset[str]:
    """The DNS names of a certificate that was verified, and the common name of its subject."""
    if not certificate:
        return frozenset()
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == _DNS]
    for part in certificate.get("subject", ()):
        names += [value for name, value in part if name == "commonName"]
    return frozenset(name.lower() for name in names)
