"""Rules that hold for every test: a hard cap, nothing left behind, repeatable random examples."""

import gc
import inspect
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import caps, golden, leaks, planted

_COMMON = hypothesis.settings(
    deadline=None,  # a slow shared machine is no fault of a test; the caps bound the time
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
_settings = hypothesis.settings
_settings.register_profile("quick", _COMMON, max_examples=60)
_settings.register_profile("coverage", _COMMON, max_examples=60, derandomize=True)
_settings.register_profile("ci", _COMMON, max_examples=300, derandomize=True)
_settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "quick")
)

planted.watch()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs have it ignored, and so would all programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _cap_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("cap_s")
    return float(marker.args[0]) if marker else caps.DEFAULT_CAP_S


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Cap an asynchronous test before pytest-trio wraps it into a run of its own."""
    test = getattr(item, "obj", None)
    inner = getattr(test, "hypothesis", None)
    if inner is not None:
        if inspect.iscoroutinefunction(inner.inner_test):
            inner.inner_test = caps.capped(inner.inner_test, _cap_s(item))
    elif inspect.iscoroutinefunction(test):
        item.obj = caps.capped(test, _cap_s(item))  # type: ignore[attr-defined]  # a Function has it
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Note what is there before the fixtures of a test are made."""
    item.stash[_BEFORE] = (set(leaks.children()), leaks.threads())
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that left something behind once all its fixtures are gone, or told a secret.

    The young generations are collected here, so that a forgotten socket warns beside the test that
    forgot it; what is older is collected, and fails the run, at its end.
    """
    result = yield
    gc.collect(1)
    found = leaks.left_behind(*item.stash[_BEFORE])
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)
    secrets = planted.told(text for when, _, text in item._report_sections if when == "call")
    if secrets:
        pytest.fail(f"a planted secret was told: {secrets[0]}", pytrace=False)
    return result


_BEFORE = pytest.StashKey[tuple[set[int], set[object]]]()


@pytest.fixture(scope="session")
def golden_frames() -> tuple[golden.GoldenFrame, ...]:
    """The frames captured between the published SDKs and the published runtime."""
    return golden.load()
