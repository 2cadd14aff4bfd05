"""The simulation finds what is planted: each bug by an invariant that is there to find it."""

import pytest

from tests.support.planted_bugs import BUGS
from tools.simulate import simulate
from tools.simulate._rules import AT_EACH_INSTANT, AT_THE_END

SEEDS = 60
STEPS = 120
PHASES = {"recovers", "drains", "comes_to_rest"}
"""What the run itself holds, beside the tables of invariants."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    bug.plant(monkeypatch)
    found: set[str] = set()
    for seed in range(SEEDS):
        report = simulate(seed, STEPS)
        if report.broken is not None:
            found.add(report.broken.rule)
        if found.intersection(bug.found_by):
            return
    pytest.fail(f"{SEEDS} seeds found only {sorted(found)}")


def test_every_invariant_has_a_bug_to_find() -> None:
    rules = {rule.__name__ for rule in (*AT_EACH_INSTANT, *AT_THE_END)} | PHASES
    assert {rule for bug in BUGS.values() for rule in bug.found_by} == rules
