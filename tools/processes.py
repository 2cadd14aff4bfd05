"""What the kernel tells of a process (Linux: /proc): time, memory, files, threads, children.

One place for the benchmarks and the soak: they must not differ in what a resident size is.
"""

import os
from contextlib import suppress
from pathlib import Path

__all__ = [
    "cpu_s",
    "family",
    "family_cpu_s",
    "open_files",
    "peak_bytes",
    "reset_peak",
    "resident_bytes",
    "threads",
    "waited_s",
]


def cpu_s(pid: int) -> float:
    """User and system time that a process has spent so far, in steps of a clock tick (10 ms)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and those below it that live: a supervisor and its workers."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, ())  # the list grows under way, one generation at a time
    return found


def family_cpu_s(pid: int) -> float:
    """`cpu_s` of a process and its family. One that ends meanwhile takes its time along."""
    return sum(cpu_s(each) for each in family(pid))


def waited_s(pid: int) -> float:
    """How long a process (its first thread) could have run so far and had no core (schedstats)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return 0.0  # a kernel that does not tell


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    return _status_number(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The most that it held since it started, or since `reset_peak`."""
    return _status_number(pid, "VmHWM") * 1024


def threads(pid: int) -> int:
    """How many threads it has."""
    return _status_number(pid, "Threads")


def open_files(pid: int) -> int:
    """How many file descriptors it has open, sockets included. Raises OSError."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only counted


def reset_peak(pid: int) -> None:
    """Forget the peak so far (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_number(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    raise RuntimeError(f"/proc/{pid}/status has no {key}")
