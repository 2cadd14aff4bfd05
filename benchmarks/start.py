"""Start to ready: from the start of the process to the line that says it serves.

Peers: the bare interpreter, below which no daemon in Python can come, and one that imports Trio and
nothing else; both until their end. All take turns in every round.

Load shape: one process at a time, files in the page cache after a round that is not counted,
bytecode compiled as pip does. The clock runs from before the process is made until its line has
been read: what `vastar start`, systemd and a restarting supervisor wait for.

Read it so: "CPU ms" is what the runtime had run until then, which noise moves least.

Cheating would be: a socket that takes callers before anybody can answer them; the best round; an
interpreter with flags that users do not give.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks._processes import ROOT, compile_bytecode, running_runtime
from benchmarks._report import Claim, Options, Report, median, watch_others

__all__ = ["OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = "ms from the start of the process until it serves, beside the bare interpreter"
OPTIONS: Final = Options(rounds=11)
WANTED_READY_MS: Final = 350.0
_PEERS: Final = {"bare interpreter": "pass", "imports Trio alone": "import trio"}


def run(options: Options) -> Report:
    """Start all in turn, round after round."""
    report = Report("start", [])
    compile_bytecode()
    peers: dict[str, list[float]] = {name: [] for name in _PEERS}
    ready_ms, cpu_ms = [], []
    with watch_others(report):
        _runtime_ms()
        for _ in range(options.rounds):
            for name, code in _PEERS.items():
                peers[name].append(_python_ms(code))
            taken_ms, spent_ms = _runtime_ms()
            ready_ms.append(taken_ms)
            cpu_ms.append(spent_ms)
    report.rows.append(
        {"who": "runtime", "ready after ms": median(ready_ms), "CPU ms": median(cpu_ms)}
    )
    for name, taken in peers.items():
        report.rows.append({"who": name, "ready after ms": median(taken), "CPU ms": ""})
    report.claims = [Claim("ms to ready", median(ready_ms), WANTED_READY_MS, at_most=True)]
    return report


def _runtime_ms() -> tuple[float, float]:
    """How long a runtime took until it was ready, and how much of that it ran."""
    began_s = time.perf_counter()
    with running_runtime() as runtime:
        taken_s = time.perf_counter() - began_s
        return taken_s * 1e3, _ran_s(runtime.pid) * 1e3


def _python_ms(code: str) -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return (time.perf_counter() - began_s) * 1e3


def _ran_s(pid: int) -> float:
    """CPU time of all threads of a process, finer than the ticks of `stat` (schedstats)."""
    return sum(
        int(path.read_text(encoding="ascii").split()[0]) / 1e9
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )
