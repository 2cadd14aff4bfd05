"""The example through a real runtime to the simulator: three programs, as a user starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tools.llm_simulator import Knobs, Simulator

ROOT = Path(__file__).parents[2]
SERVE = (
    "import sys; from vastar_runtime.config import RuntimeConfig, ServerConfig;"
    "from vastar_runtime.server import run;"
    "run(RuntimeConfig(server=ServerConfig(socket_path=sys.argv[1])))"
)


def environment() -> dict[str, str]:
    """Ours without what would lead the programs elsewhere."""
    foreign = ("VASTAR_", "OPENAI_", "NOTIFY_SOCKET")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return {k: v for k, v in kept.items() if k.upper() not in proxies}


@asynccontextmanager
async def runtime(path: Path) -> AsyncIterator[None]:
    """A runtime process that listens at `path`; it must end well when told to."""
    start = partial(trio.run_process, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            start, [sys.executable, "-u", "-c", SERVE, str(path)]
        )
        said = b""
        while b"ready on" not in said:
            said += await process.stdout.receive_some() or b"ended: not ready on"
        nursery.start_soon(read_on, process)
        yield
        process.send_signal(signal.SIGTERM)


async def read_on(process: trio.Process) -> None:
    """Keep its log from filling the pipe."""
    async for _ in process.stdout:
        pass


def example(path: Path, simulator: Simulator, *flags: str) -> list[str]:
    address = ("--socket", str(path), "--base-url", simulator.url)
    return [sys.executable, "-m", "tools.openai_connector", *address, *flags]


async def run_example(path: Path, simulator: Simulator, *flags: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    done = await trio.run_process(
        example(path, simulator, *flags),
        cwd=ROOT,
        env={**environment(), "PYTHONIOENCODING": "utf-8"},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_all_scenes(tmp_path: Path) -> None:
    """Every scene prints its answers, and the conversation remembers its turns."""
    path = tmp_path / "r.sock"
    async with Simulator(Knobs(seed=1)).running() as simulator, runtime(path):
        code, out, err = await run_example(path, simulator)
    assert (code, err) == (0, "")
    assert "The connection works" in out
    assert [line for line in out.splitlines() if line.startswith("---")] == [
        "--- connection",
        "--- streaming",
        "--- conversation",
    ]
    assert "turn 3 of our talk" in out
    assert simulator.stats.streams_finished == 4
    assert simulator.stats.cut_by_client == 0


async def test_errors_of_the_api_and_of_the_way_to_it(tmp_path: Path) -> None:
    """A refused key, a broken stream and a simulator that is not there: a sentence each."""
    path = tmp_path / "r.sock"
    async with runtime(path):
        async with Simulator(Knobs(status=401)).running() as simulator:
            refused = await run_example(path, simulator, "--scene", "streaming")
        async with Simulator(Knobs(cut_after_events=5)).running() as simulator:
            cut = await run_example(path, simulator, "--scene", "streaming")
        absent = await run_example(path, simulator, "--scene", "connection")
    assert [code for code, _, _ in (refused, cut, absent)] == [1, 1, 1]
    assert "refused the key (401)" in refused[2]
    assert cut[2].count("\n") == 1
    assert "Start it with `python -m tools.llm_simulator`" in absent[2]


async def test_tokens_appear_while_the_answer_is_still_being_made(tmp_path: Path) -> None:
    """The simulator stops in the middle: what it has said is on the screen."""
    path = tmp_path / "r.sock"
    async with (
        Simulator(Knobs(hang_after_events=5)).running() as simulator,
        runtime(path),
        trio.open_nursery() as nursery,
    ):
        start = partial(trio.run_process, cwd=ROOT, env=environment(), check=False)
        command = example(path, simulator, "--scene", "streaming")
        process: trio.Process = await nursery.start(partial(start, command, stdout=subprocess.PIPE))
        shown = b""
        while len(shown.partition(b"Assistant: ")[2]) < 10:
            shown += await process.stdout.receive_some()
        assert simulator.stats.active_streams == 1
        process.send_signal(signal.SIGINT)
        await simulator.wait_for(lambda stats: stats.active_streams == 0)
    assert process.returncode == 130


async def test_killing_the_example_ends_the_stream_upstream(tmp_path: Path) -> None:
    """The simulator sees its client leave, though an hour of events is still to come."""
    path = tmp_path / "r.sock"
    async with (
        Simulator(Knobs(event_delay_s=60)).running() as simulator,
        runtime(path),
        trio.open_nursery() as nursery,
    ):
        start = partial(trio.run_process, cwd=ROOT, env=environment(), check=False)
        command = example(path, simulator, "--scene", "streaming")
        process: trio.Process = await nursery.start(
            partial(start, command, stdout=subprocess.DEVNULL)
        )
        await simulator.wait_for(lambda stats: stats.events_sent > 0)
        assert simulator.stats.active_streams == 1
        process.kill()
        await simulator.wait_for(lambda stats: stats.active_streams == 0)
    assert simulator.stats.streams_cut_by_client == 1
