"""Frames that are a little, or altogether, wrong, from a seeded source; and what the rules make of
them."""

import random
from struct import pack

import msgspec

from tests.client.wire.mutants import mutant, originals
from tests.support import golden
from tests.support.running import URL, http_request
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    HttpRequest,
    PayloadFormat,
    RemoteProtocolError,
    Role,
    encode_http_request,
)
from vastar_client.wire.codec import encode_message

__all__ = ["Rules", "noise"]

_TABLES = {
    "ExecuteRequest": 0, "ExecuteResponse": 1, "HealthCheckResponse": 3, "CreditUpdate": 4,
    "StreamStart": 5, "StreamChunk": 6, "StreamEnd": 7, "Cancel": 8, "Goaway": 9,
    "RequestChunk": 10, "KeepAlive": 11, "Authenticate": 12,
}  # fmt: skip


def _framed(kind: int, flatbuffer: bytes) -> bytes:
    return pack(">IB", len(flatbuffer) + 1, kind & 0xFF) + flatbuffer


def _json_payload() -> bytes:
    return msgspec.json.encode(
        {"url": f"{URL}/small", "method": "POST", "headers": {"a": "b"}, "body": {"c": [1, "é"]},
         "query": {"q": [1, True]}, "timeout_ms": 500, "follow_redirects": True}
    )  # fmt: skip


def _native_payload() -> bytes:
    request = HttpRequest(f"{URL}/small", "POST", headers=[("a", "b")], body=b"c", timeout_ms=500)
    return b"".join(map(bytes, encode_http_request(request)))


def _request(payload: bytes, payload_format: PayloadFormat) -> bytes:
    message = http_request(5, payload, payload_format=payload_format, trace_id="t")
    return b"".join(map(bytes, encode_message(message)))


class _Noise:
    """Makes one frame after the other."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._tables = {name: originals(name, source, 4) for name in _TABLES}
        self._golden = [frame.flatbuffer for frame in golden.load() if frame.is_request]
        self._payloads = [
            (_json_payload(), PayloadFormat.JSON),
            (_native_payload(), PayloadFormat.NATIVE),
        ]

    def spoiled_request(self) -> bytes:
        return _framed(0, mutant(self._source, _request(*self._source.choice(self._payloads))))

    def spoiled_payload(self) -> bytes:
        payload, payload_format = self._source.choice(self._payloads)
        return _framed(0, _request(mutant(self._source, payload), payload_format))

    def spoiled_golden(self) -> bytes:
        return _framed(0, mutant(self._source, self._source.choice(self._golden)))

    def spoiled_table(self) -> bytes:
        name = self._source.choice(sorted(_TABLES))
        return _framed(_TABLES[name], mutant(self._source, self._source.choice(self._tables[name])))

    def whole_table(self) -> bytes:
        name = self._source.choice(sorted(_TABLES))
        return _framed(_TABLES[name], self._source.choice(self._tables[name]))

    def random_frame(self) -> bytes:
        kind = self._source.choice([*range(14), 0x7F, 0x80, 0xFF])
        return _framed(kind, self._source.randbytes(self._source.randrange(60)))

    def wrong_length(self) -> bytes:
        frame = _framed(0, _request(*self._payloads[0]))
        length = self._source.choice([0, 1, 2, 5, len(frame), 2**31, 2**32 - 1, 64 << 20])
        return pack(">I", length) + frame[4:]

    def random_bytes(self) -> bytes:
        return self._source.randbytes(self._source.randrange(1, 60))

    def next(self) -> bytes:
        ways = [
            *([self.spoiled_request] * 6),
            *([self.spoiled_payload] * 6),
            *([self.spoiled_golden] * 3),
            *([self.spoiled_table] * 4),
            self.whole_table,
            *([self.random_frame] * 3),
            self.wrong_length,
            self.random_bytes,
        ]
        return self._source.choice(ways)()


def noise(seed: int, count: int) -> list[bytes]:
    """So many frames; always the same for a seed."""
    made = _Noise(random.Random(seed))
    return [made.next() for _ in range(count)]


class Rules:
    """What the protocol's own state table says of a connection that was sent some frames."""

    def __init__(self) -> None:
        self._wire = Connection(Role.RUNTIME)

    def goes_on_after(self, frame: bytes) -> bool:
        """Whether a further frame would be read: the framing holds and no fault closed it."""
        self._wire.receive_data(frame)
        while True:
            try:
                event = self._wire.next_event()
            except RemoteProtocolError as error:
                if error.closes:
                    return False
                continue
            if event is NEED_DATA:
                return not self._wire.in_frame
            assert event is not END_OF_STREAM
