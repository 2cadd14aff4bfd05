"""What is refused before it is begun, and in which order it is asked."""

import pytest

from tests.support.sessions import request
from vastar_runtime.identity import Guest
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.refusing import why_not
from vastar_runtime.runtime_state import RuntimeState

FULL = Guest(10, held_bytes=11)


def asked(asking=None, *, draining=False, guest=None, calls=(), in_flight=0) -> Failure | None:
    state = RuntimeState(0.0)
    state.draining = draining
    return why_not(asking or request(1), state, None, guest or Guest(), calls, in_flight, 2)


def test_an_ordinary_request_is_begun() -> None:
    assert asked() is None
    assert asked(calls={1}, in_flight=1) is None, "two unary calls may share an id"


@pytest.mark.parametrize(
    ("failure", "kind", "words", "refused_by"),
    [
        (asked(draining=True), FailureKind.DRAINING, "going away", "drain:runtime"),
        (
            asked(request(1, trace_id="t" * 1025)),
            FailureKind.INVALID_REQUEST,
            "trace_id of 1025 characters: at most 1024",
            None,
        ),
        (asked(request(0, stream=True)), FailureKind.INVALID_REQUEST, "other than 0", None),
        (
            asked(request(7, body_follows=True), calls={7}),
            FailureKind.INVALID_REQUEST,
            "request_id 7 is in flight",
            None,
        ),
        (asked(in_flight=2), FailureKind.OVERLOADED, "2 calls", "in_flight:connection"),
        (asked(guest=FULL), FailureKind.OVERLOADED, "11 bytes", "memory:user"),
    ],
)
def test_what_is_not(
    failure: Failure | None, kind: FailureKind, words: str, refused_by: str | None
) -> None:
    assert failure is not None
    assert (failure.kind, failure.refused_by) == (kind, refused_by)
    assert words in failure.message


def test_a_runtime_that_leaves_says_so_first() -> None:
    failure = asked(draining=True, guest=FULL, in_flight=9)
    assert failure is not None
    assert failure.kind is FailureKind.DRAINING
