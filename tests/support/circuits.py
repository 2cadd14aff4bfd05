"""Circuit breakers in every situation that there is, for tests of the breaker."""

from collections.abc import Callable

import attrs

from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, Permit, Transition

SETTINGS = BreakerSettings()
NO_JITTER = 1.0
"""The random number that leaves the whole time open."""

Situation = tuple[Breaker, Permit | None, Permit | None, float]
"""A breaker, a permit of its generation, one of an older generation, and the time."""


def make(**changes: object) -> Breaker:
    return Breaker(attrs.evolve(SETTINGS, **changes))


def let(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.admit(now_s)
    assert isinstance(permit, Permit)
    return permit


def call(breaker: Breaker, evidence: Evidence, now_s: float = 0.0) -> Transition | None:
    return breaker.report(let(breaker, now_s), evidence, now_s, NO_JITTER)


def trip(breaker: Breaker, now_s: float = 0.0) -> Transition:
    for _ in range(breaker._settings.no_answer_run - 1):
        assert call(breaker, Evidence.NO_ANSWER, now_s) is None
    opened = call(breaker, Evidence.NO_ANSWER, now_s)
    assert opened is not None
    return opened


def closed() -> Situation:
    breaker = make()
    return breaker, let(breaker, 0.0), None, 0.0


def at_the_brink() -> Situation:
    """One more counted call trips it, whatever it was: 19 of 19 failed."""
    breaker = make()
    for _ in range(19):
        call(breaker, Evidence.FAILURE)
    return breaker, let(breaker, 0.0), None, 0.0


def opened() -> Situation:
    breaker = make()
    stale = let(breaker, 0.0)
    trip(breaker)
    return breaker, None, stale, 4.9


def open_time_over() -> Situation:
    breaker, _, stale, _ = opened()
    return breaker, None, stale, 5.0


def probing() -> Situation:
    breaker, _, stale, now_s = open_time_over()
    return breaker, let(breaker, now_s), stale, now_s + 29.9


def probe_expired() -> Situation:
    breaker, probe, stale, now_s = probing()
    return breaker, probe, stale, now_s + 0.1


def probe_given_back() -> Situation:
    breaker, probe, stale, now_s = probing()
    assert probe is not None
    breaker.report(probe, Evidence.NONE, now_s, NO_JITTER)
    return breaker, None, stale, now_s


def closed_again() -> Situation:
    breaker, probe, stale, now_s = probing()
    assert probe is not None
    breaker.report(probe, Evidence.SUCCESS, now_s, NO_JITTER)
    return breaker, let(breaker, now_s), stale, now_s


SITUATIONS: list[Callable[[], Situation]] = [
    closed,
    at_the_brink,
    opened,
    open_time_over,
    probing,
    probe_expired,
    probe_given_back,
    closed_again,
]
