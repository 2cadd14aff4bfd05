"""Starting, pinning, watching and stopping the processes of a benchmark (Linux: /proc).

Cores: where there are two or more, the measured process has the first to itself, and load and
upstream share the second. Unpinned, the scheduler moves three busy processes over two cores, and
the same run gives figures that differ by a fifth.
"""

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

__all__ = [
    "MEASURED_CORE",
    "OTHER_CORE",
    "Runtime",
    "cpu_s",
    "peak_bytes",
    "reset_peak",
    "resident_bytes",
    "run_json",
    "running_runtime",
    "running_upstream",
]

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
MEASURED_CORE = _CORES[0] if len(_CORES) > 1 else None
"""Of the runtime, or of the client that is its peer."""
OTHER_CORE = _CORES[1] if len(_CORES) > 1 else None
"""Of load and upstream."""

_Result = TypeVar("_Result")


@attrs.frozen
class Runtime:
    """A running runtime."""

    pid: int
    socket_path: str


def _environment() -> dict[str, str]:
    """Without what would send the traffic elsewhere: proxies, and settings of a runtime."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VASTAR_") and not name.upper().endswith("_PROXY")
    }


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
def running_upstream(*arguments: str) -> Iterator[str]:
    """An upstream (`benchmarks._upstream`) on the core of the load; its URL, without a path."""
    process = _start("benchmarks._upstream", *arguments, core=OTHER_CORE)
    try:
        yield _first_line(process)
    finally:
        _stop(process)


@contextmanager
def running_runtime(*arguments: str) -> Iterator[Runtime]:
    """`serve` with its defaults on a private socket, logging to a private file."""
    with tempfile.TemporaryDirectory(prefix="vastar-bench-") as folder:
        socket_path = str(Path(folder, "s"))
        log_path = Path(folder, "log")
        flags = ("serve", "--socket", socket_path, "--log-format", "json", *arguments)
        with log_path.open("wb") as log:
            process = _start("vastar_runtime", *flags, core=MEASURED_CORE, log=log.fileno())
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


def cpu_s(pid: int) -> float:
    """User and system time that a process has spent so far, in steps of a clock tick (10 ms)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that it held since it started, or since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Forget the peak so far (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {key}")
