"""The runtime with a sampling profiler inside: what `flame` and `stage_budget` run.

    python -m benchmarks._sampled serve ...     (as `python -m vastar_runtime serve ...`)

A timer of the process's own CPU time raises SIGPROF at each tick of the kernel's clock that finds
it at work (100 to 250 a second: as often as such timers can); the handler notes the stack of the
main thread and nothing else. A timer of real time would be finer and wrong: it also fires while the
process waits for a core, which is mostly behind a write that woke somebody, and so makes writes
look dear (measured 16 x 1 deep on a busy machine: 49% instead of 20% for both sockets). While
BENCH_GATE names a file that exists stacks are counted, so that start and warming up are left out;
they are written to BENCH_STACKS at the end, a line for each: frames joined by `;`, a space, how
often (the folded form that tools for flame graphs read).

Python runs the handler between two instructions, so what C code spends is told of the function that
called it. Nothing of this is in the product. Trio's wakeup socket is taken out of the way: it would
get a byte for each sample, and the profile would show the event loop reading them.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

__all__ = ["EVERY_S", "GATE", "STACKS", "Sampler", "label"]

GATE = "BENCH_GATE"
STACKS = "BENCH_STACKS"
EVERY_S = 0.001
_GATE_LOOKED_AT_EVERY = 4
_SITE = "/site-packages/"


def label(code: CodeType) -> str:
    """`package.module:qualified name`, whatever folder the package is in."""
    path = code.co_filename.replace(os.sep, "/")
    if _SITE in path:
        path = path.rpartition(_SITE)[2]
    elif not path.startswith("<"):
        for package in ("vastar_runtime", "vastar_client", "benchmarks"):
            inside = path.rfind(f"/{package}/")
            if inside >= 0:
                path = path[inside + 1 :]
                break
        else:
            path = path.rpartition("/lib/python")[2].partition("/")[2] or path
    return f"{path.removesuffix('.py').replace('/', '.')}:{code.co_qualname}"


class Sampler:
    """Counts stacks while its gate is open."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate
        self._ticks = 0
        self._is_open = False
        self.stacks: Counter[tuple[CodeType, ...]] = Counter()

    def tick(self, _number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        self._ticks += 1
        if not self._ticks % _GATE_LOOKED_AT_EVERY:
            self._is_open = self._gate.exists()
        if self._is_open:
            found = []
            if frame is not None and frame.f_code is _TICK:
                frame = frame.f_back  # a signal within the handler
            while frame is not None:
                found.append(frame.f_code)
                frame = frame.f_back
            self.stacks[tuple(found)] += 1

    def folded(self) -> str:
        """The stacks as text, outermost frame first."""
        lines = [
            f"{';'.join(label(code) for code in reversed(codes))} {count}\n"
            for codes, count in self.stacks.items()
        ]
        return "".join(lines)


_TICK = Sampler.tick.__code__


def _leave_wakeup_alone(_descriptor: int, **_options: bool) -> int:
    return -1


def main() -> int:
    """Run the command line of the runtime under the sampler."""
    from vastar_runtime.cli import main as run  # noqa: PLC0415 - its import is none of ours

    sampler = Sampler(Path(os.environ[GATE]))
    signal.set_wakeup_fd = _leave_wakeup_alone
    signal.signal(signal.SIGPROF, sampler.tick)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        return run()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(os.environ[STACKS]).write_text(sampler.folded(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
