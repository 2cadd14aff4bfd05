"""Which runtime a command is about: options, then the configuration."""

import argparse
import shlex

from vastar_runtime.config import (
    DEFAULT_SOCKET_PATH,
    Address,
    LoadedConfig,
    Setting,
    TcpAddress,
    UnixAddress,
    load_config,
    parse_tcp_address,
)
from vastar_runtime.runtime_files import (
    holder_of,
    is_leaving,
    lock_path_of_port,
    lock_path_of_socket,
)

__all__ = [
    "holder_at",
    "how_to_start",
    "is_leaving_at",
    "load_from_options",
    "lock_path_of",
    "target_of",
]


def load_from_options(options: argparse.Namespace) -> LoadedConfig:
    """The configuration that `serve` would run with, given these options.

    Raises:
        ConfigError: it cannot be used.
    """
    flags: list[Setting] = []
    for name, key in (
        ("socket", "server.socket_path"),
        ("drain_s", "server.drain_s"),
        ("workers", "server.workers"),
        ("log_level", "log.level"),
        ("log_format", "log.format"),
        ("metrics_listen", "metrics.listen"),
    ):
        value = getattr(options, name, None)
        if value is not None:
            flags.append(Setting(key, value, "--" + name.replace("_", "-")))
    if getattr(options, "socket", None) is not None:
        # Who names a socket wants it, whatever VASTAR_USE_TCP says of the usual place.
        flags.append(Setting("server.use_tcp", value=False, source="--socket"))
    if getattr(options, "tcp", None):
        flags.append(Setting("server.tcp_also", tuple(options.tcp), "--tcp"))
    if getattr(options, "tcp_allow_remote", False):
        flags.append(Setting("tcp.allow_remote", value=True, source="--tcp-allow-remote"))
    return load_config(file=options.config, flags=flags)


def target_of(options: argparse.Namespace) -> Address:
    """Where to ask: the address in the options, else the first of the configuration.

    With an address given, no configuration is read: a broken file must not keep anybody from
    stopping a runtime.

    Raises:
        ConfigError: there is no address in the options, and the configuration cannot be used.
        ValueError: `--tcp` is no address.
    """
    if options.socket is not None:
        return UnixAddress(options.socket)
    if options.tcp:
        return parse_tcp_address(options.tcp[0])
    return load_from_options(options).config.server.addresses()[0]


def how_to_start(address: Address) -> str:
    """What to type for a runtime at `address`, where there is none."""
    match address:
        case UnixAddress(path=path):
            option = "" if path == DEFAULT_SOCKET_PATH else f" --socket {shlex.quote(path)}"
        case TcpAddress():
            option = f" --tcp {str(address).removeprefix('tcp:')}"
    return f"start one with: vastar start{option}"


def lock_path_of(address: Address) -> str:
    """Where the lock of a runtime lives whose main address this is."""
    match address:
        case UnixAddress(path=path):
            return lock_path_of_socket(path)
        case TcpAddress(port=port):
            return lock_path_of_port(port)


def holder_at(address: Address) -> int | None:
    """The pid of our own user's runtime at `address` by its lock, answering or not; None if none.

    Raises:
        RuntimeFileError: the lock cannot be trusted.
    """
    return holder_of(lock_path_of(address))


def is_leaving_at(address: Address) -> bool:
    """Whether that runtime takes no more calls and only finishes those it has.

    Raises:
        RuntimeFileError: the lock cannot be trusted.
    """
    return is_leaving(lock_path_of(address))
