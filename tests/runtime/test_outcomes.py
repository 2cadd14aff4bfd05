"""Outcome values: complete where they are mapped, and plain to compare."""

import pytest

from vastar_client.wire import ErrorClass, PayloadFormat
from vastar_runtime.dispatch import ERROR_CLASSES
from vastar_runtime.outcomes import Failure, FailureKind, Reply


def test_each_kind_of_failure_has_a_class_on_the_wire_and_none_is_success():
    assert set(ERROR_CLASSES) == set(FailureKind)
    assert ErrorClass.SUCCESS not in ERROR_CLASSES.values()
    assert all(1 <= error_class <= 5 for error_class in ERROR_CLASSES.values())


def test_what_sdks_retry_is_what_may_succeed_the_next_time():
    retried = {ErrorClass.TRANSIENT, ErrorClass.RATE_LIMITED, ErrorClass.TIMEOUT}
    assert {kind for kind, error_class in ERROR_CLASSES.items() if error_class in retried} == {
        FailureKind.UPSTREAM,
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.CIRCUIT_OPEN,
        FailureKind.OVERLOADED,
        FailureKind.DRAINING,
    }


def test_the_table_cannot_be_changed_in_passing():
    with pytest.raises(TypeError):
        ERROR_CLASSES[FailureKind.UPSTREAM] = ErrorClass.SUCCESS  # type: ignore[index]


def test_values_compare_and_default():
    assert Reply(b"x") == Reply(b"x", PayloadFormat.JSON, 0)
    assert Failure(FailureKind.TIMEOUT, "late") == Failure(FailureKind.TIMEOUT, "late", 0, None)
    assert Failure(FailureKind.TIMEOUT, "late") != Failure(FailureKind.UPSTREAM, "late")
