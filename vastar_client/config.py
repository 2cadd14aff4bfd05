"""Where the runtime is and on whose behalf calls are made.

`RuntimeConfig` is a plain dataclass, as in the published SDK: connector authors replace and
print it. Which address counts is decided in one place, `RuntimeConfig.address`, by the published
rule that the environment wins over the fields; it is read when a connection is made, so that a
program may set it after import.
"""

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import ssl

__all__ = ["DEFAULT_SOCKET_PATH", "RuntimeConfig", "TcpAddress", "UnixAddress"]

DEFAULT_SOCKET_PATH: Final = "/tmp/vastar-connector-runtime.sock"  # noqa: S108  # published default
_MAX_PORT: Final = 65_535
_MAX_TIMEOUT_MS: Final = 10**15
"""31,000 years: keeps now plus timeout far inside the wire's u64."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket at `path`."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP listener at `host` and `port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:{self.host}:{self.port}"


@dataclass
class RuntimeConfig:
    """How to reach the runtime, and the defaults of each call.

    The first seven fields are those of the published SDK, in its order.

    Args:
        tenant_id: the tenant of calls that name none.
        workspace_id: the workspace of calls that name none; empty is none.
        timeout_ms: the deadline of calls that set none, from the start of the call; a body that is
            sent in pieces has at least 10 minutes.
        socket_path: the runtime's Unix socket; VASTAR_SOCKET_PATH wins unless it is empty.
        use_tcp: TCP instead of the Unix socket; VASTAR_USE_TCP=true switches it on as well.
        tcp_host: VASTAR_TCP_HOST wins when set.
        tcp_port: VASTAR_TCP_PORT wins when set.
        payload_format: "native" for this runtime; "json" speaks the published protocol only, no
            Cancel frames included, for the published runtime.
        connect_timeout_ms: longest time that one attempt to connect may take.
        use_environment: False ignores the VASTAR_ variables; a test's own runtime wants that.
        token: shown to the runtime on each connection, where it asks who calls. Never printed.
        token_file: its first line is the token, read for each connection; VASTAR_TOKEN_FILE wins
            when set, and either loses to `token`.
        tls_context: for TCP to a runtime that speaks TLS; a client certificate goes in it too.
        tls_ca_file: in its place: TLS that trusts these authorities (PEM) alone;
            VASTAR_TLS_CA_FILE wins when set.

    Raises:
        ValueError: a number is out of range or the payload format is unknown.
    """

    tenant_id: str = "default"
    workspace_id: str = ""
    timeout_ms: int = 60_000
    socket_path: str = DEFAULT_SOCKET_PATH
    use_tcp: bool = False
    tcp_host: str = "127.0.0.1"
    tcp_port: int = 5000
    _: KW_ONLY
    payload_format: Literal["native", "json"] = "native"
    connect_timeout_ms: int = 5000
    use_environment: bool = True
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    tls_context: "ssl.SSLContext | None" = field(default=None, repr=False)
    tls_ca_file: str | None = None

    def __post_init__(self) -> None:
        check_timeout_ms("RuntimeConfig.timeout_ms", self.timeout_ms)
        check_timeout_ms("RuntimeConfig.connect_timeout_ms", self.connect_timeout_ms)
        _check_port("RuntimeConfig.tcp_port", self.tcp_port)
        if self.payload_format not in ("native", "json"):
            raise ValueError(
                f"RuntimeConfig.payload_format is {self.payload_format!r}: "
                "it must be 'native' or 'json'"
            )

    def _environ(self, environ: Mapping[str, str] | None) -> Mapping[str, str]:
        if not self.use_environment:
            return {}
        return os.environ if environ is None else environ

    def current_token(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The token to show now, if any.

        Raises:
            ValueError: its file cannot be read or holds none; the message does not quote it.
        """
        if self.token is not None:
            return self.token
        path = self._environ(environ).get("VASTAR_TOKEN_FILE") or self.token_file
        if path is None:
            return None
        try:
            with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - shown as given
                token = file.readline().strip()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        if not token or not token.isascii():
            raise ValueError(f"{path}: its first line is no token")
        return token

    def current_tls(self, environ: Mapping[str, str] | None = None) -> "ssl.SSLContext | None":
        """What to speak TLS with over TCP; None is in the clear.

        Raises:
            ValueError: the file of authorities cannot be used.
        """
        if self.tls_context is not None:
            return self.tls_context
        path = self._environ(environ).get("VASTAR_TLS_CA_FILE") or self.tls_ca_file
        if path is None:
            return None
        import ssl  # noqa: PLC0415 - 5 ms that most clients never need

        try:
            return ssl.create_default_context(cafile=path)
        except OSError as error:
            raise ValueError(f"{path}: holds no certificates ({error.strerror})") from None

    def address(self, environ: Mapping[str, str] | None = None) -> UnixAddress | TcpAddress:
        """Where to connect now, by the fields and the environment.

        Args:
            environ: the variables to look at, by default those of the process.

        Raises:
            ValueError: VASTAR_TCP_PORT is no port.
        """
        environ = self._environ(environ)
        if self.use_tcp or environ.get("VASTAR_USE_TCP", "").lower() == "true":
            host = environ.get("VASTAR_TCP_HOST") or self.tcp_host
            return TcpAddress(host, self._port(environ))
        return UnixAddress(environ.get("VASTAR_SOCKET_PATH") or os.fspath(self.socket_path))

    def _port(self, environ: Mapping[str, str]) -> int:
        text = environ.get("VASTAR_TCP_PORT")
        if not text:
            return self.tcp_port
        try:
            port = int(text)
        except ValueError:
            raise ValueError(
                f"VASTAR_TCP_PORT is {text!r}: it must be a number from 1 to {_MAX_PORT}"
            ) from None
        _check_port("VASTAR_TCP_PORT", port)
        return port


def check_timeout_ms(name: str, value: object) -> int:
    """`value` if it can be a timeout in milliseconds.

    Raises:
        ValueError: it is no whole number above 0, or absurdly large.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_TIMEOUT_MS:
        raise ValueError(f"{name} is {value!r}: it must be a whole number of milliseconds above 0")
    return value


def check_config(config: object) -> "RuntimeConfig":
    """What a client was given, the defaults for None.

    Raises:
        TypeError: it is something else, such as a path.
    """
    if config is None:
        return RuntimeConfig()
    if not isinstance(config, RuntimeConfig):
        raise TypeError(
            f"config is {type(config).__name__}: it must be a RuntimeConfig, such as "
            "RuntimeConfig(socket_path=...)"
        )
    return config


def _check_port(name: str, port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _MAX_PORT:
        raise ValueError(f"{name} is {port!r}: it must be a number from 1 to {_MAX_PORT}")
