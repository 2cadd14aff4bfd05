"""The load of a `RuntimeClient`: some threads on one client, each one call at a time.

A thread cannot leave a plain call on its own; what the asynchronous client leaves has a deadline
here instead.
"""

import threading
from collections.abc import Iterator
from typing import Final

from tools.soak._async_load import options_of
from tools.soak._diary import Diary
from tools.soak._mix import Mix, Planned
from tools.soak._words import Spec
from vastar_client import ConnectorException, RuntimeClient, RuntimeConfig

__all__ = ["BlockingLoad"]

_PIECE_BYTES: Final = 16_384


class BlockingLoad:
    """Threads that call.

    Args:
        spec: of the client.
        diary: told of each call.
    """

    def __init__(self, spec: Spec, diary: Diary) -> None:
        self._diary = diary
        self._mix = Mix(spec)
        self._lock = threading.Lock()
        self._client = RuntimeClient(
            RuntimeConfig(socket_path=spec.socket_path, use_environment=False)
        )
        self._resting = threading.Event()
        self._threads: list[threading.Thread] = []
        self._at_once = spec.at_once

    def go(self) -> None:
        """Call, in new threads."""
        self._resting.clear()
        self._threads = [threading.Thread(target=self._caller) for _ in range(self._at_once)]
        for thread in self._threads:
            thread.start()

    def rest(self) -> None:
        """Return once no call is under way, and there is no connection."""
        self._resting.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._diary.rested()

    def _caller(self) -> None:
        while not self._resting.is_set():
            with self._lock:
                call = self._mix.next()
                pause_s = self._mix.pause_s()
            self._diary.began(call)
            try:
                self._make(call)
            except ConnectorException as error:
                self._diary.failed(call, error)
            self._resting.wait(pause_s)

    def _make(self, call: Planned) -> None:
        """Make a call to its end. Raises ConnectorException."""
        diary = self._diary
        if call.kind == "health":
            diary.told_health(call, self._client.health(call.timeout_s))
        elif call.kind == "sql":
            rows = self._client.query(
                "select ?, 1", [call.id], source="soak", tenant_id="acme", timeout_s=call.timeout_s
            )
            diary.told_row(call, rows[0][0])
        elif call.is_streamed:
            self._read(call)
        else:
            self._plain(call)

    def _plain(self, call: Planned) -> None:
        options = options_of(call)
        if call.leaves_after is not None:
            options["timeout_s"] = call.leaves_after + 0.001
        if call.method == "POST":
            options["body"] = _pieces(call.body) if call.is_upload else call.body
        send = self._client.post if call.method == "POST" else self._client.get
        response = send(call.url, **options)
        self._diary.answered(call, response.body, response.disposition, response.attempts)

    def _read(self, call: Planned) -> None:
        """A stream, read to its end or left."""
        diary = self._diary
        most = call.leaves_after
        with self._client.stream(call.method, call.url, **options_of(call)) as response:
            if response.is_sse:
                data: list[str] = []
                for event in response.events():
                    data.append(event.data)
                    if most is not None and len(data) >= most:
                        break
                left = most is not None and len(data) >= most
                diary.look_at_events(call, data, is_whole=not left)
            else:
                parts: list[bytes] = []
                for part in response.iter_bytes():
                    parts.append(part)
                    if most is not None and len(parts) >= most:
                        break
                left = most is not None and len(parts) >= most
        if left:
            diary.ended(call, "left")
        elif response.is_sse:
            diary.ended(call, "answer", response.disposition, response.attempts)
        else:
            diary.answered(call, b"".join(parts), response.disposition, response.attempts)


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
