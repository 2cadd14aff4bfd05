"""Rests of several workers: the same as those of one machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.classify import AttemptResult, Fault, Reached, classify
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.verdicts import Refused

WORKERS = 3
SETTINGS = CooldownSettings()
MEANINGS = {
    "fine": classify("GET", AttemptResult(200), has_idempotency_key=False),
    "throttled": classify("GET", AttemptResult(429), has_idempotency_key=False),
    "failed": classify(
        "GET", AttemptResult(0, Fault.RESET, Reached.NOT_SENT), has_idempotency_key=False
    ),
}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, WORKERS - 1), st.none(), st.none()),
        st.tuples(
            st.just("report"),
            st.integers(0, 20),
            st.sampled_from(sorted(MEANINGS)),
            st.none() | st.sampled_from([0.5, 8.0]),
        ),
        st.tuples(st.just("pass"), st.integers(0, 60), st.none(), st.none()),
    ),
    max_size=60,
)


def cooldowns(host):
    return [each.cooldown(SETTINGS, ("t", "w", "o")) for each in host.sharings]


@given(steps)
def test_any_steps_of_any_workers_are_those_of_one(taken):
    with shared_workers(WORKERS) as host:
        shared, one = cooldowns(host), Cooldown(SETTINGS)
        out: list[tuple[int, int]] = []
        for what, which, meaning, hint_s in taken:
            if what == "pass":
                host.now_s += which / 8
            elif what == "admit":
                own, expected = shared[which].admit(host.own_s(which)), one.admit(host.now_s)
                if isinstance(own, Refused):
                    assert isinstance(expected, Refused)
                    assert own.retry_after_s == pytest.approx(expected.retry_after_s)
                else:
                    assert own == expected
                    out.append((which, own))
            elif out:
                worker, round_ = out.pop(which % len(out))
                begun = shared[worker].report(
                    round_, MEANINGS[meaning], host.own_s(worker), 0.5, hint_s
                )
                assert begun == one.report(round_, MEANINGS[meaning], host.now_s, 0.5, hint_s)
            for worker, each in enumerate(shared):
                now_s = host.own_s(worker)
                assert each.rest_s(now_s) == pytest.approx(one.rest_s(host.now_s))
                assert each.in_flight == sum(at == worker for at, _ in out)
                if not out:
                    assert each.is_droppable(now_s) == one.is_droppable(host.now_s)


def test_a_healthy_credential_takes_no_lock():
    with shared_workers(1) as host:
        (one,) = cooldowns(host)
        for _ in range(5):
            round_ = one.admit(host.own_s(0))
            one.report(round_, MEANINGS["fine"], host.own_s(0), 0.5, None)
        assert host.memory.words[one._version_at] == 0


def test_who_waits_for_the_end_of_a_rest_sees_it_lengthened_by_another_worker():
    with shared_workers(2) as host:
        first, second = cooldowns(host)
        round_ = second.admit(host.own_s(1))
        second.report(round_, MEANINGS["throttled"], host.own_s(1), 0.0, 8.0)
        assert first.rests_until_s == pytest.approx(host.own_s(0) + 8.0)
