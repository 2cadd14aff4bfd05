"""The runtime under load: of the soak's own, killed and started again, or one that was there.

The configuration that is written for it shortens the drains, has a database, and has circuits close
again soon, or only observe: a fault would keep the load away for minutes. Each reload changes
something in it. A configuration of the user's is taken as it is.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tools.processes import family
from vastar_client import AsyncRuntimeClient, RuntimeConfig, VastarError

__all__ = ["Runtime", "RuntimeGoneError", "bugs_logged", "status_of", "write_config"]

ROOT: Final = Path(__file__).resolve().parents[2]
_START_S: Final = 60.0
_AGAIN_S: Final = 0.1
_DRAIN_S: Final = 2
_STATUS_S: Final = 5.0
_BUG: Final = '"internal error'
_SHOWN: Final = 300
_STOP_S: Final = 20.0
_LONGEST_DRAIN_S: Final = 660.0
_CONFIG: Final = """\
[server]
drain_s = {drain_s}
stream_drain_s = {drain_s}

[log]
level = "warning"

[http]
max_redirects = {redirects}

[origins."{steady}".breaker]
open_s = 0.5
open_max_s = 2.0

[origins."{faulty}".breaker]
mode = "observe"

[origins."{hostile}".breaker]
mode = "observe"

[tenants.acme.databases.soak]
url = "sqlite://{database}"
"""


class RuntimeGoneError(Exception):
    """The runtime did not become ready, or did not end; the message says what it said."""


def write_config(folder: Path, urls: Mapping[str, str], variant: int) -> Path:
    """The soak's own configuration; each variant differs in what a reload takes up.

    Args:
        folder: where to.
        urls: of the upstreams, by name.
        variant: any number.
    """
    path = folder / "runtime.toml"
    text = _CONFIG.format(
        drain_s=_DRAIN_S,
        redirects=10 + variant % 2,
        database=folder / "soak.db",
        **urls,
    )
    path.write_text(text, encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """Without what would send the traffic elsewhere: proxies, and settings of a runtime."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VASTAR_", "NOTIFY_")) and not name.upper().endswith("_PROXY")
    }


async def status_of(socket_path: str) -> Mapping[str, Any] | None:
    """What the runtime tells of itself, without the connection that asks; None if it does not."""
    config = RuntimeConfig(socket_path=socket_path, use_environment=False)
    try:
        async with AsyncRuntimeClient(config) as client:
            answer = await client.execute(
                "vastar", "status", {"verbose": True}, timeout_s=_STATUS_S
            )
    except VastarError:
        return None
    told: dict[str, Any] = answer.json()
    told["connections"] -= 1
    return told


@attrs.define(eq=False)
class Runtime:
    """A process that serves at `socket_path`.

    Attributes:
        socket_path: where.
        flags: of `serve`, besides.
        log: file that it logs to.
        workers: how many it has.
        starts: so far.
        pid: of the process, the supervisor where there are several.
    """

    socket_path: str
    flags: tuple[str, ...]
    log: Path
    workers: int = 1
    starts: int = 0
    pid: int = 0
    _process: trio.Process | None = None

    async def start(self) -> None:
        """Start it, and return once it is ready.

        The socket of one that was killed may have an owner for a while: orphaned workers finish.

        Raises:
            RuntimeGoneError: it is not ready in time.
        """
        with trio.move_on_after(_START_S):
            while True:
                if await self._is_ready(await self._begun()):
                    self.starts += 1
                    return
                await trio.sleep(_AGAIN_S)
        raise RuntimeGoneError(f"not ready within {_START_S:g} s; see {self.log}")

    async def _is_ready(self, process: trio.Process) -> bool:
        """Whether it says that it is; one that does not has ended behind this."""
        try:
            if b" ready on " in await _line(process):
                self._process, self.pid = process, process.pid
                return True
        finally:
            if self._process is not process:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        assert process.stdout is not None, "it was started with a pipe"
        await process.stdout.aclose()
        return False

    async def _begun(self) -> trio.Process:
        arguments = ["serve", "--socket", self.socket_path, "--log-format", "json", *self.flags]
        if self.workers > 1:
            arguments += ["--workers", str(self.workers)]
        with self.log.open("ab") as log:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "vastar_runtime", *arguments],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def has_ended(self) -> bool:
        """Whether what was started is gone, by itself or not."""
        return self._process is not None and self._process.poll() is not None

    def pids(self) -> list[int]:
        """Of all its processes."""
        return family(self.pid) if self.pid else []

    async def kill(self) -> None:
        """SIGKILL to the process that was started."""
        if self._process is not None:
            self._process.kill()
            await self._ended()

    def kill_worker(self, index: int) -> None:
        """SIGKILL to one worker."""
        workers = self.pids()[1:]
        if workers:
            os.kill(workers[index % len(workers)], signal.SIGKILL)

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    async def drain(self) -> int:
        """SIGTERM; the exit code.

        Raises:
            RuntimeGoneError: it does not end.
        """
        assert self._process is not None, "only what was started can be drained"
        self._process.terminate()
        with trio.move_on_after(_LONGEST_DRAIN_S):
            return await self._ended()
        raise RuntimeGoneError(f"did not end within {_LONGEST_DRAIN_S:g} s of SIGTERM")

    async def stop(self) -> None:
        """End it, and everything of it, whatever it does."""
        pids = self.pids()
        with trio.move_on_after(_STOP_S):
            if self._process is not None:
                await self.drain()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _ended(self) -> int:
        process = self._process
        assert process is not None, "only what runs can end"
        code = await process.wait()
        self._process, self.pid = None, 0
        if process.stdout is not None:
            await process.stdout.aclose()
        return code


def bugs_logged(log: Path) -> list[str]:
    """The lines in which the runtime tells of bugs of its own."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        found = [line for line in lines if line.startswith("Traceback") or _BUG in line]
    return [f"the runtime logged: {line[:_SHOWN].strip()}" for line in found]


async def _line(process: trio.Process) -> bytes:
    """The first line of its output; less where it ends before."""
    assert process.stdout is not None, "it was started with a pipe"
    line = b""
    while b"\n" not in line:
        data = await process.stdout.receive_some(1000)
        if not data:
            break
        line += data
    return line
