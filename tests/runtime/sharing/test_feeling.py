"""What is felt of a limit, by all together; and alone where there is no record."""

import pytest

from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.sharing.feeling import Feeling
from vastar_runtime.sharing.memory import Memory

SETTINGS = AimdSettings(decrease_ratio=0.5, increase_ratio=0.25, hold_s=1.0)


def test_what_one_feels_all_feel():
    with Memory.temporary(2, 4) as memory:
        at = memory.layout.record_at(0)
        first, second = (Feeling(memory, at, worker) for worker in range(2))
        first.settings = second.settings = SETTINGS
        assert first.ratio() == second.ratio() == 1.0
        first.overloaded(10.0)
        second.overloaded(10.5)
        assert first.ratio() == second.ratio() == 0.5
        second.overloaded(11.0)
        assert first.ratio() == 0.25
        first.succeeded()
        assert second.ratio() == 0.5


@pytest.mark.parametrize("record_at", [None])
def test_without_a_record_each_feels_for_itself(record_at):
    with Memory.temporary(2, 4) as memory:
        first, second = (Feeling(memory, record_at, worker) for worker in range(2))
        first.settings = SETTINGS
        first.overloaded(10.0)
        first.overloaded(10.5)
        assert (first.ratio(), second.ratio()) == (0.5, 1.0)
        first.succeeded()
        assert first.ratio() == 0.75
