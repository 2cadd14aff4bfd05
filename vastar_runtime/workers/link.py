"""The worker's side: what it says to the supervisor, and how it asks for its siblings' accounts.

A task reads, a task writes, and questions wait for their answers with a time: a supervisor that
hangs costs who asks two seconds, and the calls of others nothing. Its end of stream means that
nobody watches over this worker any more: it drains and ends.
"""

import socket
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
import trio

from vastar_runtime.config import ConfigError, RuntimeConfig
from vastar_runtime.logs import get_logger
from vastar_runtime.workers.counts import Counts, Turn
from vastar_runtime.workers.frames import (
    DRAIN,
    HEAD,
    METRICS,
    RELOAD,
    STATUS,
    Answer,
    Ask,
    Begin,
    Cut,
    Drain,
    FrameError,
    FrameReader,
    Go,
    Message,
    Ready,
    Refused,
    decode,
    encode,
)
from vastar_runtime.workers.place import WorkerPlace
from vastar_runtime.workers.team import TeamError

__all__ = ["Host", "Link", "receive_begin", "refuse"]

_READ_BYTES: Final = 65_536
_MAX_TO_SEND: Final = 256
_WITHIN_S: Final[Mapping[str, float]] = {STATUS: 2.0, METRICS: 4.0, RELOAD: 4.5, DRAIN: 2.0}
"""A little more than the supervisor gives the others."""

_log = get_logger(__name__)


class Host(Protocol):
    """The runtime of this worker, as the supervisor needs it."""

    def account(self, *, verbose: bool) -> dict[str, Any]:
        """What `status` tells of it."""

    async def metrics(self) -> bytes:
        """The text for Prometheus, of this worker alone."""

    def check(self, config: RuntimeConfig) -> None:
        """Raises ConfigError when it cannot serve with this."""

    def take_up(self, config: RuntimeConfig) -> Mapping[str, Any]:
        """Serve with this from now on; what changed. Raises ConfigError, and then nothing did."""

    def drain(self) -> None:
        """Refuse new calls, finish the others, end."""

    def cut(self) -> None:
        """End now."""


def receive_begin(sock: socket.socket) -> RuntimeConfig:
    """What to serve with: the supervisor's first word, waited for before any event loop runs.

    Raises:
        FrameError: the supervisor is gone, or said something else.
    """
    (length,) = HEAD.unpack(_receive_exactly(sock, HEAD.size))
    match decode(_receive_exactly(sock, length)):
        case Begin(config):
            return config
        case other:
            raise FrameError(f"{type(other).__name__} is no beginning")


def refuse(sock: socket.socket, words: str) -> None:
    """Tell the supervisor why this worker cannot serve; before the event loop runs."""
    sock.sendall(encode(Refused(words)))


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    held = bytearray()
    while len(held) < count:
        data = sock.recv(count - len(held))
        if not data:
            raise FrameError("the supervisor is gone")
        held += data
    return bytes(held)


