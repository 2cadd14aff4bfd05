"""What only the whole configuration can tell: values that exclude or need each other.

Files are opened here, so that a wrong path is an error at start and not in the first call.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from vastar_runtime.config._addresses import is_loopback, parse_tcp_address
from vastar_runtime.config._check_egress import check_egress
from vastar_runtime.config._check_identity import check_identity
from vastar_runtime.config._check_policies import check_policies
from vastar_runtime.config._credentials import faults_of
from vastar_runtime.config._databases import faults_of_database
from vastar_runtime.config._expect import right_mode, wrong_mode
from vastar_runtime.config._merge import all_credentials, all_databases
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._problems import Problem

__all__ = ["check_whole"]

_TLS_FILES: Final = ("ca_file", "client_cert_file", "client_key_file", "client_key_password_file")
_TCP_FILES: Final = ("cert_file", "key_file", "client_ca_file")
_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_READ_WRITE_OWNER: Final = 0o600
_READ_WRITE_GROUP: Final = 0o060
_READ_WRITE_ALL: Final = 0o666


def check_whole(config: RuntimeConfig, sources: Mapping[str, str]) -> Iterator[Problem]:
    """Everything wrong between keys, each blamed on the source of the key it is about."""
    for key, wrong, right in (
        *_check_metrics(config),
        *check_identity(config),
        *_check_socket(config),
        *_check_files(config, "tls", _TLS_FILES),
        *_check_files(config, "tcp", _TCP_FILES),
        *_check_tls(config),
        *_check_proxies(config),
        *_check_pool(config),
        *check_policies(config),
        *check_egress(config),
        *_check_credentials(config),
        *_check_databases(config),
    ):
        yield Problem(sources.get(key, "configuration"), key, wrong, right)


def _check_metrics(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    listen = config.metrics.listen
    if listen is None:
        return
    try:
        host = parse_tcp_address(listen).host
    except ValueError as error:
        wrong, _, right = str(error).partition("; ")
        yield "metrics.listen", wrong, right
        return
    if not is_loopback(host):
        yield (
            "metrics.listen",
            f"{host} may be reached from other machines, which is not supported",
            "listen on 127.0.0.1, ::1 or localhost",
        )


def _check_socket(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    mode, group = config.server.socket_mode, config.server.socket_group
    if mode & _READ_WRITE_OWNER != _READ_WRITE_OWNER or mode & ~_READ_WRITE_ALL:
        yield (
            "server.socket_mode",
            wrong_mode(mode),
            right_mode(mode),
        )
    elif group is not None and mode & _READ_WRITE_GROUP != _READ_WRITE_GROUP:
        yield (
            "server.socket_group",
            f"socket_mode 0o{mode:o} shuts the group out",
            "set server.socket_mode = 0o660, or remove socket_group",
        )


def _check_files(
    config: RuntimeConfig, table: str, names: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    for name in names:
        path: str | None = getattr(getattr(config, table), name)
        if path is None:
            continue
        try:
            with open(path, "rb"):  # noqa: PTH123  # the name is shown as it was given
                pass
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            yield f"{table}.{name}", f'"{path}" cannot be read ({reason})', "name a readable file"


def _check_tls(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    tls = config.tls
    needs = {
        "client_key_file": ("client_cert_file", tls.client_key_file, tls.client_cert_file),
        "client_key_password_file": (
            "client_cert_file",
            tls.client_key_password_file,
            tls.client_cert_file,
        ),
    }
    for name, (other, value, needed) in needs.items():
        if value is not None and needed is None:
            yield f"tls.{name}", f"it is of no use without {other}", f"set tls.{other} too"


def _check_proxies(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    for name in ("http", "https", "all"):
        url: str | None = getattr(config.proxy, name)
        if url is None:
            continue
        if not _is_proxy_url(url):
            # The value is not quoted: what does not parse cannot be redacted with certainty.
            yield (
                f"proxy.{name}",
                "it is no proxy URL",
                "give SCHEME://HOST:PORT with the scheme http, https, socks5 or socks5h",
            )


def _check_credentials(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    for path, credential in all_credentials(config):
        yield from faults_of(path, credential)


def _check_databases(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    for path, database in all_databases(config):
        yield from faults_of_database(path, database)


def _is_proxy_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_pool(config: RuntimeConfig) -> Iterator[tuple[str, str, str]]:
    pool = config.http.pool
    if pool.max_connections_per_key > pool.max_connections:
        yield (
            "http.pool.max_connections_per_key",
            f"{pool.max_connections_per_key} is more than max_connections, the bound of all",
            "lower it, or raise http.pool.max_connections",
        )
    if (pool.max_connections_per_tenant or 0) > pool.max_connections:
        yield (
            "http.pool.max_connections_per_tenant",
            f"{pool.max_connections_per_tenant} is more than max_connections, the bound of all",
            "lower it, or raise http.pool.max_connections",
        )
