"""Both retry functions: what they repeat, how long they wait, when they give up. Nothing sleeps."""

import inspect
import time

import anyio
import pytest
import trio

from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.retry import retry_with_backoff, retry_with_backoff_async
from vastar_client.wire import Disposition, ErrorClass


class Script:
    """Fails with each error in turn, then gives "done"."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0
        self.slept_s = []

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self, rand=1.0, **options):
        return retry_with_backoff(self, sleep=self.slept_s.append, rand=lambda: rand, **options)


class AsyncScript(Script):
    """The same through the async function."""

    def run(self, rand=1.0, **options):
        async def func():
            await anyio.lowlevel.checkpoint()
            return self()

        async def sleep(seconds):
            self.slept_s.append(seconds)

        async def main():
            return await retry_with_backoff_async(func, sleep=sleep, rand=lambda: rand, **options)

        return trio.run(main)


@pytest.fixture(autouse=True, params=[Script, AsyncScript], ids=["blocking", "async"])
def _both(request, monkeypatch):
    """Every test holds for both."""
    monkeypatch.setitem(globals(), "Script", request.param)


def failure(error_class=ErrorClass.TRANSIENT, retry_after_ms=0, disposition=Disposition.UNKNOWN):
    return ConnectorException(
        "x", error_class, 1, retry_after_ms=retry_after_ms, disposition=disposition
    )


def test_success_needs_one_call():
    script = Script()
    assert script.run() == "done"
    assert (script.calls, script.slept_s) == (1, [])


@pytest.mark.parametrize("error_class", ErrorClass)
def test_the_published_classes_are_repeated(error_class):
    script = Script(failure(error_class))
    if error_class in {ErrorClass.TRANSIENT, ErrorClass.RATE_LIMITED, ErrorClass.TIMEOUT}:
        assert script.run() == "done"
    else:
        with pytest.raises(ConnectorException):
            script.run()
        assert script.calls == 1


def test_the_wait_doubles_up_to_its_cap():
    script = Script(*(failure() for _ in range(5)))
    assert script.run(max_retries=5, initial_backoff_ms=1000, max_backoff_ms=5000) == "done"
    assert script.slept_s == [1, 2, 4, 5, 5]


def test_half_of_the_wait_is_random():
    script = Script(failure(), failure())
    script.run(rand=0.0)
    assert script.slept_s == [0.5, 1.0]


def test_the_last_error_comes_out():
    last = failure()
    script = Script(failure(), failure(), last, failure())
    with pytest.raises(ConnectorException) as caught:
        script.run(max_retries=2)
    assert caught.value is last
    assert (script.calls, len(script.slept_s)) == (3, 2)


def test_no_retries_is_one_call():
    script = Script(failure())
    with pytest.raises(ConnectorException):
        script.run(max_retries=0)
    assert script.calls == 1


@pytest.mark.parametrize(("rand", "slept_s"), [(0.0, 50.0), (1.0, 62.5)])
def test_retry_after_is_a_floor_with_jitter_on_top(rand, slept_s):
    script = Script(failure(retry_after_ms=50_000))
    script.run(rand=rand, max_backoff_ms=10)
    assert script.slept_s == [slept_s]


def test_a_short_retry_after_does_not_shorten_the_wait():
    script = Script(failure(retry_after_ms=1))
    script.run()
    assert script.slept_s == [1.0]


def test_one_retry_after_is_used_once():
    script = Script(failure(retry_after_ms=20_000), failure())
    script.run(rand=0.0)
    assert script.slept_s == [20.0, 1.0]


def test_a_retry_after_beyond_two_minutes_gives_up():
    script = Script(failure(retry_after_ms=120_001))
    with pytest.raises(ConnectorException):
        script.run()
    assert (script.calls, script.slept_s) == (1, [])


@pytest.mark.parametrize("classes", [["TIMEOUT"], ["timeout"], [ErrorClass.TIMEOUT], (4,)])
def test_classes_by_name_or_value(classes):
    script = Script(CallTimeout("x"))
    assert script.run(retryable_errors=classes) == "done"
    with pytest.raises(ConnectorException):
        Script(failure()).run(retryable_errors=classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retryable_errors": ["NONSENSE"]}, "unknown error class 'NONSENSE': known are SUCCESS"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"initial_backoff_ms": -1}, "initial_backoff_ms is -1"),
        ({"max_backoff_ms": -1}, "max_backoff_ms is -1"),
    ],
)
def test_bad_arguments_are_refused_before_any_call(options, message):
    script = Script()
    with pytest.raises(ValueError, match=message):
        script.run(**options)
    assert script.calls == 0


def test_other_exceptions_pass_at_once():
    script = Script(KeyError("mine"))
    with pytest.raises(KeyError):
        script.run()
    assert script.calls == 1


def was_not_sent(error):
    return error.disposition is Disposition.NOT_SENT


def test_a_condition_is_asked_of_every_error_of_a_retryable_class():
    sent = failure(disposition=Disposition.SENT_NO_RESPONSE)
    script = Script(failure(disposition=Disposition.NOT_SENT), sent, failure())
    with pytest.raises(ConnectorException) as caught:
        script.run(retry_if=was_not_sent)
    assert caught.value is sent
    assert (script.calls, script.slept_s) == (2, [1.0])


def test_a_condition_adds_no_class():
    asked = []
    script = Script(failure(ErrorClass.PERMANENT))
    with pytest.raises(ConnectorException):
        script.run(retry_if=lambda error: asked.append(error) or True)
    assert (script.calls, asked) == (1, [])


def test_no_classes_at_all_is_no_repeat():
    script = Script(failure())
    with pytest.raises(ConnectorException):
        script.run(retryable_errors=[])
    assert script.calls == 1


def test_the_twins_take_the_same_arguments():
    one, other = map(inspect.signature, (retry_with_backoff, retry_with_backoff_async))
    assert list(one.parameters) == list(other.parameters)
    for name in one.parameters.keys() - {"sleep"}:
        assert one.parameters[name].default == other.parameters[name].default


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_async_one_sleeps_in_either_event_loop(backend):
    errors = [failure(), failure()]
    ticks = []

    async def func():
        if errors:
            raise errors.pop()
        return "done"

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await anyio.sleep(0.005)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            assert await retry_with_backoff_async(func, initial_backoff_ms=40) == "done"
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert len(ticks) > 3, "others run while it waits"


async def test_the_async_one_can_be_cancelled_while_it_waits(autojump_clock):
    async def func():
        raise failure(retry_after_ms=100_000)

    with trio.move_on_after(5) as scope:
        await retry_with_backoff_async(func)
    assert scope.cancelled_caught
