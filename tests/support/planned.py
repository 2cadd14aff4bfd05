"""An upstream of a fake network that answers each request by a plan of its own."""

from collections.abc import Sequence
from typing import TypeAlias

import trio

from vastar_runtime.transport.fake import Close, Reset, Send, Step, Wait
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["Plan", "Planned", "answer", "events"]

Plan: TypeAlias = Sequence[Step]


def answer(status: int = 200, body: bytes = b"", *headers: str, after_s: float = 0.0) -> list[Step]:
    """The plan to answer so, after a while."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    waits: list[Step] = [Wait(after_s)] if after_s else []
    return [*waits, Send("\r\n".join(lines).encode() + body)]


def events(*data: str) -> list[Step]:
    """The plan to answer with an event stream, which ends with its connection."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
    return [Send(head), *(Send(f"data: {each}\n\n".encode()) for each in data), Close()]


class Planned:
    """An upstream that answers each request by the next of its plans; the last one stays.

    Attributes:
        times: when each request had come, over all connections.
        heads: their request lines and headers.
    """

    def __init__(self, *plans: Plan) -> None:
        self._plans: list[Plan] = [*plans]
        self.times: list[float] = []
        self.heads: list[bytes] = []

    async def handle(self, channel: MemoryChannel) -> None:
        """Serve one connection, until its caller closes it or a plan ends with it."""
        unread = bytearray()
        while await _read_request(channel, unread, self.heads):
            plan = self._plans.pop(0) if len(self._plans) > 1 else self._plans[0]
            self.times.append(trio.current_time())
            for step in plan:
                match step:
                    case Send(data):
                        await channel.send_buffers((data,))
                    case Wait(seconds):
                        await trio.sleep(seconds)
                    case Reset():
                        channel.reset()
                        return
                    case _:
                        return


async def _read_request(channel: MemoryChannel, unread: bytearray, heads: list[bytes]) -> bool:
    while b"\r\n\r\n" not in unread:
        if not (data := await channel.receive_some()):
            return False
        unread += data
    head, _, _ = bytes(unread).partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    end = len(head) + 4 + int(fields.get(b"content-length", b"0"))
    while len(unread) < end:
        unread += await channel.receive_some()
    del unread[:end]
    heads.append(head)
    return True
