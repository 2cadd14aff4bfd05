"""The client processes as the soak holds them: started, told to rest and go, killed, replaced.

Each has a task here that reads its journal into the ledger, to the last line also of one that was
killed. One that ends by itself is a fault.
"""

import math
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from tools.soak._ledger import Ledger
from tools.soak._runtime import ROOT, environment
from tools.soak._words import Began, Ended, Journal, Rested, Spec, Wrong

__all__ = ["Client", "Clients"]

_RECEIVE_BYTES: Final = 65_536
_REST_S: Final = 60.0
_END_S: Final = 20.0

_decoder: Final = msgspec.json.Decoder(Journal)


@attrs.define(eq=False)
class Client:
    """One process.

    Attributes:
        spec: what it was told.
        process: of it.
        rested: set while it rests.
        read: set once its journal has ended.
        waits_since_s: the runtime came back then, and no answer has come since; infinite else.
        is_expected_to_end: it was killed, or told to end.
    """

    spec: Spec
    process: trio.Process
    rested: trio.Event = attrs.field(factory=trio.Event)
    read: trio.Event = attrs.field(factory=trio.Event)
    waits_since_s: float = math.inf
    is_expected_to_end: bool = False


@attrs.define(eq=False)
class Clients:
    """All of them.

    Args:
        ledger: told what they say.
        log: file for what they print on standard error.

    Attributes:
        living: by name.
        recoveries_s: how long behind the return of the runtime each first answer came.
        kills: so far.
    """

    ledger: Ledger
    log: Path
    living: dict[str, Client] = attrs.field(factory=dict)
    recoveries_s: list[float] = attrs.field(factory=list)
    kills: int = 0

    async def start(self, spec: Spec, nursery: trio.Nursery) -> None:
        """Start one, and have it call."""
        with self.log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                [
                    sys.executable,
                    "-m",
                    "tools.soak._client",
                    msgspec.json.encode(spec).decode(),
                ],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        client = self.living[spec.name] = Client(spec, process)
        nursery.start_soon(self._read, client)
        await self._tell(client, b"go\n")

    async def _read(self, client: Client) -> None:
        """Its journal, to the end."""
        assert client.process.stdout is not None, "it was started with a pipe"
        unread = b""
        async for data in client.process.stdout:
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self._take(client, _decoder.decode(line))
        code = await client.process.wait()
        await client.process.stdout.aclose()
        if client.process.stdin is not None:
            await client.process.stdin.aclose()
        self.living.pop(client.spec.name, None)
        if not client.is_expected_to_end:
            self.ledger.wrong(f"client {client.spec.name} ended by itself with {code}: {self.log}")
            self.ledger.killed(client.spec.name)
        client.rested.set()
        client.read.set()

    def _take(self, client: Client, said: Journal) -> None:
        if isinstance(said, Began):
            self.ledger.began(said)
        elif isinstance(said, Ended):
            self.ledger.ended(said)
            if said.how == "answer" and said.at_s > client.waits_since_s:
                self.recoveries_s.append(said.at_s - client.waits_since_s)
                client.waits_since_s = math.inf
        elif isinstance(said, Rested):
            client.rested.set()
        elif isinstance(said, Wrong):
            self.ledger.wrong(said.what)

    async def _tell(self, client: Client, order: bytes) -> None:
        assert client.process.stdin is not None, "it was started with a pipe"
        try:
            await client.process.stdin.send_all(order)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            client.rested.set()  # it has ended, which its reader tells

    def runtime_is_back(self, at_s: float) -> None:
        """From now on every client owes an answer."""
        for client in self.living.values():
            client.waits_since_s = min(client.waits_since_s, at_s)

    async def rest(self) -> None:
        """Return once no client has a call or a connection; those that do not rest are told."""
        resting = list(self.living.values())
        for client in resting:
            client.rested = trio.Event()
            await self._tell(client, b"rest\n")
        with trio.move_on_after(_REST_S):
            for client in resting:
                await client.rested.wait()
        for client in resting:
            if not client.rested.is_set():
                left = ", ".join(
                    f"{call.kind} {call.id}" for call in self.ledger.open_of(client.spec.name)
                )
                self.ledger.wrong(f"client {client.spec.name} has calls that do not end: {left}")

    async def go(self) -> None:
        """All call again."""
        for client in list(self.living.values()):
            await self._tell(client, b"go\n")

    async def kill(self, client: Client) -> int:
        """SIGKILL; how many calls were under way."""
        client.is_expected_to_end = True
        client.process.kill()
        await client.read.wait()
        self.kills += 1
        return self.ledger.killed(client.spec.name)

    async def end(self) -> None:
        """End all: politely, by the end of their input."""
        ending = list(self.living.values())
        for client in ending:
            client.is_expected_to_end = True
            assert client.process.stdin is not None, "it was started with a pipe"
            await client.process.stdin.aclose()
        with trio.move_on_after(_END_S):
            for client in ending:
                await client.read.wait()
        self.kill_all()

    def kill_all(self) -> None:
        """Whatever happened: none stays behind."""
        for client in self.living.values():
            client.process.kill()
