"""Attacks in a row, until one breaks a rule or all is tried; then that one made small."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from tools.fuzz._machine import machine
from tools.fuzz._minimise import minimise
from tools.fuzz._session import Session
from tools.fuzz._steps import Recording, Step
from tools.fuzz._violation import Violation
from tools.fuzz._world import World

__all__ = ["Report", "Wanted", "attack", "reproduces"]

_BATCH_EXAMPLES = 50
_TRIES_AGAIN = 3
_HASTE = 0.1


@attrs.frozen
class Wanted:
    """What to try: so many examples, or for so long where `for_s` is not 0."""

    profile: str
    examples: int = 200
    for_s: float = 0.0
    seed: int = 0
    steps: int = 20
    shrink_s: float = 60.0


@attrs.frozen
class Report:
    """What came of an attack.

    Attributes:
        profile: as wanted.
        seed: as wanted.
        examples: that were begun.
        took_s: until the failure or the end, without making it smaller.
        recording: the failure, if any.
        seen_again: how often it showed again, of `tried_again` times.
        tried_again: see there.
    """

    profile: str
    seed: int
    examples: int
    took_s: float
    recording: Recording | None = None
    seen_again: int = 0
    tried_again: int = 0


def attack(world: World, wanted: Wanted) -> Report:
    """Attack the runtime of `world`."""
    begun_s = time.monotonic()
    session = Session(world, world.is_base)
    if wanted.for_s:
        session.is_over = lambda: time.monotonic() > begun_s + wanted.for_s
    batch = 0
    while session.failure is None and not session.is_over():
        left = _BATCH_EXAMPLES if wanted.for_s else wanted.examples - session.examples
        if left <= 0:
            break
        _run_batch(session, wanted, min(left, _BATCH_EXAMPLES), wanted.seed + batch * 1_000_003)
        batch += 1
    took_s = time.monotonic() - begun_s
    report = Report(wanted.profile, wanted.seed, session.examples, took_s)
    if session.failure is None:
        return report
    return _made_small(report, world, session.failure, wanted.shrink_s)


def _run_batch(session: Session, wanted: Wanted, examples: int, seed: int) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=wanted.steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )
    drawn = seeded(seed)(machine(wanted.profile, session))
    # Once a rule is broken the machine does nothing more, which Hypothesis calls flaky.
    with suppress(Violation, HypothesisException):
        _silently(lambda: run_state_machine_as_test(drawn, settings=how))


def _silently(run: Callable[[], None]) -> None:
    """Hypothesis raises groups where an example fails in several ways."""
    try:
        run()
    except BaseExceptionGroup as group:
        rest = group.split((Violation, HypothesisException))[1]
        if rest is not None:
            raise rest from None


def _broken_by(world: World, steps: Sequence[Step], salt: str) -> Violation | None:
    try:
        world.run(steps, salt)
    except Violation as violation:
        return violation
    finally:
        world.abandon()
    return None


def _made_small(
    report: Report,
    world: World,
    failure: tuple[Violation, tuple[Step, ...], str],
    budget_s: float,
) -> Report:
    violation, steps, salt = failure

    def breaks(candidate: Sequence[Step]) -> bool:
        found = _broken_by(world, candidate, salt)
        return found is not None and found.rule == violation.rule

    patience_s = world.patience_s
    world.patience_s = patience_s * _HASTE  # what never comes is waited for many times
    small = minimise(steps, breaks, budget_s)
    world.patience_s = patience_s
    last, seen_again = _seen_again(world, violation, small, salt)
    if not seen_again and small != steps:  # too hasty
        small = steps
        last, seen_again = _seen_again(world, violation, small, salt)
    recording = Recording(
        small,
        last.rule,
        last.what,
        report.profile,
        world.is_base,
        world.upstream.ports if world.upstream is not None else (),
        salt,
    )
    return attrs.evolve(
        report, recording=recording, seen_again=seen_again, tried_again=_TRIES_AGAIN
    )


def _seen_again(
    world: World, violation: Violation, steps: Sequence[Step], salt: str
) -> tuple[Violation, int]:
    """The last violation of the same rule that `steps` showed, and how often they did."""
    last, count = violation, 0
    for _ in range(_TRIES_AGAIN):
        found = _broken_by(world, steps, salt)
        if found is not None and found.rule == violation.rule:
            last, count = found, count + 1
    return last, count


def reproduces(recording: Recording, world: World) -> Violation | None:
    """Run a recording; what it breaks now, if anything.

    Ports of the recorded upstream become those of this one: both have five digits.
    """
    steps = recording.steps
    if world.upstream is not None:
        swaps = [
            (f"127.0.0.1:{old}".encode(), f"127.0.0.1:{new}".encode())
            for old, new in zip(recording.ports, world.upstream.ports, strict=True)
        ]
        steps = tuple(_swapped(step, swaps) for step in steps)
    return _broken_by(world, steps, recording.salt)


def _swapped(step: Step, swaps: Sequence[tuple[bytes, bytes]]) -> Step:
    data = step.data
    for number, (old, _) in enumerate(swaps):
        data = data.replace(old, b"\0port%d" % number + old)
    for number, (old, new) in enumerate(swaps):
        data = data.replace(b"\0port%d" % number + old, new)
    return attrs.evolve(step, data=data)
