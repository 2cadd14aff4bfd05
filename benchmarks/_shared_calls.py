"""The contestants of `shared_policies_cost`, and the turns they take; a process of its own.

    python -m benchmarks._shared_calls TURNS     (as JSON; prints a Taken as JSON)

The sibling is a process that makes calls of its own to the same keys all the while, where a row
says so: then versions change, and what is shared is really looked at.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
import trio

from benchmarks import _pipeline_calls as calls
from vastar_runtime import logs
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.metrics import Meters
from vastar_runtime.pipeline import Machines, Surroundings
from vastar_runtime.pipeline.making import OWN, Maker
from vastar_runtime.policy_book import PolicyBook
from vastar_runtime.sharing import Ground
from vastar_runtime.sharing.sharing import Sharing
from vastar_runtime.transport import HttpTransport

__all__ = ["DEFAULTS", "LIMITS", "OWN_SUFFIX", "Taken", "measure"]

WORKERS: Final = 2
OWN_SUFFIX: Final = ", own machines"
DEFAULTS: Final = "default policies"
LIMITS: Final = "limits at four scopes"
_SIBLING_CALLS: Final = 20


class Taken(msgspec.Struct):
    """What was measured.

    Attributes:
        us: by row, CPU us a call in each round.
    """

    us: dict[str, list[float]]


class Sibling(msgspec.Struct, frozen=True):
    """What the other process is given."""

    memory_fd: int
    bells: tuple[tuple[int, int], ...]


def contestant(maker: Maker, policies: Mapping[str, Any]) -> calls.ConnectorCalls:
    """Calls through the whole pipeline, over machines of `maker`."""
    config = msgspec.convert({"defaults": dict(policies)}, RuntimeConfig)
    around = Surroundings(
        machines=Machines(PolicyBook(config), maker),
        transport=cast("HttpTransport", calls.TRANSPORT),
        meters=Meters(("http",)),
        random_ratio=random.random,
        wall_clock_s=time.time,
    )
    return calls.ConnectorCalls(calls.connector(calls.stack(around)))


async def measure(turns: calls.Turns) -> Taken:
    """CPU us a call, round by round; the round in which everything is new is not counted."""
    found: dict[str, calls.ConnectorCalls] = {}
    us: dict[str, list[float]] = {}
    with _ground() as quiet, _ground() as limited, _ground() as busy:
        for name, policies, grounds in (
            (DEFAULTS, {}, {", shared": quiet, ", shared with a busy sibling": busy}),
            (LIMITS, calls.limits(), {", shared": limited}),
        ):
            found[name + OWN_SUFFIX] = contestant(OWN, policies)
            for suffix, ground in grounds.items():
                sharing = Sharing.join(ground.fd, 0, ground.bells)
                found[name + suffix] = contestant(sharing, policies)
        us = {name: [] for name in found}
        order = list(found)
        chance = random.Random(1)
        with _sibling(busy):
            for nth in range(turns.rounds + 1):
                chance.shuffle(order)
                for name in order:
                    batch_us = await found[name].cpu_us()
                    if nth:
                        us[name].append(batch_us)
    return Taken(us)


@contextmanager
def _ground() -> Iterator[Ground]:
    ground = Ground(WORKERS)
    yield ground  # not closed: machines hold views of it until the process ends


@contextmanager
def _sibling(ground: Ground) -> Iterator[None]:
    told = msgspec.json.encode(Sibling(ground.fd, ground.bells)).decode()
    fds = (ground.fd, *(fd for ends in ground.bells for fd in ends))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._shared_calls", "sibling", told], pass_fds=fds
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _be_a_sibling(told: Sibling) -> None:
    sharing = Sharing.join(told.memory_fd, 1, told.bells)
    made = contestant(sharing, {})
    calls.BATCH_CALLS = _SIBLING_CALLS
    while True:
        await made.cpu_us()
        await trio.sleep(0.001)


def main() -> None:
    """Take the turns of the first argument."""
    logs.configure("info", "json", os.open(os.devnull, os.O_WRONLY))
    if sys.argv[1] == "sibling":
        trio.run(_be_a_sibling, msgspec.json.decode(sys.argv[2], type=Sibling))
        return
    taken = trio.run(measure, msgspec.json.decode(sys.argv[1], type=calls.Turns))
    print(msgspec.json.encode(taken).decode())


if __name__ == "__main__":
    main()
