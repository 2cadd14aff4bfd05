"""The demo: the runtime, the LLM simulator and the example connector, started, shown, stopped.

Each child is a session of its own, so that Ctrl-C reaches this process alone and the three end in
order: first the caller, then the runtime, then the upstream. Whatever ends this process (an error,
Ctrl-C, SIGTERM, SIGHUP), the children end first. Readiness is looked up, never slept for: the
runtime's socket accepts, the simulator prints its address.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

__all__ = ["DemoError", "main", "run_demo"]

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 30.0
EXAMPLE_WITHIN_S = 120.0
STOP_WITHIN_S = 15.0
POLL_S = 0.02
SIMULATOR_URL = re.compile(r"https?://[\w.\[\]:]+:\d+")
SHOWN_LOG_LINES = 40
# Slow enough to be seen, and a whole demo takes a few seconds.
PACE = ("--head-delay-s", "0.1", "--event-delay-s", "0.02")

# The demo must look the same everywhere and stay on this host: no settings of the caller's other
# runtimes, no proxies between three local processes, no key that would call the real service.
_DROPPED = re.compile(
    r"^(VASTAR_.*|OPENAI_.*|(HTTP|HTTPS|ALL|NO)_PROXY|NOTIFY_SOCKET)$", re.IGNORECASE
)


class DemoError(Exception):
    """A part of the demo did not do its part; the message says which and shows its last words."""


class _Child:
    """A process of the demo, its output in a file."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        """The end of its output, indented."""
        lines = self.output().splitlines()[-SHOWN_LOG_LINES:] or ["(it printed nothing)"]
        return "\n".join(f"    {line}" for line in lines)

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return once `is_ready()` holds.

        Raises:
            DemoError: the process ended before, or took longer than `READY_WITHIN_S`.
        """
        ends_at = time.monotonic() + READY_WITHIN_S
        while not is_ready():
            code = self.process.poll()
            if code is not None:
                raise DemoError(f"{self.name} ended with {code}:\n{self.last_words()}")
            if time.monotonic() > ends_at:
                raise DemoError(
                    f"{self.name} was not ready after {READY_WITHIN_S:g} s:\n{self.last_words()}"
                )
            time.sleep(POLL_S)

    def stop(self) -> int:
        """End it as an operator would, by SIGTERM; by SIGKILL when it does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()
        return self.process.returncode


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.match(name)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _started(name: str, arguments: list[str], folder: Path) -> Iterator[_Child]:
    """A child that is stopped at the end of the block.

    Raises:
        DemoError: the block went well and the child did not end with 0.
    """
    child = _Child(name, arguments, folder)
    try:
        yield child
    except BaseException:
        child.stop()
        raise
    code = child.stop()
    if code != 0:
        raise DemoError(f"{name} did not stop cleanly ({code}):\n{child.last_words()}")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _run_example(path: Path, base_url: str, scene: str) -> None:
    """Run the example in the foreground, its output straight to ours.

    Raises:
        DemoError: it failed, or took longer than `EXAMPLE_WITHIN_S`.
    """
    arguments = ["--socket", str(path), "--base-url", base_url, "--scene", scene]
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.openai_connector", *arguments],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(EXAMPLE_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"the example took longer than {EXAMPLE_WITHIN_S:g} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise DemoError(f"the example ended with {code}")


def run_demo(scene: str, folder: Path) -> None:
    """Start everything below `folder`, run the example's `scene`, stop everything.

    Raises:
        DemoError: a part failed; all children have ended by then.
    """
    path = folder / "runtime.sock"
    simulator_arguments = ["-m", "tools.llm_simulator", "--port", "0", *PACE]
    runtime_arguments = ["-m", "vastar_runtime", "serve", "--socket", str(path)]
    with (
        _started("the simulator", simulator_arguments, folder) as simulator,
        _started("the runtime", runtime_arguments, folder) as runtime,
    ):
        simulator.wait_until(lambda: SIMULATOR_URL.search(simulator.output()) is not None)
        runtime.wait_until(lambda: _accepts(path))
        address = SIMULATOR_URL.search(simulator.output())
        assert address is not None
        print(f"the simulator listens on {address[0]}, the runtime on a private socket", flush=True)
        try:
            _run_example(path, address[0], scene)
        except DemoError as error:
            words = f"{error}\nthe runtime said:\n{runtime.last_words()}"
            raise DemoError(words) from error
    print("the runtime and the simulator have stopped cleanly")


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 when every part did its part."""
    parser = argparse.ArgumentParser(prog="tools/dev.py demo", description="run the demo")
    parser.add_argument("--scene", default="all", help="scene of the example (all)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    # A short name: the path of a Unix socket may have about a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="vastar-demo-"))
    try:
        run_demo(options.scene, folder)
    except DemoError as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
