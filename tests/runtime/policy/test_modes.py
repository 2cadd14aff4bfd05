"""The mode of a policy: what becomes of its verdicts, and that they are counted."""

import pytest

from vastar_runtime.policy.modes import Gate, Mode


@pytest.mark.parametrize(
    ("mode", "verdict", "applied", "counts"),
    [
        (Mode.ENFORCE, "no", "no", (0, 1, 0)),
        (Mode.ENFORCE, None, None, (1, 0, 0)),
        (Mode.OBSERVE, "no", None, (0, 0, 1)),
        (Mode.OBSERVE, None, None, (1, 0, 0)),
        (Mode.OFF, "no", None, (0, 0, 0)),
        (Mode.OFF, None, None, (1, 0, 0)),
    ],
)
def test_every_mode_with_and_without_a_verdict(mode, verdict, applied, counts):
    gate = Gate(mode)
    assert gate.apply(verdict) == applied
    assert (gate.passed, gate.applied, gate.observed) == counts


@pytest.mark.parametrize(
    ("mode", "acts"), [(Mode.ENFORCE, True), (Mode.OBSERVE, False), (Mode.OFF, False)]
)
def test_what_a_policy_wants_done_is_done_when_enforced_only(mode, acts):
    assert Gate(mode).acts() is acts


def test_off_is_not_consulted_and_the_counts_outlive_a_change_of_mode():
    gate = Gate()
    gate.apply("no")
    gate.mode = Mode.OFF
    assert not gate.is_consulted
    gate.mode = Mode.OBSERVE
    assert gate.is_consulted
    gate.apply("no")
    assert (gate.applied, gate.observed) == (1, 1)


def test_the_names_are_those_of_the_configuration_file():
    assert [mode.value for mode in Mode] == ["enforce", "observe", "off"]
