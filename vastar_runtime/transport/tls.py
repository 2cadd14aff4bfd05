"""TLS towards upstreams: one context per trust configuration, and the handshake.

Making a context parses the host's whole list of authorities (21 ms measured), so it is made on
first use and kept for good: there are no more than the configuration has TLS tables.
"""

import ssl
from pathlib import Path

from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.settings import TlsSettings
from vastar_runtime.transport.tls_channel import TlsChannel

__all__ = ["TlsContexts", "start_tls"]


_VERSIONS = {"1.2": "TLSv1_2", "1.3": "TLSv1_3"}
"""Names of `ssl.TLSVersion`, which is loaded with the first context."""


class TlsContexts:
    """The contexts made so far, by their settings."""

    def __init__(self) -> None:
        self._made: dict[TlsSettings, ssl.SSLContext] = {}

    def get(self, settings: TlsSettings) -> "ssl.SSLContext":
        """The context for these settings; blocks some 20 ms the first time.

        Raises:
            OSError: a file cannot be read, or is not what it should be (`ssl.SSLError` is one).
        """
        context = self._made.get(settings)
        if context is None:
            context = self._made[settings] = _make(settings)
        return context


def _make(settings: TlsSettings) -> "ssl.SSLContext":
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.ca_file is not None and settings.system_trust:
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion[_VERSIONS[settings.min_version]]
    context.set_alpn_protocols(["http/1.1"])
    if settings.certificate_file is not None:
        context.load_cert_chain(
            settings.certificate_file, settings.key_file, password=_password(settings)
        )
    return context


def _password(settings: TlsSettings) -> bytes:
    """The password of the key; never `None`, or OpenSSL would ask for it on the terminal."""
    if settings.key_password_file is None:
        return b""
    return Path(settings.key_password_file).read_bytes().partition(b"\n")[0].rstrip(b"\r")


async def start_tls(channel: Channel, context: "ssl.SSLContext", host: str) -> Channel:
    """Shake hands over `channel` and return the channel inside. A failure leaves closing to you.

    Args:
        channel: connected; the returned channel owns it.
        context: of `TlsContexts`.
        host: the name that the certificate must be for, also sent as SNI.

    Raises:
        trio.BrokenResourceError: the handshake failed; the cause tells why.
    """
    # The trailing dot of an absolute name is no part of it for SNI and certificates (RFC 6066, 3).
    secure = TlsChannel(channel, context, host.rstrip("."))
    await secure.handshake()
    return secure
