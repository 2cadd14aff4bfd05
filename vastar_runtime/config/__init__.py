"""The runtime's configuration: one frozen, validated value from file, environment and flags."""

from vastar_runtime.config._addresses import (
    DEFAULT_SOCKET_PATH,
    Address,
    TcpAddress,
    UnixAddress,
    parse_tcp_address,
)
from vastar_runtime.config._load import LoadedConfig, Setting, load_config
from vastar_runtime.config._model import (
    HttpConfig,
    LogConfig,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    ServerConfig,
    TlsConfig,
)
from vastar_runtime.config._problems import ConfigError, Problem
from vastar_runtime.config._render import render

__all__ = [
    "DEFAULT_SOCKET_PATH",
    "Address",
    "ConfigError",
    "HttpConfig",
    "LoadedConfig",
    "LogConfig",
    "PoolConfig",
    "Problem",
    "ProxyConfig",
    "RuntimeConfig",
    "ServerConfig",
    "Setting",
    "TcpAddress",
    "TlsConfig",
    "UnixAddress",
    "load_config",
    "parse_tcp_address",
    "render",
]
