"""A failing list of steps made smaller, by trying parts of it against the live runtime.

Not Hypothesis's own shrinking: sockets race, and a failure that shows nine times of ten would end
that as flaky. Here each candidate that breaks the same rule once is taken, and time is bounded.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from tools.fuzz._steps import Step

__all__ = ["minimise"]

Breaks = Callable[[Sequence[Step]], bool]
"""Whether these steps break the same rule."""


def minimise(steps: Sequence[Step], breaks: Breaks, budget_s: float) -> tuple[Step, ...]:
    """The smallest part of `steps` that was found in time and still breaks the rule.

    First whole steps are left out, in ever smaller runs (delta debugging, Zeller 2002), then
    the bytes of each sending are shortened.
    """
    until_s = time.monotonic() + budget_s
    best = tuple(steps)
    has_changed = True
    while has_changed:
        has_changed = False
        for shrink in (_fewer_steps, _fewer_bytes):
            found = _descend(best, shrink, breaks, until_s)
            has_changed |= found != best
            best = found
        if time.monotonic() > until_s:
            break
    return best


def _descend(
    best: tuple[Step, ...],
    smaller: Callable[[tuple[Step, ...]], Iterator[tuple[Step, ...]]],
    breaks: Breaks,
    until_s: float,
) -> tuple[Step, ...]:
    """Take the first smaller one that fails, and go on from there."""
    again = True
    while again:
        again = False
        for candidate in smaller(best):
            if time.monotonic() > until_s:
                return best
            if breaks(candidate):
                best, again = candidate, True
                break
    return best


def _fewer_steps(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    size = len(steps)
    while size:
        for start in range(0, len(steps), size):
            yield steps[:start] + steps[start + size :]
        size //= 2


def _fewer_bytes(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    for at, step in enumerate(steps):
        if step.kind != "send":
            continue
        for data in _shorter(step.data):
            yield (*steps[:at], attrs.evolve(step, data=data), *steps[at + 1 :])


def _shorter(data: bytes) -> Iterator[bytes]:
    """Without whole frames; without runs of bytes at the end, with the length made to fit."""
    frames = list(_frames(data))
    if len(frames) > 1:
        for left_out in range(len(frames)):
            yield b"".join(frames[:left_out] + frames[left_out + 1 :])
        return
    size = len(data) // 2
    while size:
        yield data[:-size]
        if len(data) - size > 5:  # noqa: PLR2004 - the header
            yield (len(data) - size - 4).to_bytes(4) + data[4:-size]
        size //= 2


def _frames(data: bytes) -> Iterator[bytes]:
    """`data` cut where its lengths say, and what is left."""
    while data:
        end = 4 + int.from_bytes(data[:4])
        yield data[:end]
        data = data[end:]
