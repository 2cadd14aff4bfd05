"""The runtime's configuration: one frozen, validated value from file, environment and flags."""

from vastar_runtime.config._addresses import (
    DEFAULT_SOCKET_PATH,
    Address,
    TcpAddress,
    UnixAddress,
    parse_tcp_address,
)
from vastar_runtime.config._changes import Changes, compare, taken_up
from vastar_runtime.config._credentials import CredentialConfig, OAuth2Config, texts_of
from vastar_runtime.config._databases import (
    DatabaseAddress,
    DatabaseConfig,
    PluginsConfig,
    canonical_server,
    database_address,
)
from vastar_runtime.config._file import Setting
from vastar_runtime.config._identity import IDENTITY_KEYS, AuditConfig, TcpConfig
from vastar_runtime.config._load import LoadedConfig, load_config
from vastar_runtime.config._merge import all_credentials, all_databases, merge, written_for
from vastar_runtime.config._model import (
    HttpConfig,
    LogConfig,
    MetricsConfig,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    ServerConfig,
    TlsConfig,
)
from vastar_runtime.config._names import BadName, canonical_origin
from vastar_runtime.config._policies import (
    BreakerConfig,
    BulkheadConfig,
    ByteLimitConfig,
    EgressConfig,
    HeaderLearningConfig,
    PoliciesConfig,
    PolicyTables,
    QueueConfig,
    RateLimitConfig,
    RetryConfig,
    RetryQuotaConfig,
    TenantConfig,
    TokenLimitConfig,
)
from vastar_runtime.config._problems import ConfigError, Problem
from vastar_runtime.config._references import Part, Reference, split_references
from vastar_runtime.config._render import render, render_for
from vastar_runtime.config._toml import dotted

__all__ = [
    "DEFAULT_SOCKET_PATH",
    "IDENTITY_KEYS",
    "Address",
    "AuditConfig",
    "BadName",
    "BreakerConfig",
    "BulkheadConfig",
    "ByteLimitConfig",
    "Changes",
    "ConfigError",
    "CredentialConfig",
    "DatabaseAddress",
    "DatabaseConfig",
    "EgressConfig",
    "HeaderLearningConfig",
    "HttpConfig",
    "LoadedConfig",
    "LogConfig",
    "MetricsConfig",
    "OAuth2Config",
    "Part",
    "PluginsConfig",
    "PoliciesConfig",
    "PolicyTables",
    "PoolConfig",
    "Problem",
    "ProxyConfig",
    "QueueConfig",
    "RateLimitConfig",
    "Reference",
    "RetryConfig",
    "RetryQuotaConfig",
    "RuntimeConfig",
    "ServerConfig",
    "Setting",
    "TcpAddress",
    "TcpConfig",
    "TenantConfig",
    "TlsConfig",
    "TokenLimitConfig",
    "UnixAddress",
    "all_credentials",
    "all_databases",
    "canonical_origin",
    "canonical_server",
    "compare",
    "database_address",
    "dotted",
    "load_config",
    "merge",
    "parse_tcp_address",
    "render",
    "render_for",
    "split_references",
    "taken_up",
    "texts_of",
    "written_for",
]
