"""A sampled runtime under load: its stacks, for `flame` and `stage_budget`."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks._load import LoadSpec
from benchmarks._processes import Cores, run_json, running_runtime
from benchmarks._report import Sample
from benchmarks._sampled import GATE, STACKS
from benchmarks._stages import parse_folded

__all__ = ["WARM_S", "LoadShape", "Profile", "measure", "profile"]

WARM_S: Final = 1.0


@attrs.frozen
class LoadShape:
    """So many connections with so many calls in flight on each."""

    name: str
    connections: int
    depth: int

    def spec(self, url: str, socket_path: str, pid: int, seconds: float) -> LoadSpec:
        """The load of this shape on a runtime."""
        return LoadSpec(
            socket_path=socket_path,
            url=url,
            connections=self.connections,
            depth=self.depth,
            seconds=seconds,
            warm_s=WARM_S,
            watched_pid=pid,
        )


@attrs.frozen
class Profile:
    """Stacks of the main thread, outermost frame first, and how often each was found at work."""

    stacks: dict[tuple[str, ...], int]
    sample: Sample


def profile(shape: LoadShape, url: str, seconds: float, where: Cores) -> Profile:
    """Run a fresh sampled runtime under the load; only the counted time is in the stacks."""
    with (
        tempfile.TemporaryDirectory(prefix="vastar-profile-") as folder,
        ThreadPoolExecutor() as pool,
    ):
        gate, stacks = Path(folder, "gate"), Path(folder, "stacks")
        with (
            _environment({GATE: str(gate), STACKS: str(stacks)}),
            running_runtime(module="benchmarks._sampled", core=where.measured) as runtime,
        ):
            spec = shape.spec(url, runtime.socket_path, runtime.pid, seconds)
            load = pool.submit(run_json, "benchmarks._load", spec, Sample, core=where.other)
            time.sleep(WARM_S)
            gate.touch()
            sample = load.result()
            gate.unlink()
        return Profile(parse_folded(stacks.read_text(encoding="utf-8")), sample)


def measure(shape: LoadShape, url: str, seconds: float, where: Cores) -> tuple[Sample, float]:
    """The same load on a runtime as users run it; and the share of its main thread in its CPU."""
    with running_runtime(core=where.measured) as runtime:
        spec = shape.spec(url, runtime.socket_path, runtime.pid, seconds)
        sample = run_json("benchmarks._load", spec, Sample, core=where.other)
        return sample, _main_thread_ratio(runtime.pid)


def _main_thread_ratio(pid: int) -> float:
    """Of the CPU time of all threads that live, since the start: start is small and on it too."""
    spent_ns = {
        path.parent.name: int(path.read_text(encoding="ascii").split()[0])
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    }
    total_ns = sum(spent_ns.values())
    return spent_ns[str(pid)] / total_ns if total_ns else 1.0


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
