"""The way back into an event loop, from anywhere."""

import asyncio
import os
import threading

import anyio
import pytest
import trio
import trio.lowlevel

from vastar_client._call_soon import call_soon_function


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_other_threads_reach_the_loop_that_runs(backend):
    """The library of the other one may be loaded, and is not asked."""

    async def main():
        called = anyio.Event()
        call_soon = call_soon_function()
        thread = threading.Thread(target=lambda: results.append(call_soon(called.set)))
        thread.start()
        await called.wait()
        thread.join()
        return call_soon

    results = []
    call_soon = anyio.run(main, backend=backend)
    assert results == [True]
    assert not call_soon(lambda: results.append("late")), "the loop has ended"
    assert results == [True]


def test_a_forked_child_does_not_reach_the_loop_of_its_parent(monkeypatch):
    calls = []

    async def main():
        call_soon = call_soon_function()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert not call_soon(lambda: calls.append("child"))
        monkeypatch.undo()
        assert call_soon(lambda: calls.append("here"))
        await trio.lowlevel.checkpoint()

    trio.run(main)
    assert calls == ["here"]


def test_there_has_to_be_a_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        call_soon_function()
    assert asyncio.get_event_loop_policy() is not None
