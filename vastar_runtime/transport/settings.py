"""What the transport can be told. Numbers and their sources are those of the policy table.

Frozen `msgspec` structs: the configuration room decodes them straight from its file, with the path
of a bad value in the error, and a `TlsSettings` is hashable, so that it can be part of a pool key.
"""

import math
from typing import Literal

import msgspec

__all__ = ["ProxySettings", "RouteSettings", "TlsSettings", "TransportSettings"]


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to trust and who to be. Verification is always on.

    Attributes:
        ca_file: PEM file of the authorities to trust, instead of the system's.
        system_trust: trust the system's authorities beside `ca_file`. Without a `ca_file` they
            are always trusted; SSL_CERT_FILE and SSL_CERT_DIR say where they are (OpenSSL).
        certificate_file, key_file: PEM files of the client certificate; the key may be in the same.
        key_password_file: file whose first line opens the key.
        min_version: oldest TLS version that is spoken.
    """

    ca_file: str | None = None
    system_trust: bool = False
    certificate_file: str | None = None
    key_file: str | None = None
    key_password_file: str | None = None
    min_version: Literal["1.2", "1.3"] = "1.2"

    def __post_init__(self) -> None:
        if self.certificate_file is None and (self.key_file or self.key_password_file):
            raise ValueError("key_file and key_password_file need a certificate_file beside them")


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proxies by the scheme of the request: `http`, `https`, `socks5` or `socks5h` URLs.

    Attributes:
        http, https: the proxy for origins of that scheme; an empty text means none.
        all: for schemes without one of their own.
        no_proxy: hosts that are reached directly, as in NO_PROXY.
        environment: where a value above is absent, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY.
    """

    http: str | None = None
    https: str | None = None
    all: str | None = None
    no_proxy: tuple[str, ...] | None = None
    environment: bool = True

    def __repr__(self) -> str:  # the URLs may hold passwords
        return f"ProxySettings(environment={self.environment}, ...)"

    def __rich_repr__(self) -> list[tuple[str, bool]]:
        """The same, for `rich`."""
        return [("environment", self.environment)]


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """How one call reaches its origin, where that differs from the transport's own settings."""

    tls: TlsSettings = TlsSettings()
    proxy: ProxySettings = ProxySettings()


class TransportSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and times of the transport.

    Attributes:
        connect_timeout_s: for name lookup, connect, proxy and TLS together.
        happy_eyeballs_delay_s: head start of each address over the next (RFC 8305, section 5).
        connections_per_key: open connections to one origin for one tenant and workspace.
        connections_per_tenant: open connections of one tenant, to all origins together.
        connections_total: open connections in all.
        idle_timeout_s: an unused connection is closed after it.
        max_age_s: a connection this old takes no further request.
        head_limit_bytes: longest response head, and longest trailers.
        lookup_threads, lookup_threads_per_tenant: name lookups running at once.
    """

    connect_timeout_s: float = 5.0
    happy_eyeballs_delay_s: float = 0.25
    connections_per_key: int = 256
    connections_per_tenant: int = 750
    connections_total: int = 1000
    idle_timeout_s: float = 30.0
    max_age_s: float = 600.0
    head_limit_bytes: int = 65536
    lookup_threads: int = 32
    lookup_threads_per_tenant: int = 8
    tls: TlsSettings = TlsSettings()
    proxy: ProxySettings = ProxySettings()

    def __post_init__(self) -> None:
        for name in (
            "connect_timeout_s",
            "happy_eyeballs_delay_s",
            "connections_per_key",
            "connections_per_tenant",
            "connections_total",
            "idle_timeout_s",
            "max_age_s",
            "head_limit_bytes",
            "lookup_threads",
            "lookup_threads_per_tenant",
        ):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}: it must be a number above 0")
