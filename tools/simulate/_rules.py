"""All invariants, in two tables: those looked at whenever nothing can go on, and those of the end.

Each is a function of its own whose name says what holds. It gives sentences about what it saw; the
first sentence of any ends the run.
"""

from collections.abc import Iterator
from typing import Final

from tools.simulate import _rules_attempts as attempts
from tools.simulate import _rules_breakers as breakers
from tools.simulate import _rules_calls as calls
from tools.simulate import _rules_fairness as fairness
from tools.simulate import _rules_limits as limits
from tools.simulate import _rules_rest as rest
from tools.simulate import _rules_retries as retries
from tools.simulate._world import Broken, Rule, World

__all__ = ["AT_EACH_INSTANT", "AT_THE_END", "check_end", "check_instant"]

AT_EACH_INSTANT: Final[tuple[Rule, ...]] = (
    calls.no_bug_shows,
    calls.one_final_answer,
    calls.no_call_outlives_its_deadline,
    calls.a_taken_back_call_ends_at_once,
    calls.a_reply_is_of_its_own_call,
    calls.the_disposition_is_true,
    calls.refusals_say_who_and_when,
    calls.only_what_is_enforced_refuses,
    calls.draining_begins_nothing,
    calls.times_add_up,
    attempts.no_attempt_after_the_end,
    attempts.no_more_attempts_than_configured,
    attempts.attempts_are_told,
    attempts.what_may_not_be_repeated_is_not,
    attempts.the_upstream_is_left_with_its_call,
    attempts.tenants_are_apart,
    attempts.a_resting_credential_is_left_alone,
    retries.a_hint_is_a_floor,
    retries.backoff_is_of_its_own_answer,
    retries.a_backoff_that_cannot_fit_is_not_begun,
    retries.no_attempt_outlives_its_limit,
    retries.retries_stay_within_the_quota,
    limits.calls_keep_to_their_rates,
    limits.tokens_keep_to_their_rates,
    breakers.circuits_hold,
    fairness.tenants_take_turns,
    rest.nobody_waits_whose_turn_has_come,
    rest.nothing_is_held_for_nobody,
)
AT_THE_END: Final[tuple[Rule, ...]] = (
    rest.nothing_is_left,
    rest.the_metrics_are_true,
)


def check_instant(world: World) -> None:
    """Look at everything, now that nothing can go on before time does. Raises `Broken`."""
    _check(AT_EACH_INSTANT, world)
    world.records.seen()


def check_end(world: World, surplus_tasks: int) -> None:
    """Look at what is left when all is over. Raises `Broken`."""
    world.surplus_tasks = surplus_tasks
    _check(AT_THE_END, world)


def _check(rules: tuple[Rule, ...], world: World) -> None:
    for rule in rules:
        found: Iterator[str] = rule(world)
        for sentence in found:
            raise Broken(rule.__name__, sentence)
