"""Retrying on the caller's side, under the published SDK's name.

The runtime retries upstream calls by its own policy; this one is for what the runtime itself
reports as worth a repeat. It decides by error class alone, as published: look at
`disposition` before wrapping a call that must not happen twice.
"""

import random
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from vastar_client.errors import ConnectorException
from vastar_client.wire.enums import ErrorClass

__all__ = ["retry_with_backoff"]

_T = TypeVar("_T")

_DEFAULT_CLASSES: Final = (ErrorClass.TRANSIENT, ErrorClass.RATE_LIMITED, ErrorClass.TIMEOUT)
_LONGEST_RETRY_AFTER_MS: Final = 120_000
"""Being told to come back later than this means: not in this call (the OpenAI SDK's figure)."""

_RETRY_AFTER_JITTER_RATIO: Final = 0.25


def retry_with_backoff(
    func: Callable[[], _T],
    max_retries: int = 3,
    initial_backoff_ms: int = 1000,
    max_backoff_ms: int = 30_000,
    retryable_errors: Iterable[str | ErrorClass] | None = None,
    *,
    sleep: Callable[[float], object] = time.sleep,
    rand: Callable[[], float] = random.random,
) -> _T:
    """The result of `func`, called again after a `ConnectorException` of a retryable class.

    The wait doubles from `initial_backoff_ms` up to `max_backoff_ms`; half of it is random, so
    that many callers do not come back together. `retry_after_ms` of the error is a floor, even
    above `max_backoff_ms`; above 120 s the error is raised at once.

    Args:
        func: called without arguments, at most `max_retries` + 1 times.
        max_retries: repeats after the first call.
        initial_backoff_ms: the wait before the first repeat.
        max_backoff_ms: the longest wait that is not asked for by the other side.
        retryable_errors: classes or their names; by default TRANSIENT, RATE_LIMITED, TIMEOUT.
        sleep: waits so many seconds; a test passes its own.
        rand: numbers from 0 to 1; a test passes its own.

    Raises:
        ConnectorException: the last one, when it is not retryable or the repeats are used up.
        ValueError: a class name is unknown or a number is negative.
    """
    classes = {_as_class(one) for one in (retryable_errors or _DEFAULT_CLASSES)}
    for name, value in (
        ("max_retries", max_retries),
        ("initial_backoff_ms", initial_backoff_ms),
        ("max_backoff_ms", max_backoff_ms),
    ):
        if value < 0:
            raise ValueError(f"{name} is {value}: it must be 0 or more")
    backoff_ms = min(initial_backoff_ms, max_backoff_ms)
    for _ in range(max_retries):
        try:
            return func()
        except ConnectorException as error:
            asked_ms = error.retry_after_ms
            if error.error_class not in classes or asked_ms > _LONGEST_RETRY_AFTER_MS:
                raise
        wait_ms = backoff_ms * (0.5 + rand() / 2)
        if asked_ms:
            wait_ms = max(wait_ms, asked_ms * (1 + _RETRY_AFTER_JITTER_RATIO * rand()))
        sleep(wait_ms / 1000)
        backoff_ms = min(backoff_ms * 2, max_backoff_ms)
    return func()


def _as_class(one: str | ErrorClass) -> ErrorClass:
    if isinstance(one, str):
        try:
            return ErrorClass[one.upper()]
        except KeyError:
            known = ", ".join(ErrorClass.__members__)
            raise ValueError(f"unknown error class {one!r}: known are {known}") from None
    return ErrorClass(one)
