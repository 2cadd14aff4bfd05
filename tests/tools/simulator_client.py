"""A client for the tests of the simulator: h11, the oracle, over any Trio stream."""

import json
from typing import Any

import attrs
import h11
import trio
import trio.testing

from tools.llm_simulator import Simulator

CHAT = "/v1/chat/completions"


def asking(*turns: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat request; user and assistant take turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return {"model": "gpt-4o-mini", "messages": messages, **fields}


@attrs.define
class Answer:
    """An HTTP answer. `parts` are the chunks of the body, each with the time of its arrival."""

    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    head_at_s: float = 0.0
    parts: list[tuple[float, bytes]] = attrs.field(factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.parts)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event: JSON, or the text `[DONE]`."""
        blocks = self.body.decode().split("\n\n")
        assert blocks[-1] == "", "the last event has no blank line behind it"
        texts = [block.removeprefix("data: ") for block in blocks[:-1]]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    @property
    def text(self) -> str:
        """What the events of a chat say."""
        chunks = [event for event in self.events if event != "[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        return "".join(delta.get("content", "") for delta in deltas)


class Client:
    """One connection to the simulator."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._wire = h11.Connection(h11.CLIENT)

    async def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request; a body that is no bytes is sent as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else _json(body)
        fields = {"host": "sim", **({"content-length": str(len(data))} if data else {})}
        head = h11.Request(
            method=method, target=path, headers=list({**fields, **(headers or {})}.items())
        )
        frames = [self._wire.send(head)]
        frames += [self._wire.send(h11.Data(data=data))] if data else []
        frames.append(self._wire.send(h11.EndOfMessage()))
        await self.stream.send_all(b"".join(frame or b"" for frame in frames))

    async def receive(self, *, parts: int | None = None) -> Answer:
        """The answer, whole; or no more than so many parts of its body.

        A connection that ends before its time gives an answer that is not `complete`.
        """
        answer = Answer()
        fresh = True
        while parts is None or len(answer.parts) < parts:
            try:
                event = self._wire.next_event()
            except h11.RemoteProtocolError:
                return answer
            if event is h11.NEED_DATA:
                self._wire.receive_data(await self.stream.receive_some(65_536))
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {k.decode(): v.decode() for k, v in event.headers}
                answer.head_at_s = trio.current_time()
            elif isinstance(event, h11.Data):
                if fresh or not answer.parts:
                    answer.parts.append((trio.current_time(), bytes(event.data)))
                else:
                    at_s, before = answer.parts[-1]
                    answer.parts[-1] = (at_s, before + event.data)
                fresh = event.chunk_end
            elif isinstance(event, h11.EndOfMessage):
                answer.complete = True
                if self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE:
                    self._wire.start_next_cycle()
                return answer
            elif isinstance(event, h11.ConnectionClosed):
                return answer
        return answer

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request and receive its whole answer."""
        await self.send(method, path, body, headers)
        return await self.receive()

    async def leave(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self.stream)


def connect(nursery: trio.Nursery, simulator: Simulator) -> Client:
    """A connection in memory, served in the nursery."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(simulator.serve_stream, theirs)
    return Client(ours)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
