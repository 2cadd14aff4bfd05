"""One seed, and everything that chance decides drawn from it.

Each part of a run (of `tools.simulate`, of a benchmark in virtual time) draws from a stream of its
own, named, so that one more draw in one of them does not turn the whole run into another one. Seeds
are texts: Python hashes those the same way in every process, whatever PYTHONHASHSEED says.

Trio runs the tasks that are ready in an order that it shuffles. It has a random source and a
switch for that, private and meant for exactly this purpose (pytest-trio and Hypothesis use them):
with the switch on, the order depends on the seed and on the order in which tasks were started.
"""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trio._core import _run

__all__ = ["repeatable", "stream"]


def stream(seed: int, name: str) -> random.Random:
    """The random source of the part `name`."""
    return random.Random(f"{seed}/{name}")  # noqa: S311 - repeatable is what it has to be


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Make a Trio run in this block depend on nothing but `seed` and what it is asked to do.

    The garbage collector rests meanwhile: when it strikes depends on all that the process did
    before, and what it finalizes may act.
    """
    trio_run: Any = _run
    assert hasattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING"), "Trio has changed: look for it"
    was_allowed = trio_run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001 - see the docstring
    state = trio_run._r.getstate()  # noqa: SLF001
    collected = gc.isenabled()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001
    trio_run._r.seed(f"{seed}/scheduler")  # noqa: SLF001
    gc.disable()
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed  # noqa: SLF001
        trio_run._r.setstate(state)  # noqa: SLF001
        if collected:
            gc.enable()
