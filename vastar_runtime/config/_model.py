"""The shape, ranges and defaults of the configuration.

Frozen `msgspec.Struct`s: the loader reads keys, types and ranges from them, `check-config` prints
their descriptions, so a key is said once, here. A new table is a new Struct and a field of
`RuntimeConfig`. The policies are in `_policies`. Sources of the numbers: PROTOCOL.md (wire).
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from vastar_client.wire import limits
from vastar_runtime.config._addresses import (
    DEFAULT_SOCKET_PATH,
    DEFAULT_TCP_HOST,
    MAX_PORT,
    Address,
    TcpAddress,
    UnixAddress,
    parse_tcp_address,
)
from vastar_runtime.config._databases import PluginsConfig
from vastar_runtime.config._identity import AuditConfig, TcpConfig
from vastar_runtime.config._policies import PoliciesConfig, PolicyTables, TenantConfig

__all__ = [
    "HttpConfig",
    "LogConfig",
    "MetricsConfig",
    "PoolConfig",
    "ProxyConfig",
    "RuntimeConfig",
    "ServerConfig",
    "TlsConfig",
]

_HOUR_S = 3600
_MIB = 1024 * 1024
_TIB = 1024 * 1024 * _MIB
_MAX_BYTES = limits.MAX_FLATBUFFER_BYTES

_Text: TypeAlias = Annotated[str, Meta(min_length=1)]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how callers are served."""

    socket_path: Annotated[
        _Text, Meta(description="Unix socket to listen on", extra={"path": True})
    ] = DEFAULT_SOCKET_PATH
    socket_mode: Annotated[
        int,
        Meta(
            ge=0o600,
            le=0o666,
            description="file mode of the socket, such as 0o600 or 0o660",
            extra={"mode": True},
        ),
    ] = 0o600
    socket_group: Annotated[
        _Text | None, Meta(description="group that the socket file is given to (name or number)")
    ] = None
    use_tcp: Annotated[
        bool, Meta(description="listen on tcp_host:tcp_port instead of the Unix socket")
    ] = False
    tcp_host: Annotated[_Text, Meta(description="loopback host for use_tcp")] = DEFAULT_TCP_HOST
    tcp_port: Annotated[int, Meta(ge=0, le=MAX_PORT, description="port for use_tcp")] = 5000
    tcp_also: Annotated[
        tuple[_Text, ...], Meta(description="[HOST:]PORT to listen on beside the rest")
    ] = ()
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | Literal["auto"],
        Meta(description="processes that serve callers side by side; auto: one for each core"),
    ] = 1
    drain_s: Annotated[
        float, Meta(ge=0, le=_HOUR_S, description="time that calls in flight get at shutdown")
    ] = 30.0
    stream_drain_s: Annotated[
        float, Meta(ge=0, le=_HOUR_S, description="time that streams get at shutdown")
    ] = 600.0
    max_request_frame_bytes: Annotated[
        int, Meta(ge=65_536, le=_MAX_BYTES, description="longest request frame accepted")
    ] = limits.MAX_REQUEST_FRAME_BYTES
    max_in_flight_per_connection: Annotated[
        int, Meta(ge=1, le=65_536, description="requests of one connection under way at once")
    ] = limits.MAX_IN_FLIGHT_REQUESTS
    unfinished_frame_timeout_s: Annotated[
        float, Meta(ge=0.1, le=_HOUR_S, description="silence inside a frame that ends a connection")
    ] = limits.UNFINISHED_FRAME_TIMEOUT_S
    stalled_caller_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=_HOUR_S, description="a caller that reads nothing so long is cut off"),
    ] = 30.0
    max_queued_answer_bytes: Annotated[
        int,
        Meta(
            ge=_MIB,
            le=_MAX_BYTES,
            description="answers of one connection waiting to be read before its calls wait too",
        ),
    ] = 32 * _MIB
    max_connections: Annotated[
        int, Meta(ge=1, le=1_048_576, description="connections of callers, in each worker")
    ] = 16_384
    max_connections_per_user: Annotated[
        int,
        Meta(
            ge=1,
            le=1_048_576,
            description="the same of one user, or of one address over TCP",
        ),
    ] = 4096
    max_held_bytes_per_user: Annotated[
        int,
        Meta(
            ge=_MIB,
            le=_TIB,
            description="requests and answers of one of them in memory, in each worker, beyond "
            "which its new calls are refused",
        ),
    ] = 1024 * _MIB
    idle_connection_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=24 * _HOUR_S,
            description="a connection without calls or bytes so long is closed; 0: never",
        ),
    ] = 0.0

    def addresses(self) -> tuple[Address, ...]:
        """Where to listen, the main address first; what appears twice is listened on once."""
        main: Address = (
            TcpAddress(self.tcp_host, self.tcp_port)
            if self.use_tcp
            else UnixAddress(self.socket_path)
        )
        return tuple(dict.fromkeys([main, *map(parse_tcp_address, self.tcp_also)]))


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged and how; always to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Meta(description="the least level that is written"),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="auto: console on a terminal, else json"),
    ] = "auto"


class PoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Connections to upstreams, kept per tenant, workspace and origin."""

    max_connections_per_key: Annotated[
        int, Meta(ge=1, le=65_536, description="connections per tenant, workspace and origin")
    ] = 256
    max_connections: Annotated[
        int, Meta(ge=1, le=65_536, description="connections in all; idle ones make room")
    ] = 1000
    max_connections_per_tenant: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)] | None,
        Meta(description="connections of one tenant; not set: three quarters of max_connections"),
    ] = None
    idle_timeout_s: Annotated[
        float, Meta(ge=0.001, le=_HOUR_S, description="an idle connection is closed after this")
    ] = 30.0
    max_age_s: Annotated[
        float, Meta(ge=1, le=24 * _HOUR_S, description="a connection this old is not reused")
    ] = 600.0

    def per_tenant(self) -> int:
        """Most connections of one tenant; below those of all, unless said: others find some."""
        return self.max_connections_per_tenant or max(1, self.max_connections * 3 // 4)


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outgoing HTTP calls."""

    default_timeout_s: Annotated[
        float,
        Meta(ge=0.001, le=_HOUR_S, description="total time of a call that names no deadline"),
    ] = 30.0
    stream_timeout_s: Annotated[
        float,
        Meta(
            ge=0.001,
            le=24 * _HOUR_S,
            description="total time of a stream, or of a body in pieces, that names no deadline",
        ),
    ] = 600.0
    stream_header_timeout_s: Annotated[
        float, Meta(ge=0.001, le=_HOUR_S, description="time until the head of a streamed answer")
    ] = 60.0
    stream_idle_timeout_s: Annotated[
        float, Meta(ge=0.001, le=_HOUR_S, description="silence within a streamed answer's body")
    ] = 300.0
    connect_timeout_s: Annotated[
        float, Meta(ge=0.001, le=_HOUR_S, description="time for lookup, connect and TLS")
    ] = 5.0
    max_redirects: Annotated[int, Meta(ge=0, le=100, description="redirects followed")] = 10
    max_header_bytes: Annotated[
        int, Meta(ge=1024, le=16 * _MIB, description="longest response head accepted")
    ] = 65_536
    accept_encoding: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9*;=., -]*\Z",
            description='Accept-Encoding sent where the caller set none, such as "gzip, br"',
        ),
    ] = ""
    dns_threads: Annotated[
        int, Meta(ge=1, le=256, description="name lookups under way at once")
    ] = 16
    pool: PoolConfig = PoolConfig()


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS towards upstreams. Relative paths in a file are relative to that file."""

    ca_file: Annotated[
        _Text | None,
        Meta(description="CA certificates (PEM) in place of the system's", extra={"file": True}),
    ] = None
    client_cert_file: Annotated[
        _Text | None, Meta(description="client certificate chain (PEM)", extra={"file": True})
    ] = None
    client_key_file: Annotated[
        _Text | None,
        Meta(description="its key, when not in the same file", extra={"file": True}),
    ] = None
    client_key_password_file: Annotated[
        _Text | None,
        Meta(description="file that holds the key's password", extra={"file": True}),
    ] = None
    min_version: Annotated[
        Literal["1.2", "1.3"], Meta(description="oldest TLS version that is spoken")
    ] = "1.2"


class ProxyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Proxies towards upstreams; a URL given here outranks the environment's."""

    http: Annotated[_Text | None, Meta(description="proxy URL for http upstreams")] = None
    https: Annotated[_Text | None, Meta(description="proxy URL for https upstreams")] = None
    all: Annotated[_Text | None, Meta(description="proxy URL for both")] = None
    no_proxy: Annotated[
        tuple[_Text, ...], Meta(description="hosts, domains and networks reached directly")
    ] = ()
    use_environment: Annotated[
        bool, Meta(description="obey HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY")
    ] = True

    def __repr__(self) -> str:
        """Without the URLs: they may hold passwords."""
        return f"ProxyConfig(use_environment={self.use_environment}, ...)"

    def __rich_repr__(self) -> list[tuple[str, bool]]:
        """The same, for `rich`."""
        return [("use_environment", self.use_environment)]


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Metrics for a Prometheus server to fetch."""

    listen: Annotated[
        _Text | None,
        Meta(description="[HOST:]PORT, loopback only; not set: off", extra={"form": "[HOST:]PORT"}),
    ] = None

    def address(self) -> TcpAddress | None:
        """Where to listen, or None when that is off."""
        return None if self.listen is None else parse_tcp_address(self.listen)


class RuntimeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured.

    `defaults` holds for all calls; what `tenants`, their workspaces and `origins` (by canonical
    text) say beside it is kept as it was written, and merged by `_merge` for whoever asks.
    """

    server: ServerConfig = ServerConfig()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    tls: TlsConfig = TlsConfig()
    proxy: ProxyConfig = ProxyConfig()
    metrics: MetricsConfig = MetricsConfig()
    tcp: TcpConfig = TcpConfig()
    audit: AuditConfig = AuditConfig()
    plugins: PluginsConfig = PluginsConfig()
    defaults: PoliciesConfig = PoliciesConfig()
    tenants: Annotated[
        dict[str, TenantConfig], Meta(description="policies of a tenant, and of its workspaces")
    ] = {}
    origins: Annotated[
        dict[str, PolicyTables], Meta(description="policies of calls to an origin")
    ] = {}