class Link:
    """The conversation of one worker with its supervisor.

    Args:
        place: who this worker is.
        stream: to the supervisor, with its first word read.
        counts: the page of all connections.

    Attributes:
        turn: whose turn it is to accept.
    """

    def __init__(self, place: WorkerPlace, stream: trio.abc.Stream, counts: Counts) -> None:
        self.place = place
        self.turn: Turn = counts.turn(place.index)
        self.turn.close()
        self._counts = counts
        self._stream = stream
        self._reader = FrameReader()
        self._to_send, self._sending = trio.open_memory_channel[bytes](_MAX_TO_SEND)
        self._answers: dict[int, list[Answer]] = {}
        self._woken: dict[int, trio.Event] = {}
        self._last = 0
        self._go = trio.Event()
        self._scrape = trio.Lock()
        self._scrapes_begun = 0
        self._scraped = 0
        self._text = ""

    # --- the conversation ---------------------------------------------------------------------

    async def run(self, host: Host) -> None:
        """Hear the supervisor until it is gone, and then have the host drain."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            try:
                await self._read(host, nursery)
            except (FrameError, trio.BrokenResourceError) as error:
                _log.error("the supervisor cannot be understood", reason=str(error))
            _log.warning("the supervisor is gone: this worker finishes its calls and ends")
            host.drain()
            self._go.set()
            nursery.cancel_scope.cancel()

    async def begin(self) -> None:
        """Say that this worker is ready, and return when callers may be accepted."""
        # Before the others are let go: whoever hears of it first is not to take all callers.
        self.turn = self._counts.turn(self.place.index)
        self._put(Ready())
        await self._go.wait()

    async def _read(self, host: Host, nursery: trio.Nursery) -> None:
        while data := await self._stream.receive_some(_READ_BYTES):
            for message in self._reader.feed(bytes(data)):
                match message:
                    case Go():
                        self._go.set()
                    case Drain():
                        host.drain()
                        self._go.set()
                    case Cut():
                        host.cut()
                    case Answer(number):
                        if number in self._woken:
                            self._answers[number] = [message]
                            self._woken[number].set()
                    case Ask(number, "metrics"):
                        nursery.start_soon(self._tell_metrics, host, number)
                    case Ask(number, what, about):
                        self._put(_answer(host, number, what, about))

    async def _write(self) -> None:
        async for frame in self._sending:
            try:
                await self._stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader sees the end too

    def _put(self, message: Message) -> bool:
        """Send soon; whether there was room, and the message fits."""
        try:
            self._to_send.send_nowait(encode(message))
        except (trio.WouldBlock, trio.BrokenResourceError, FrameError):
            return False
        return True

    async def _tell_metrics(self, host: Host, number: int) -> None:
        try:
            self._put(Answer(number, (await host.metrics()).decode()))
        except Exception:  # noqa: BLE001 - as in `_answer`
            _log.exception("the metrics could not be rendered")
            self._put(Answer(number, fault="internal error"))

    async def _ask(self, what: str, about: Any = None) -> Any:
        """What the supervisor answers.

        Raises:
            TeamError: it refuses, or does not answer in time.
        """
        self._last += 1
        number = self._last
        woken = self._woken[number] = trio.Event()
        try:
            if self._put(Ask(number, what, about)):
                with trio.move_on_after(_WITHIN_S[what]):
                    await woken.wait()
            answers = self._answers.pop(number, None)
        finally:
            del self._woken[number]
            self._answers.pop(number, None)
        if answers is None:
            raise TeamError("the supervisor of this runtime does not answer")
        if answers[0].fault is not None:
            raise TeamError(answers[0].fault)
        return answers[0].value

    # --- what all workers tell together, for the control connector and for scrapers ------------

    async def status(self, *, verbose: bool) -> dict[str, Any]:
        """The account of all workers, as the supervisor adds it up.

        Raises:
            TeamError: there is none.
        """
        told = await self._ask(STATUS, verbose)
        if not isinstance(told, dict):
            raise TeamError("the supervisor tells no account")
        return told

    async def metrics(self) -> bytes:
        """The text of all workers, from a question asked after the call of this.

        Those who ask at the same time share a question.

        Raises:
            TeamError: there is none.
        """
        wanted = self._scrapes_begun + 1
        async with self._scrape:
            if self._scraped < wanted:
                self._scrapes_begun += 1
                number = self._scrapes_begun
                self._text = str(await self._ask(METRICS))
                self._scraped = number
            return self._text.encode()

    async def reload(self) -> dict[str, Any]:
        """Have all workers take up the configuration anew; what changed.

        Raises:
            TeamError: it is refused, and by whom and why.
        """
        return dict(await self._ask(RELOAD))

    async def drain(self) -> dict[str, Any]:
        """Have all workers drain.

        Raises:
            TeamError: the supervisor does not answer.
        """
        return dict(await self._ask(DRAIN))


def _answer(host: Host, number: int, what: str, about: Any) -> Answer:
    try:
        match what:
            case "status":
                return Answer(number, host.account(verbose=bool(about)))
            case "check":
                host.check(msgspec.convert(about, RuntimeConfig))
                return Answer(number)
            case "take_up":
                return Answer(number, host.take_up(msgspec.convert(about, RuntimeConfig)))
            case _:
                return Answer(number, fault=f"nobody knows what {what} is")
    except (ConfigError, msgspec.ValidationError) as error:
        return Answer(number, fault=str(error))
    except Exception as error:  # noqa: BLE001 - a bug in an account must not end the calls
        _log.exception("internal error in an answer to the supervisor", what=what)
        return Answer(number, fault=f"internal error ({type(error).__name__})")
