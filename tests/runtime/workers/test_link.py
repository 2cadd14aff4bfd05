"""A worker's conversation with a supervisor that says what a test wants, in virtual time."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from vastar_runtime.config import ConfigError, Problem, RuntimeConfig
from vastar_runtime.workers.counts import Counts, page_bytes
from vastar_runtime.workers.frames import (
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
    encode,
)
from vastar_runtime.workers.link import Link, receive_begin, refuse
from vastar_runtime.workers.place import WorkerPlace
from vastar_runtime.workers.spawning import shared_file
from vastar_runtime.workers.team import TeamError


@attrs.define
class Host:
    """The runtime of a worker."""

    heard: list[str] = attrs.field(factory=list)
    fault: Exception | None = None

    def account(self, *, verbose: bool) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return {"verbose": verbose}

    async def metrics(self) -> bytes:
        await trio.sleep(1)
        if self.fault is not None:
            raise self.fault
        return b"vastar_up 1\n"

    def check(self, config: RuntimeConfig) -> None:
        self.heard.append(f"check {config.http.default_timeout_s}")
        if self.fault is not None:
            raise self.fault

    def take_up(self, config: RuntimeConfig) -> dict[str, Any]:
        self.heard.append(f"take_up {config.http.default_timeout_s}")
        return {"applied": []}

    def drain(self) -> None:
        self.heard.append("drain")

    def cut(self) -> None:
        self.heard.append("cut")


@attrs.define(eq=False)
class Supervisor:
    """The other end."""

    stream: trio.abc.Stream
    link: Link
    host: Host
    counts: Counts
    reader: FrameReader = attrs.field(factory=FrameReader)
    held: list[Message] = attrs.field(factory=list)

    async def say(self, *messages: Message) -> None:
        await self.stream.send_all(b"".join(map(encode, messages)))
        await wait_all_tasks_blocked()

    async def hear(self) -> Message:
        while not self.held:
            self.held += self.reader.feed(bytes(await self.stream.receive_some(65_536)))
        return self.held.pop(0)

    async def answer(self, value: Any = None, fault: str | None = None) -> Ask:
        """Answer the next question."""
        asked = await self.hear()
        assert isinstance(asked, Ask)
        await self.say(Answer(asked.number, value, fault))
        return asked


@asynccontextmanager
async def conversation(
    host: Host | None = None, *, is_read: bool = True
) -> AsyncIterator[Supervisor]:
    """A worker and its supervisor, who reads nothing unless `is_read`."""
    fd = shared_file("test", page_bytes(2))
    counts = Counts(fd, 2)
    ours, theirs = memory_stream_pair() if is_read else lockstep_stream_pair()
    link = Link(WorkerPlace(1, 2, 3), theirs, counts)
    supervisor = Supervisor(ours, link, host or Host(), counts)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, supervisor.host)
            yield supervisor
            nursery.cancel_scope.cancel()
    finally:
        counts.close()
        os.close(fd)


async def test_it_accepts_when_it_is_told_to(autojump_clock):
    async with conversation() as supervisor, trio.open_nursery() as nursery:
        assert not supervisor.link.turn.is_open
        assert supervisor.counts.all() == [None, None]
        nursery.start_soon(supervisor.link.begin)
        assert await supervisor.hear() == Ready()
        await wait_all_tasks_blocked()
        # It counts from here on, for those that are told earlier that all are ready.
        assert supervisor.counts.all() == [None, 0]
        assert nursery.child_tasks
        await supervisor.say(Go())
        assert not nursery.child_tasks
        assert supervisor.link.turn.is_open


async def test_orders_reach_the_host(autojump_clock):
    async with conversation() as supervisor:
        await supervisor.say(Drain(), Cut())
        assert supervisor.host.heard == ["drain", "cut"]
        # Whoever waits to begin goes on, and finds that there is nothing to begin.
        await supervisor.link.begin()


async def test_its_account_is_told(autojump_clock):
    async with conversation() as supervisor:
        await supervisor.say(
            Ask(1, "metrics"),
            Ask(2, "status", True),
            Ask(3, "check", RuntimeConfig()),
            Ask(4, "take_up", RuntimeConfig()),
            Ask(5, "dance"),
            Ask(6, "check", {"nonsense": 1}),
        )
        answers = [await supervisor.hear() for _ in range(6)]
    told = {each.number: each for each in answers if isinstance(each, Answer)}
    assert told[1].value == "vastar_up 1\n"
    assert told[2].value == {"verbose": True}
    assert told[3] == Answer(3)
    assert told[4].value == {"applied": []}
    assert told[5].fault == "nobody knows what dance is"
    assert "nonsense" in str(told[6].fault)
    assert supervisor.host.heard == ["check 30.0", "take_up 30.0"]


async def test_a_configuration_that_it_cannot_use_is_refused_in_words(autojump_clock):
    fault = ConfigError([Problem("x.pem", "tls", "is no certificate", "give one")])
    async with conversation(Host(fault=fault)) as supervisor:
        await supervisor.say(Ask(1, "check", RuntimeConfig()))
        answer = await supervisor.hear()
    assert isinstance(answer, Answer)
    assert "is no certificate" in str(answer.fault)


async def test_a_bug_in_an_account_ends_nothing(autojump_clock):
    async with conversation(Host(fault=ZeroDivisionError("secret"))) as supervisor:
        await supervisor.say(Ask(1, "status"), Ask(2, "metrics"))
        told = {
            answer.number: answer.fault
            for answer in [await supervisor.hear() for _ in range(2)]
            if isinstance(answer, Answer)
        }
        assert told == {1: "internal error (ZeroDivisionError)", 2: "internal error"}
        await supervisor.say(Drain())
        assert supervisor.host.heard == ["drain"]


async def test_the_team_tells_its_account_reloads_and_drains(autojump_clock):
    async with conversation() as supervisor:
        link, results = supervisor.link, list[Any]()

        async def ask() -> None:
            results.append(await link.status(verbose=True))
            results.append(await link.reload())
            results.append(await link.drain())
            results.append(await link.metrics())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            asked = [
                await supervisor.answer({"pid": 1}),
                await supervisor.answer({"applied": []}),
                await supervisor.answer({"draining": True}),
                await supervisor.answer("text"),
            ]
    assert [(each.what, each.about) for each in asked] == [
        ("status", True),
        ("reload", None),
        ("drain", None),
        ("metrics", None),
    ]
    assert results == [{"pid": 1}, {"applied": []}, {"draining": True}, b"text"]


async def test_a_refusal_and_silence_are_errors(autojump_clock):
    async with conversation() as supervisor:
        link = supervisor.link
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.answer, None, "worker 1 says no")
            with pytest.raises(TeamError, match="worker 1 says no"):
                await link.reload()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.answer, "no account")
            with pytest.raises(TeamError, match="tells no account"):
                await link.status(verbose=False)
        began_s = trio.current_time()
        with pytest.raises(TeamError, match="does not answer"):
            await link.status(verbose=False)
        assert trio.current_time() - began_s == 2
        late = await supervisor.hear()
        assert isinstance(late, Ask)
        await supervisor.say(Answer(late.number, {"too": "late"}))
        assert not link._answers
        assert not link._woken


async def test_scrapers_that_ask_together_share_a_question(autojump_clock):
    async with conversation() as supervisor:
        found: list[bytes] = []

        async def scrape() -> None:
            found.append(await supervisor.link.metrics())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scrape)
            await wait_all_tasks_blocked()
            for _ in range(5):
                nursery.start_soon(scrape)
            await wait_all_tasks_blocked()
            await supervisor.answer("first")
            await supervisor.answer("second")
    # Who asked while the first was under way got a text that was made after.
    assert found == [b"first", *[b"second"] * 5]


async def test_a_question_that_failed_is_asked_again_by_the_next(autojump_clock):
    async with conversation() as supervisor:
        with pytest.raises(TeamError):
            await supervisor.link.metrics()
        await supervisor.hear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.answer, "text")
            assert await supervisor.link.metrics() == b"text"


async def test_without_a_supervisor_it_drains(autojump_clock):
    async with conversation() as supervisor:
        await supervisor.stream.aclose()
        await wait_all_tasks_blocked()
        assert supervisor.host.heard == ["drain"]
        await supervisor.link.begin()
        with pytest.raises(TeamError, match="does not answer"):
            await supervisor.link.status(verbose=False)


async def test_one_that_speaks_nonsense_is_no_supervisor(autojump_clock):
    async with conversation() as supervisor:
        await supervisor.stream.send_all(b"\xff" * 8)
        await wait_all_tasks_blocked()
        assert supervisor.host.heard == ["drain"]


async def test_a_supervisor_that_reads_nothing_costs_a_bounded_memory(autojump_clock):
    async with conversation(is_read=False) as supervisor:
        refused = 0
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                nonlocal refused
                with pytest.raises(TeamError):
                    await supervisor.link.status(verbose=False)
                refused += 1

            for _ in range(1000):
                nursery.start_soon(ask)
        assert refused == 1000
        assert supervisor.link._to_send.statistics().current_buffer_used in {255, 256}


def test_the_first_word_is_the_configuration():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode(Begin(RuntimeConfig())) + encode(Drain()))
        assert receive_begin(theirs) == RuntimeConfig()
        # What comes after it is left for the event loop.
        assert FrameReader().feed(theirs.recv(100)) == [Drain()]
        refuse(theirs, "no")
        assert FrameReader().feed(ours.recv(100)) == [Refused("no")]


def test_another_first_word_and_none_are_errors():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode(Go()))
        with pytest.raises(FrameError, match="Go is no beginning"):
            receive_begin(theirs)
        ours.close()
        with pytest.raises(FrameError, match="gone"):
            receive_begin(theirs)
