"""The open loop of a client that calls the upstream directly, with aiohttp; in its own process.

    python -m benchmarks._open_peer SPEC     (an OpenSpec as JSON; prints an OpenSample as JSON)

The same times by the same seed as `_open_loop`, a task for each call. The loop waits with `select`,
as `_open_loop` does: epoll would round the times up to milliseconds, which would count against it.
"""

import asyncio
import selectors
import sys
import time

import aiohttp
import msgspec

from benchmarks._load import WrongAnswer
from benchmarks._open_loop import DRAIN_S, OpenSample, OpenSpec, sample_of, schedule_s
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import ErrorClass

__all__ = ["Tasks"]

_OK = 200
_TIMEOUT_S = 30.0


class Tasks:
    """Begins each call at its time and notes what became of it, as `Generator` does."""

    def __init__(self, spec: OpenSpec, times_s: list[float]) -> None:
        self._spec = spec
        self._times_s = [spec.begin_at_s + at_s for at_s in times_s]
        self.waits_s = [-1.0] * len(times_s)
        self.late_s = [0.0] * len(times_s)
        self.refusals: dict[int, ErrorClass] = {}
        self.held_back = 0

    async def run(self) -> None:
        """Make all calls and wait for those that are answered soon."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            calls: list[asyncio.Task[None]] = []
            for nth, at_s in enumerate(self._times_s):
                wait_s = at_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                elif not nth % 16:
                    await asyncio.sleep(0)  # behind its times: let answers in all the same
                self.late_s[nth] = max(0.0, time.monotonic() - at_s)
                calls.append(asyncio.create_task(self._call(session, nth)))
            done, unfinished = await asyncio.wait(calls, timeout=DRAIN_S)
            for call in unfinished:
                call.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            for call in done:
                call.result()

    async def _call(self, session: aiohttp.ClientSession, nth: int) -> None:
        async with session.get(self._spec.url) as response:
            body = await response.read()
        if response.status != _OK or body != SMALL_BODY:
            raise WrongAnswer(f"status {response.status} with {len(body)} bytes")
        self.waits_s[nth] = time.monotonic() - self._times_s[nth]


def _new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def run(spec: OpenSpec) -> OpenSample:
    """Make the load of `spec`."""
    times_s = schedule_s(spec)
    load = Tasks(spec, times_s)
    time.sleep(max(0.0, spec.begin_at_s - time.monotonic()))
    began_s, own_began_s = time.monotonic(), time.process_time()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(load.run())
    cores = (time.process_time() - own_began_s) / (time.monotonic() - began_s)
    return sample_of(spec, times_s, load, cores)


def main() -> None:
    """Run the load of the first argument."""
    spec = msgspec.json.decode(sys.argv[1], type=OpenSpec)
    print(msgspec.json.encode(run(spec)).decode())


if __name__ == "__main__":
    main()
