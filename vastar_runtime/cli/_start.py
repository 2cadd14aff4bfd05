"""`start`: run `serve` in the background, and come back when it serves or has said why not.

The child is a session of its own with nothing of the terminal. It keeps the working directory, so
that relative paths in options and variables mean the same for it.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from vastar_runtime.cli._dialing import trusting
from vastar_runtime.cli._target import holder_at, load_from_options
from vastar_runtime.cli.control import ControlClient, ControlError, NotRunningError
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import Address, RuntimeConfig, TcpAddress
from vastar_runtime.redaction import redact_text
from vastar_runtime.runtime_files import RuntimeFileError, open_own_file

if TYPE_CHECKING:
    import ssl

__all__ = ["start"]

_PASSED_ON: Final = (
    *("socket", "config", "log_level", "log_format", "drain_s", "workers", "metrics_listen"),
)
_POLL_S: Final = 0.05
_LAST_LINES: Final = 15
_MAX_TAIL_BYTES: Final = 16_384


def start(options: argparse.Namespace) -> ExitCode:
    """Start a runtime; 0 when it answers, 4 when one is there, 5 when it is not ready in time.

    Raises:
        ConfigError: the configuration cannot be used (it is checked before anything is started).
        RuntimeFileError: the log file cannot be used.
        ControlError: something else than a runtime answers at the address.
    """
    config = load_from_options(options).config
    address = config.server.addresses()[0]
    if isinstance(address, TcpAddress) and address.port == 0:
        print("start needs a fixed port: with port 0 nobody could find it", file=sys.stderr)
        return ExitCode.USAGE
    probe = _Probe.of(config, address)
    if (pid := _pid_of_running(probe)) is not None:
        print(f"{address}: already running, pid {pid or 'unknown'}", file=sys.stderr)
        return ExitCode.ALREADY_RUNNING
    log = _open_log(options.log_file)
    try:
        os.set_blocking(log, True)
        said_before_bytes = os.fstat(log).st_size
        child = _spawn(list(_serve_arguments(options)), log)
    finally:
        os.close(log)
    code = _wait_until_ready(child, probe, options.timeout_s)
    if code is ExitCode.OK:
        print(f"started: {address}, pid {child.pid}, log {options.log_file}")
        return code
    if code is ExitCode.TIMED_OUT:
        print(
            f"{address}: pid {child.pid} is not ready yet; see {options.log_file}", file=sys.stderr
        )
        return code
    if code is ExitCode.ALREADY_RUNNING:  # another start was quicker; the log is the winner's
        pid = _pid_of_running(probe)
        print(f"{address}: already running, pid {pid or 'unknown'}", file=sys.stderr)
        return code
    print(f"the runtime ended at once (exit status {child.returncode}); it said:", file=sys.stderr)
    print(_tail(options.log_file, said_before_bytes), file=sys.stderr)
    return code


def _open_log(path: str) -> int:
    """The file that the runtime's output is appended to.

    Raises:
        RuntimeFileError: it cannot be used; another option would help.
    """
    try:
        return open_own_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except RuntimeFileError as error:
        raise RuntimeFileError(
            str(error).removesuffix("; choose another path") + "; choose another with --log-file"
        ) from None


@attrs.frozen
class _Probe:
    """How to ask the runtime that is to be started.

    Attributes:
        address: its main one.
        tls: trusts its own certificate, where it meets callers there with one.
        is_asked: whether it answers us at all: not where callers must have certificates too.
    """

    address: Address
    tls: "ssl.SSLContext | None" = None
    is_asked: bool = True

    @classmethod
    def of(cls, config: RuntimeConfig, address: Address) -> "_Probe":
        """The one for `address` of this configuration.

        Raises:
            ControlError: its certificate cannot be used.
        """
        path = config.tcp.cert_file
        if path is None or not isinstance(address, TcpAddress):
            return cls(address)
        try:
            return cls(address, trusting(path), not config.tcp.require_client_cert)
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror}") from None

    def client(self, timeout_s: float) -> ControlClient:
        """A connection to it. Raises as `ControlClient` does."""
        return ControlClient(self.address, timeout_s, tls=self.tls)


def _pid_of_running(probe: _Probe) -> int | None:
    """The pid of the runtime that answers, 0 when it cannot be told, None if none."""
    if not probe.is_asked:
        return holder_at(probe.address)
    try:
        with probe.client(5.0) as client:
            client.health()
            return client.peer.pid if client.peer else 0
    except NotRunningError:
        return None


def _serve_arguments(options: argparse.Namespace) -> Iterator[str]:
    for name in _PASSED_ON:
        value = getattr(options, name)
        if value is not None:
            yield f"--{name.replace('_', '-')}={value}"
    for address in options.tcp or ():
        yield f"--tcp={address}"
    if options.tcp_allow_remote:
        yield "--tcp-allow-remote"


def _spawn(arguments: list[str], log: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    environment = dict(os.environ)
    # -P below keeps a working directory that anybody may write to out of the import path; a
    # checkout that is not installed is found through the variable instead.
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return subprocess.Popen(  # noqa: S603 - this very program
        [sys.executable, "-P", "-m", "vastar_runtime", "serve", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _wait_until_ready(child: subprocess.Popen[bytes], probe: _Probe, timeout_s: float) -> ExitCode:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if child.poll() is not None:
            known = {ExitCode.USAGE, ExitCode.ALREADY_RUNNING}
            return ExitCode(child.returncode) if child.returncode in known else ExitCode.ERROR
        if _answers(child.pid, probe):
            # It runs on; without this, Python warns of a child that was never waited for.
            child.returncode = 0
            return ExitCode.OK
        time.sleep(_POLL_S)
    return ExitCode.TIMED_OUT


def _answers(pid: int, probe: _Probe) -> bool:
    """Whether the runtime is healthy, and the one that was started.

    One that does not talk to us is known by its lock, and by taking connections.
    """
    if not probe.is_asked:
        return holder_at(probe.address) == pid and _listens(probe.address)
    try:
        with probe.client(1.0) as client:
            ours = client.peer is None or client.peer.pid in {0, pid}
            return client.health().healthy and ours
    except ControlError:
        return False


def _listens(address: Address) -> bool:
    assert isinstance(address, TcpAddress)
    try:
        socket.create_connection((address.host, address.port), 1.0).close()
    except OSError:
        return False
    return True


def _tail(path: str, start_bytes: int) -> str:
    with open(path, "rb") as log:  # noqa: PTH123 - paths are text all through
        size = log.seek(0, os.SEEK_END)
        log.seek(max(start_bytes, size - _MAX_TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    return redact_text("\n".join(lines[-_LAST_LINES:])) or "(nothing)"
