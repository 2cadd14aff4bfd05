"""Errors say what happened, what to do, and survive a pickle."""

import pickle

import pytest

from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    HTTPStatusError,
    RuntimeUnavailable,
    VastarError,
    WrongThreadError,
)
from vastar_client.wire import Disposition, ErrorClass


@pytest.mark.parametrize("error_class", ErrorClass)
def test_retryable_are_transient_rate_limited_and_timeout(error_class):
    error = ConnectorException("x", error_class, 1)
    assert error.is_retryable() == (error_class in {1, 3, 4})
    assert error.get_error_class_name() == error_class.name


def test_the_published_attributes_are_there():
    error = ConnectorException("no route", ErrorClass.TRANSIENT, 7)
    assert (error.message, error.error_class, error.request_id) == ("no route", 1, 7)


def test_the_sentence_tells_all_that_is_known():
    error = ConnectorException(
        "tenant over its rate",
        ErrorClass.RATE_LIMITED,
        9,
        disposition=Disposition.NOT_SENT,
        retry_after_ms=1500,
        attempts=2,
        refused_by="rate_limit:tenant",
    )
    assert str(error) == (
        "tenant over its rate (RATE_LIMITED; the request was not sent upstream; tried 2 times; "
        "refused by rate_limit:tenant; retry in 1.5 s; request 9)"
    )
    assert str(ConnectorException("x", ErrorClass.PERMANENT, 0)) == "x (PERMANENT)"


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [
        (RuntimeUnavailable, ErrorClass.TRANSIENT),
        (ConnectionClosed, ErrorClass.TRANSIENT),
        (CallTimeout, ErrorClass.TIMEOUT),
        (HTTPStatusError, ErrorClass.PERMANENT),
    ],
)
def test_every_failure_of_a_call_is_caught_by_code_for_the_published_sdk(kind, error_class):
    error = kind("x")
    assert isinstance(error, ConnectorException)
    assert isinstance(error, VastarError)
    assert error.error_class is error_class


@pytest.mark.parametrize("kind", [ConnectorException, CallTimeout, HTTPStatusError])
def test_errors_travel_between_processes(kind):
    error = kind(
        "m",
        ErrorClass.TIMEOUT,
        3,
        disposition=Disposition.SENT_NO_RESPONSE,
        attempts=2,
        queued_us=5,
        backoff_us=6,
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert vars(copy) == vars(error)
    assert (copy.queued_us, copy.backoff_us) == (5, 6)
    assert str(copy) == str(error)


def test_the_wrong_thread_is_a_runtime_error_and_no_failed_call():
    assert issubclass(WrongThreadError, RuntimeError)
    assert not issubclass(WrongThreadError, ConnectorException)
