"""Starting, pinning and stopping the processes of a benchmark; `tools.processes` watches them.

Cores: by default the scheduler places all processes. `--pin` gives the measured process the first
core and load and upstream the second. On a machine that is busy with other work pinning made the
figures worse and less steady (measured: requests/s spread by 0.42-0.45 of the mean instead of
0.29-0.32), as nothing can step aside; on a quiet one it shows what one core can do.
"""

import compileall
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec

from tools.processes import (
    cpu_s,
    family,
    family_cpu_s,
    peak_bytes,
    reset_peak,
    resident_bytes,
    waited_s,
)

__all__ = [
    "Cores",
    "Runtime",
    "Upstream",
    "compile_bytecode",
    "cores",
    "cpu_s",
    "family",
    "family_cpu_s",
    "peak_bytes",
    "reset_peak",
    "resident_bytes",
    "run_json",
    "running_runtime",
    "running_upstream",
    "waited_s",
    "watched_upstream",
]

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

_Result = TypeVar("_Result")


@attrs.frozen
class Cores:
    """Who runs where; `None` is wherever the scheduler likes.

    Attributes:
        measured: core of the runtime, or of the client that is its peer.
        other: core of load and upstream.
    """

    measured: int | None = None
    other: int | None = None


def cores(*, pin: bool) -> Cores:
    """Two cores of this machine where they are to be pinned, and there are two."""
    if not pin or not hasattr(os, "sched_getaffinity"):
        return Cores()
    mine = sorted(os.sched_getaffinity(0))
    return Cores(mine[0], mine[1]) if len(mine) > 1 else Cores()


@attrs.frozen
class Runtime:
    """A running runtime."""

    pid: int
    socket_path: str


@attrs.frozen
class Upstream:
    """A running upstream; `url` has no path."""

    pid: int
    url: str


def _environment() -> dict[str, str]:
    """Without what would send the traffic elsewhere: proxies, and settings of a runtime."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VASTAR_") and not name.upper().endswith("_PROXY")
    }


def compile_bytecode() -> None:
    """Compile our packages as pip does when it installs them, and nothing else of ours does."""
    for package in ("vastar_client", "vastar_runtime"):
        compileall.compile_dir(ROOT / package, quiet=1)


def _start(
    module: str, *arguments: str, core: int | None, log: int | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    if core is not None:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process.pid, {core})
    return process


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process, politely first, and wait for it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    """What the process says when it is ready.

    Raises:
        RuntimeError: it ended, or kept silent.
    """
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ready = selector.select(START_TIMEOUT_S)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise RuntimeError(f"{process.args!r} did not become ready; its words are above")
    return line.strip()


@contextmanager
def running_upstream(
    *arguments: str, module: str = "benchmarks._upstream", core: int | None = None
) -> Iterator[str]:
    """An upstream, by default `benchmarks._upstream`; its URL, without a path."""
    with watched_upstream(*arguments, module=module, core=core) as upstream:
        yield upstream.url


@contextmanager
def watched_upstream(
    *arguments: str, module: str = "benchmarks._upstream", core: int | None = None
) -> Iterator[Upstream]:
    """The same, told with its pid."""
    process = _start(module, *arguments, core=core)
    try:
        yield Upstream(process.pid, _first_line(process))
    finally:
        _stop(process)


@contextmanager
def running_runtime(
    *arguments: str, module: str = "vastar_runtime", core: int | None = None
) -> Iterator[Runtime]:
    """`serve` with its defaults on a private socket, logging to a private file.

    Args:
        arguments: more of its flags.
        module: what to run as it.
        core: where.
    """
    with tempfile.TemporaryDirectory(prefix="vastar-bench-") as folder:
        socket_path = str(Path(folder, "s"))
        log_path = Path(folder, "log")
        flags = ("serve", "--socket", socket_path, "--log-format", "json", *arguments)
        with log_path.open("wb") as log:
            process = _start(module, *flags, core=core, log=log.fileno())
        try:
            _first_line(process)
            yield Runtime(process.pid, socket_path)
        except BaseException:
            sys.stderr.write("".join(log_path.read_text().splitlines(keepends=True)[-5:]))
            raise
        finally:
            _stop(process)


def run_json(
    module: str, spec: msgspec.Struct, result_type: type[_Result], *, core: int | None
) -> _Result:
    """Run `python -m module SPEC`; what it prints, as a value.

    Raises:
        RuntimeError: it failed; its words went to standard error.
    """
    process = _start(module, msgspec.json.encode(spec).decode(), core=core)
    try:
        output, _ = process.communicate()
    except BaseException:
        _stop(process)
        raise
    if process.returncode:
        raise RuntimeError(f"{module} failed with {process.returncode}; its words are above")
    return msgspec.json.decode(output, type=result_type)
