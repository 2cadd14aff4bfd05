"""The network behind the runtime: hosts whose moods change, over tapped connections.

`Upstreams` is a `Network`. Each host has one address and one mood; what a request meets is drawn
when it has arrived. The body of every answer tells which call and which exchange it is for, so that
an answer that went astray is seen.
"""

import errno
import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import msgspec
import trio

from tools.simulate._event_log import EventLog
from tools.simulate._line import Head, Line
from tools.simulate._moods import WELL, Connect, Draw, Ending, Mood, Reaction
from tools.simulate._records import CallRecord, Exchange, Records
from vastar_runtime.transport import Address, Channel

__all__ = ["ATTEMPT_HEADER", "Host", "Upstreams", "path_of"]

ATTEMPT_HEADER: Final = b"x-sim-attempt"
_LOOKUP_S: Final = 0.002
_REFUSE_S: Final = 0.001
_OK: Final = 200
_NO_CONTENT: Final = 204


def path_of(call: int, hop: int) -> str:
    """The path of a call's request after so many redirects."""
    return f"/{call}/{hop}"


@attrs.define(eq=False)
class Host:
    """One upstream.

    Attributes:
        origin: as URLs and policies name it.
        taken_s, taken: the second in which it counts requests, and how many there were.
    """

    name: str
    origin: str
    ip: str
    mood: Mood = WELL
    since_s: float = 0.0
    taken_s: int = -1
    taken: int = 0

    def mood_at(self, now_s: float) -> Mood:
        """How it is now: flapping ones turn by the clock."""
        period_s = self.mood.flaps_every_s
        if period_s and int((now_s - self.since_s) / period_s) % 2:
            return WELL
        return self.mood

    def is_over_limit(self, now_s: float) -> bool:
        """Count a request; whether it is one too many in this second."""
        second = int(now_s)
        if second != self.taken_s:
            self.taken_s, self.taken = second, 0
        self.taken += 1
        return bool(self.mood.limit) and self.taken > self.mood.limit


