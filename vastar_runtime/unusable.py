"""What of a configuration only its use can show, tried before anything starts or changes.

The configuration's own checks are of values; these look at files, groups, installed packages and
the environment, and change nothing: `check-config` asks for them too.
"""

import os
import stat
from collections.abc import Iterator, Mapping

from vastar_runtime.config import (
    ConfigError,
    Problem,
    RuntimeConfig,
    ServerConfig,
    UnixAddress,
)
from vastar_runtime.credentials import unusable_secrets
from vastar_runtime.further_connectors import unusable_further
from vastar_runtime.identity import caller_context
from vastar_runtime.listeners import group_number
from vastar_runtime.policy_book import PolicyBook
from vastar_runtime.runtime_files import RuntimeFileError, missing_directory, open_own_file
from vastar_runtime.transport import ProxySettings, TlsSettings, TransportSettings
from vastar_runtime.transport.errors import reason
from vastar_runtime.transport.proxy import ProxyTable
from vastar_runtime.transport.tls import TlsContexts

__all__ = ["audit_problem", "refuse_unusable", "transport_settings"]


def refuse_unusable(config: RuntimeConfig, environ: Mapping[str, str]) -> None:
    """Try what only its use can show: files, groups, installed packages, the environment.

    Raises:
        ConfigError: naming what cannot be used, without secrets.
    """
    settings = transport_settings(config)
    problems = [
        *unusable_secrets(config, environ),
        *unusable_further(config, PolicyBook(config)),
        *_unusable_audit(config.audit.path),
        *_unusable_group(config.server),
    ]
    try:
        ProxyTable(settings.proxy, environ)
    except ValueError as error:
        problems.append(
            Problem("proxies", "", str(error), "give http, https, socks5 or socks5h://host:port")
        )
    right = "give PEM files, and the key that belongs to the certificate"
    if settings.tls != TlsSettings():
        try:
            TlsContexts().get(settings.tls)
        except OSError as error:
            files = ", ".join(filter(None, (config.tls.ca_file, config.tls.client_cert_file)))
            problems.append(Problem(files or "[tls]", "tls", reason(error), right))
    try:
        caller_context(config.tcp)
    except OSError as error:
        files = ", ".join(filter(None, (config.tcp.cert_file, config.tcp.client_ca_file)))
        problems.append(Problem(files, "tcp", reason(error), right))
    if problems:
        raise ConfigError(problems)


def audit_problem(error: RuntimeFileError) -> Problem:
    """The file of the audit log cannot be used: what is told of that."""
    return Problem("configuration", "audit.path", str(error), "name a file in a directory of yours")


def _unusable_audit(path: str | None) -> Iterator[Problem]:
    """What is wrong with the file of the audit log, which is not made here."""
    if path is None:
        return
    try:
        _try_own_file(path)
    except RuntimeFileError as error:
        yield audit_problem(error)


def _try_own_file(path: str) -> None:
    """Raises RuntimeFileError where a file at `path` could not be opened or made."""
    try:
        found = os.lstat(path)
        is_anothers = stat.S_ISREG(found.st_mode) and found.st_uid != 0
        if os.geteuid() == 0 and is_anothers:
            return  # an administrator looks at what is for the user of a service
        os.close(open_own_file(path, os.O_WRONLY | os.O_APPEND))
    except FileNotFoundError:
        directory = os.path.dirname(path) or "."  # noqa: PTH120 - paths are text
        if not os.path.isdir(directory):  # noqa: PTH112 - as above
            raise RuntimeFileError(missing_directory(path)) from None
        if not os.access(directory, os.W_OK | os.X_OK):
            raise RuntimeFileError(
                f"{path}: may not be made; its directory belongs to another user"
            ) from None
    except (OSError, ValueError) as error:
        words = (getattr(error, "strerror", None) or str(error)).lower()
        raise RuntimeFileError(f"{path!r}: cannot be opened ({words})") from None


def _unusable_group(server: ServerConfig) -> Iterator[Problem]:
    """A group that the socket is to be given to, and that there is not."""
    if not any(isinstance(address, UnixAddress) for address in server.addresses()):
        return
    try:
        group_number(server.socket_group)
    except RuntimeFileError as error:
        key, _, wrong = str(error).partition(": ")
        yield Problem("configuration", key, wrong, "create it, or name another")


def transport_settings(config: RuntimeConfig) -> TransportSettings:
    """The transport's part of the configuration."""
    pool, tls, proxy = config.http.pool, config.tls, config.proxy
    return TransportSettings(
        connect_timeout_s=config.http.connect_timeout_s,
        connections_per_key=pool.max_connections_per_key,
        connections_per_tenant=pool.per_tenant(),
        connections_total=pool.max_connections,
        idle_timeout_s=pool.idle_timeout_s,
        max_age_s=pool.max_age_s,
        head_limit_bytes=config.http.max_header_bytes,
        lookup_threads=config.http.dns_threads,
        tls=TlsSettings(
            ca_file=tls.ca_file,
            certificate_file=tls.client_cert_file,
            key_file=tls.client_key_file,
            key_password_file=tls.client_key_password_file,
            min_version=tls.min_version,
        ),
        proxy=ProxySettings(
            http=proxy.http,
            https=proxy.https,
            all=proxy.all,
            no_proxy=proxy.no_proxy or None,
            environment=proxy.use_environment,
        ),
    )
