"""Retrying on the caller's side, under the published SDK's name, and its twin for event loops.

The runtime retries upstream calls by its own policy; these are for what the runtime itself
reports as worth a repeat. By default they decide by error class alone, as published: give
`retry_if` to a call that must not happen twice.

Shape: `_Plan` decides (whether, and how long to wait) and never waits; the two functions call and
sleep.
"""

import operator
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import anyio

from vastar_client.errors import ConnectorException
from vastar_client.wire.enums import ErrorClass

__all__ = ["retry_with_backoff", "retry_with_backoff_async"]

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
    retry_if: Callable[[ConnectorException], bool] | None = None,
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
        retry_if: asked of an error of these classes; False raises it. A call that must not happen
            twice is repeated safely when `error.disposition` is NOT_SENT.
        sleep: waits so many seconds; a test passes its own.
        rand: numbers from 0 to 1; a test passes its own.

    Raises:
        ConnectorException: the last one, when it is not to be repeated or the repeats are used up.
        ValueError: a class name is unknown or a number is negative.
    """
    plan = _Plan(
        max_retries,
        initial_backoff_ms,
        max_backoff_ms,
        retryable_errors=retryable_errors,
        retry_if=retry_if,
        rand=rand,
    )
    while True:
        try:
            return func()
        except ConnectorException as error:
            wait_s = plan.wait_s(error)
            if wait_s is None:
                raise
        sleep(wait_s)


async def retry_with_backoff_async(
    func: Callable[[], Awaitable[_T]],
    max_retries: int = 3,
    initial_backoff_ms: int = 1000,
    max_backoff_ms: int = 30_000,
    retryable_errors: Iterable[str | ErrorClass] | None = None,
    *,
    retry_if: Callable[[ConnectorException], bool] | None = None,
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    rand: Callable[[], float] = random.random,
) -> _T:
    """As `retry_with_backoff`, for an async `func` on Trio or asyncio."""
    plan = _Plan(
        max_retries,
        initial_backoff_ms,
        max_backoff_ms,
        retryable_errors=retryable_errors,
        retry_if=retry_if,
        rand=rand,
    )
    while True:
        try:
            return await func()
        except ConnectorException as error:
            wait_s = plan.wait_s(error)
            if wait_s is None:
                raise
        await sleep(wait_s)


class _Plan:
    """What is left of the repeats of one call."""

    def __init__(
        self,
        max_retries: int,
        initial_backoff_ms: int,
        max_backoff_ms: int,
        *,
        retryable_errors: Iterable[str | ErrorClass] | None,
        retry_if: Callable[[ConnectorException], bool] | None,
        rand: Callable[[], float],
    ) -> None:
        wanted = _DEFAULT_CLASSES if retryable_errors is None else retryable_errors
        self._classes = {_as_class(one) for one in wanted}
        for name, value in (
            ("max_retries", max_retries),
            ("initial_backoff_ms", initial_backoff_ms),
            ("max_backoff_ms", max_backoff_ms),
        ):
            if value < 0:
                raise ValueError(f"{name} is {value}: it must be 0 or more")
        self._left = operator.index(max_retries)
        self._backoff_ms = min(initial_backoff_ms, max_backoff_ms)
        self._max_backoff_ms = max_backoff_ms
        self._retry_if = retry_if
        self._rand = rand

    def wait_s(self, error: ConnectorException) -> float | None:
        """Seconds until the call is repeated; None: it is not, `error` is its outcome."""
        asked_ms = error.retry_after_ms
        if (
            not self._left
            or error.error_class not in self._classes
            or asked_ms > _LONGEST_RETRY_AFTER_MS
            or (self._retry_if is not None and not self._retry_if(error))
        ):
            return None
        self._left -= 1
        wait_ms = self._backoff_ms * (0.5 + self._rand() / 2)
        if asked_ms:
            wait_ms = max(wait_ms, asked_ms * (1 + _RETRY_AFTER_JITTER_RATIO * self._rand()))
        self._backoff_ms = min(self._backoff_ms * 2, self._max_backoff_ms)
        return wait_ms / 1000


def _as_class(one: str | ErrorClass) -> ErrorClass:
    if isinstance(one, str):
        try:
            return ErrorClass[one.upper()]
        except KeyError:
            known = ", ".join(ErrorClass.__members__)
            raise ValueError(f"unknown error class {one!r}: known are {known}") from None
    return ErrorClass(one)