class Upstreams:
    """All hosts, as a `Network`.

    Args:
        names: of the hosts.
        nursery: where they work.
        chance: what they decide by.
        wall_s: the wall clock.

    Attributes:
        hosts: by name.
        records, log: what is seen goes there.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        nursery: trio.Nursery,
        chance: random.Random,
        wall_s: Callable[[], float],
        records: Records,
        log: EventLog,
    ) -> None:
        self.hosts: Mapping[str, Host] = {
            name: Host(name, f"http://{name}", f"192.0.2.{index + 1}")
            for index, name in enumerate(names)
        }
        self._by_ip = {host.ip: host for host in self.hosts.values()}
        self._origins = tuple(host.origin for host in self.hosts.values())
        self._nursery = nursery
        self._chance = chance
        self._wall_s = wall_s
        self.records = records
        self.log = log

    def turn(self, host: Host, mood: Mood) -> None:
        """Put a host into another mood; connections and requests under way go on."""
        host.mood, host.since_s = mood, trio.current_time()
        self.log.add("mood", host=host.name, mood=mood.name)

    def crash(self, host: Host) -> None:
        """Reset every connection of a host."""
        lines = [line for line in self.records.lines if line.origin == host.origin]
        for line in lines:
            if not line.far.closed:
                line.far.reset()
                line.scope.cancel()
        self.log.add("crash", host=host.name)

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:
        """See `Network.resolve`."""
        found = self.hosts[host]
        self.log.add("lookup", host=host, tenant=tenant)
        await trio.sleep(_LOOKUP_S)
        if found.mood_at(trio.current_time()).connect is Connect.NO_SUCH_NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [Address(socket.AF_INET, (found.ip, port))]

    async def connect(self, address: Address) -> Channel:
        """See `Network.connect`."""
        host = self._by_ip[address.ip]
        mood = host.mood_at(trio.current_time())
        if mood.connect is Connect.HANGS:
            await trio.sleep_forever()
        if mood.connect is Connect.REFUSED:
            await trio.sleep(_REFUSE_S)
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        await trio.sleep(mood.connect_s)
        line = Line(len(self.records.lines) + 1, host.origin, self._begin)
        self.records.lines.append(line)
        self.log.add("connected", host=host.name, line=line.number)
        self._nursery.start_soon(self._serve, host, line)
        return line

    def _begin(self, line: Line, head: Head) -> Exchange:
        """An exchange begins: its head has just left the runtime."""
        number = int(head.headers[ATTEMPT_HEADER.decode()])
        attempt = self.records.attempts[number - 1]
        exchange = Exchange(len(self.records.exchanges) + 1, attempt, line, trio.current_time())
        self.records.exchange_begins(exchange)
        self.log.add(
            "arrived",
            exchange=exchange.number,
            call=attempt.call.number,
            attempt=number,
            line=line.number,
            method=head.method,
            target=line.origin + head.target,
        )
        return exchange

    async def _serve(self, host: Host, line: Line) -> None:
        try:
            with line.scope:
                while (exchange := await _next(line)) is not None:
                    if not await self._react(host, line, exchange):
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the runtime has left
        finally:
            line.far.abort()

    async def _react(self, host: Host, line: Line, exchange: Exchange) -> bool:
        """Do something about a request; whether the next one is to be read."""
        reaction = exchange.reaction = self._draw(host)
        self.log.add(
            "reacts",
            exchange=exchange.number,
            with_=reaction.name,
            status=reaction.status,
            headers=reaction.headers or None,
        )
        await trio.sleep(reaction.after_s)
        if reaction.raw:
            await line.far.send_buffers((reaction.raw,))
        if reaction.status:
            await self._answer(line, exchange, reaction)
        if reaction.ending is Ending.SILENCE:
            await trio.sleep_forever()
        exchange.is_whole = True
        self.log.add("done", exchange=exchange.number, ending=reaction.ending.name)
        if reaction.ending is Ending.RESET:
            await trio.sleep(0.01)  # what was sent is read before the reset
            line.far.reset()
        return reaction.ending is Ending.KEEP

    def _draw(self, host: Host) -> Reaction:
        now_s = trio.current_time()
        draw = Draw(self._chance, self._wall_s(), self._origins)
        mood = host.mood_at(now_s)
        return mood.throttle(draw) if host.is_over_limit(now_s) else mood.draw(draw)

    async def _answer(self, line: Line, exchange: Exchange, reaction: Reaction) -> None:
        body = _body(exchange, reaction, self._chance)
        call = exchange.attempt.call
        headers = [*reaction.headers]
        if reaction.leads_to:
            path = path_of(call.number, exchange.attempt.hop + 1)
            headers.append(("location", reaction.leads_to + path))
        if reaction.ending is Ending.CLOSE:
            headers.append(("connection", "close"))
        has_body = reaction.status != _NO_CONTENT and exchange.attempt.method != "HEAD"
        if has_body or exchange.attempt.method == "HEAD":
            headers.append(("content-length", str(len(body))))
        lines = [f"HTTP/1.1 {reaction.status} X", *(f"{name}: {value}" for name, value in headers)]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        exchange.answer_bytes = len(head) + (len(body) if has_body else 0)
        await line.far.send_buffers((head,))
        exchange.headed_at_s = trio.current_time()
        exchange.asks_s = reaction.asks_s
        if reaction.asks_until_s is not None and reaction.asks_until_s > self._wall_s():
            exchange.asks_s = reaction.asks_until_s - self._wall_s()
        if not has_body:
            exchange.is_whole = True
            return
        body = body[: int(len(body) * reaction.sent_ratio)]
        size = -(-len(body) // reaction.pieces) or 1
        for start in range(0, len(body), size):
            await trio.sleep(reaction.gap_s)
            await line.far.send_buffers((body[start : start + size],))
        exchange.is_whole = reaction.sent_ratio == 1


async def _next(line: Line) -> Exchange | None:
    """The next request, whole; None when the runtime has closed instead."""
    while not line.requests or not line.requests[0].is_sent:
        if not await line.far.receive_some():
            return None
    return line.requests.popleft()


def _body(exchange: Exchange, reaction: Reaction, chance: random.Random) -> bytes:
    call: CallRecord = exchange.attempt.call
    said: dict[str, object] = {"call": call.number, "exchange": exchange.number}
    if call.tokens and reaction.status == _OK:
        used = chance.randrange(1, call.tokens + 1)
        exchange.used_tokens = used
        said["usage"] = {"prompt_tokens": used // 3, "completion_tokens": used - used // 3}
    said["pad"] = "x" * reaction.body_bytes
    return msgspec.json.encode(said)
