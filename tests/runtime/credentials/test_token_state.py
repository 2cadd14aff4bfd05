"""When a token may be used, and when another one is asked for: plain numbers for time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.credentials.oauth2 import Denied, Granted
from vastar_runtime.credentials.token_state import TokenState
from vastar_runtime.outcomes import FailureKind

DENIED = Denied(FailureKind.UPSTREAM, "no")


def granted(life_s: float, ratio: float = 0, at_s: float = 100) -> TokenState:
    state = TokenState()
    state.granted(at_s, Granted("planted", life_s), ratio)
    return state


def test_at_first_there_is_none_and_one_is_wanted():
    state = TokenState()
    assert state.token(0) is None
    assert state.wants_another(0)
    assert state.refusal(0) is None


@pytest.mark.parametrize(
    ("life_s", "ratio", "refresh_s", "end_s"),
    [
        (3600, 0, 3540, 3595),
        (3600, 1, 3480, 3595),
        (40, 0, 30, 36),
        (40, 1, 20, 36),
        (1, 0, 0.75, 0.9),
    ],
)
def test_it_is_refreshed_ahead_of_its_end(life_s, ratio, refresh_s, end_s):
    state = granted(life_s, ratio)
    assert not state.wants_another(100 + refresh_s - 0.01)
    assert state.wants_another(100 + refresh_s)
    assert state.token(100 + end_s - 0.01) == "planted"
    assert state.token(100 + end_s) is None


def test_failures_rest_longer_each_time_and_a_token_ends_that():
    state, now_s, rests = TokenState(), 0.0, []
    for _ in range(9):
        rests.append(state.denied(now_s, DENIED, 1.0))
        assert state.refusal(now_s) == (DENIED, rests[-1])
        assert not state.wants_another(now_s + rests[-1] - 0.01)
        now_s += rests[-1]
        assert state.wants_another(now_s)
        assert state.refusal(now_s) is None
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    state.granted(now_s, Granted("planted", 10), 0)
    assert state.denied(now_s, DENIED, 0.0) == 0.5


def test_it_rests_as_long_as_the_server_asks_within_bounds():
    denied = Denied(FailureKind.RATE_LIMITED, "no", 30.0)
    assert TokenState().denied(0, denied, 0) == 30
    assert TokenState().denied(0, Denied(FailureKind.RATE_LIMITED, "no", 1e6), 0) == 300
    assert TokenState().denied(0, Denied(FailureKind.RATE_LIMITED, "no", 0.1), 1) == 1


def test_an_old_token_is_used_while_another_cannot_be_had():
    state = granted(40)
    state.denied(130, DENIED, 1)
    assert state.token(131) == "planted"
    assert not state.wants_another(130.9)
    assert state.wants_another(131)


def test_a_token_that_is_refused_is_given_up_once_it_is_not_young():
    state = granted(3600)
    assert not state.rejected("planted", 109)
    assert not state.rejected("another", 200)
    assert state.token(200) == "planted"
    assert state.rejected("planted", 200)
    assert state.token(200) is None
    assert state.wants_another(200)
    assert not state.rejected("planted", 200)


@given(life_s=st.floats(0.001, 1e9), ratio=st.floats(0, 1, exclude_max=True))
def test_whatever_its_life_it_is_of_use_before_it_is_refreshed(life_s, ratio):
    state = granted(life_s, ratio, at_s=0)
    assert state.token(0) == "planted"
    assert not state.wants_another(0)
    assert state.wants_another(life_s)
    assert state.token(life_s) is None


def test_it_does_not_show_its_token():
    assert "planted" not in repr(granted(10))
