"""What of identities needs or excludes something else: TCP beyond loopback, files, socket modes."""

import os
from collections.abc import Iterator
from typing import Final

from vastar_runtime.config._addresses import TcpAddress, is_loopback, parse_tcp_address
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._policies import TENANTS
from vastar_runtime.config._toml import dotted
from vastar_runtime.token_file import TokenFile, TokenFileError

__all__ = ["check_identity", "exposure"]

_NOT_ONLY_OWNER: Final = 0o066
_ROOT_UID: Final = 0
_REMOTE: Final = "tcp.allow_remote"
_STAY_LOCAL: Final = (
    "listen on 127.0.0.1, ::1 or localhost, or on the Unix socket; or set "
    f"{_REMOTE} (--tcp-allow-remote), which needs TLS and tokens"
)

_Fault = tuple[str, str, str]


def check_identity(config: RuntimeConfig) -> Iterator[_Fault]:
    """Key, what is wrong and what would be right."""
    yield from _check_remote(config)
    yield from _check_certificates(config)
    yield from _check_tokens(config)
    yield from _check_users(config)


def _check_remote(config: RuntimeConfig) -> Iterator[_Fault]:
    server, tcp = config.server, config.tcp
    asked = [("server.tcp_host", server.tcp_host)] if server.use_tcp else []
    for text in server.tcp_also:
        try:
            asked.append(("server.tcp_also", parse_tcp_address(text).host))
        except ValueError as error:
            wrong, _, right = str(error).partition("; ")
            yield "server.tcp_also", wrong, right
    for key, host in asked:
        if not is_loopback(host) and not tcp.allow_remote:
            yield (
                key,
                f"{host} may be reached from other machines",
                _STAY_LOCAL,
            )
    if tcp.allow_remote:
        yield from _check_guards(config)


def _check_guards(config: RuntimeConfig) -> Iterator[_Fault]:
    """What keeps strangers out where they can knock."""
    if config.tcp.cert_file is None:
        yield (
            _REMOTE,
            "callers from other machines need TLS, and there is no certificate",
            "set tcp.cert_file, and tcp.key_file where the key is in another file",
        )
    tenants = config.tenants.values()
    if not any(tenant.token_file or tenant.allow_subjects for tenant in tenants):
        yield (
            _REMOTE,
            "callers from other machines need tokens, and no tenant has any",
            "set token_file (or allow_subjects, for client certificates) of a tenant",
        )


def exposure(running: RuntimeConfig) -> Iterator[_Fault]:
    """What a reload would leave open to strangers: sockets stay, their guards may change.

    Args:
        running: what would run after it; each part of it was valid in its own configuration.
    """
    addresses = running.server.addresses()
    hosts = [address.host for address in addresses if isinstance(address, TcpAddress)]
    remote = next((host for host in hosts if not is_loopback(host)), None)
    if remote is not None:
        for key, wrong, right in _check_guards(running):
            yield key, f"the daemon listens on {remote} until it is restarted: {wrong}", right


def _check_certificates(config: RuntimeConfig) -> Iterator[_Fault]:
    tcp = config.tcp
    if tcp.key_file is not None and tcp.cert_file is None:
        yield "tcp.key_file", "it is of no use without cert_file", "set tcp.cert_file too"
    if tcp.client_ca_file is not None and tcp.cert_file is None:
        yield "tcp.client_ca_file", "it is of no use without cert_file", "set tcp.cert_file too"
    if tcp.client_ca_file is not None:
        return
    if tcp.require_client_cert:
        yield (
            "tcp.require_client_cert",
            "no certificate of a caller can be checked",
            "set tcp.client_ca_file",
        )
    for name, tenant in config.tenants.items():
        if tenant.allow_subjects:
            yield (
                dotted((TENANTS, name, "allow_subjects")),
                "no certificate of a caller can be checked",
                "set tcp.client_ca_file",
            )


def _check_tokens(config: RuntimeConfig) -> Iterator[_Fault]:
    for name, tenant in config.tenants.items():
        if tenant.token_file is None:
            continue
        try:
            TokenFile(tenant.token_file).refresh()
        except TokenFileError as error:
            yield (
                dotted((TENANTS, name, "token_file")),
                f'"{tenant.token_file}" {error}',
                "name a file of your own with mode 0600 and a token a line",
            )


def _check_users(config: RuntimeConfig) -> Iterator[_Fault]:
    server = config.server
    if server.use_tcp or server.socket_mode & _NOT_ONLY_OWNER:
        return
    for name, tenant in config.tenants.items():
        others = [uid for uid in tenant.allow_uids if uid not in {os.geteuid(), _ROOT_UID}]
        for key, shut_out in (("allow_uids", others), ("allow_gids", tenant.allow_gids)):
            if shut_out:
                yield (
                    dotted((TENANTS, name, key)),
                    f"server.socket_mode 0o{server.socket_mode:o} shuts {shut_out[0]} out",
                    "set server.socket_mode = 0o660 and server.socket_group, or 0o666",
                )
