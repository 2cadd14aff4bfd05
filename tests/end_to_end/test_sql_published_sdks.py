"""Databases for published SDKs: frames built and read with nothing but what those know.

They send JSON in the eight slots of the published request, and read the five slots of the published
answer; of them Java crashes on a success without payload, and all take classes from 0 to 5 only.
"""

import json
import struct
from typing import Any, NamedTuple

import flatbuffers
import pytest
from flatbuffers.encode import Get
from flatbuffers.number_types import Int8Flags, UOffsetTFlags
from flatbuffers.table import Table

from tests.support.databases import Databases, databases
from tests.support.postgres import postgres_server

PUBLISHED_CLASSES = range(6)
INVALID, PERMANENT = 5, 2


def frame(connector: str, operation: str, payload: bytes, request_id: int) -> bytes:
    """A request as a published SDK sends it."""
    builder = flatbuffers.Builder(256)
    texts = [builder.CreateString(text) for text in ("acme", connector, operation)]
    body = builder.CreateByteVector(payload)
    builder.StartObject(9)
    builder.PrependUint64Slot(0, request_id, 0)
    for slot, offset in zip((1, 4, 5), texts, strict=True):
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.PrependUOffsetTRelativeSlot(7, body, 0)
    builder.Finish(builder.EndObject())
    table = bytes(builder.Output())
    return struct.pack(">IB", len(table) + 1, 0) + table


class Answer(NamedTuple):
    """What a published SDK reads of an answer."""

    request_id: int
    error_class: int
    message: str | None
    payload: bytes | None

    @classmethod
    def read(cls, data: bytes) -> "Answer":
        """Of a whole frame."""
        length, kind = struct.unpack_from(">IB", data)
        assert (len(data), kind) == (length + 4, 1)
        buffer = bytearray(data[5:])
        table = Table(buffer, Get(UOffsetTFlags.packer_type, buffer, 0))

        def at(slot: int) -> int:
            return int(table.Offset(4 + 2 * slot))

        request_id = struct.unpack_from("<Q", buffer, at(0) + table.Pos)[0] if at(0) else 0
        error_class = table.Get(Int8Flags, at(1) + table.Pos) if at(1) else 0
        message = table.String(at(2) + table.Pos).decode() if at(2) else None
        payload = None
        if at(3):
            start = table.Vector(at(3))
            payload = bytes(buffer[start : start + table.VectorLen(at(3))])
        return cls(request_id, error_class, message, payload)


class Sdk:
    """A published SDK: one call after another on one connection."""

    def __init__(self, db: Databases) -> None:
        self._stream = db.end.stream
        self._ids = 2**63  # Go's are above 2^53

    async def call(self, connector: str, operation: str, payload: object) -> Answer:
        self._ids += 1
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self._stream.send_all(frame(connector, operation, data, self._ids))
        received = b""
        while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
            received += bytes(await self._stream.receive_some(65536))
        answer = Answer.read(received)
        assert answer.request_id == self._ids
        assert answer.error_class in PUBLISHED_CLASSES
        if answer.error_class:
            assert answer.message
            assert answer.payload is None
        else:
            assert answer.payload
        return answer

    async def said(self, connector: str, operation: str, payload: object) -> Any:
        answer = await self.call(connector, operation, payload)
        assert not answer.error_class, answer.message
        assert answer.payload is not None
        found = json.loads(answer.payload)
        assert found["success"] is True
        return found


async def test_the_names_of_connectors_and_all_operations(tmp_path):
    config = f'[tenants.acme.databases.main]\nurl = "sqlite://{tmp_path}/main.db"'
    async with databases(tmp_path, config) as db:
        sdk = Sdk(db)
        create = {"sql": "create table t (id integer primary key, name text, at real, raw blob)"}
        made = await sdk.said("sqlite", "execute", create)
        assert (made["rows"], made["columns"]) == ([], [])
        insert = "insert into t (name, at, raw) values (?, ?, ?)"
        raw = {"$bytes": "AP8="}
        found = await sdk.said(
            "db", "execute", {"sql": insert, "params": ["a\N{SNOWMAN}", 1.5, raw]}
        )
        assert (found["row_count"], found["last_id"]) == (1, 1)
        many = {"sql": insert, "params_list": [["b", {"$float": "inf"}, None], ["c", None, None]]}
        assert (await sdk.said("sql", "execute_many", many))["row_count"] == 2
        for connector in ("sqlite", "db", "sql"):
            asked = {"source": "main", "sql": "select * from t where id < :n", "params": {"n": 3}}
            found = await sdk.said(connector, "query", asked)
            assert found["rows"] == [
                [1, "a\N{SNOWMAN}", 1.5, raw],
                [2, "b", {"$float": "inf"}, None],
            ]
            assert [column["name"] for column in found["columns"]] == ["id", "name", "at", "raw"]
            assert {column["type"] for column in found["columns"]} <= {
                "int",
                "text",
                "float",
                "bytes",
            }
        both = [{"sql": "delete from t where id = ?", "params": [1]}, {"sql": "select 1 as one"}]
        found = await sdk.said("db", "transaction", {"statements": both})
        assert [each["row_count"] for each in found["results"]] == [1, 1]
        none = await sdk.said("db", "query", {"sql": "select * from t where id = 0"})
        assert (none["rows"], none["row_count"]) == ([], 0)


@pytest.mark.parametrize(
    ("connector", "operation", "payload", "expected"),
    [
        ("db", "query", b"{", (INVALID, "Invalid database request")),
        ("db", "query", b"[]", (INVALID, "Invalid database request")),
        ("db", "query", b"", (INVALID, "Invalid database request")),
        ("db", "query", {}, (INVALID, "Missing required field: sql")),
        ("db", "query", {"sql": 7}, (INVALID, "Invalid database request")),
        ("db", "transaction", {"sql": "select 1"}, (INVALID, "Missing required field: statements")),
        ("db", "request", {"sql": "select 1"}, (INVALID, "known are query, execute")),
        ("db", "query", {"sql": "select 1", "source": "x"}, (INVALID, "acme has main")),
        ("db", "query", {"sql": "selekt"}, (INVALID, "SQLITE_ERROR")),
        (
            "db",
            "query",
            {"sql": "select ?", "params": [{"$what": 1}]},
            (INVALID, "known are $bytes"),
        ),
        ("db", "query", {"sql": "select ?", "params": [10**30]}, (INVALID, "cannot be bound")),
        ("postgres", "query", {"sql": "select 1"}, (INVALID, "is of connector sqlite")),
        ("mysql", "query", {"sql": "select 1"}, (PERMANENT, "mysql is not supported")),
    ],
)
async def test_what_fails_fails_in_their_words(tmp_path, connector, operation, payload, expected):
    config = f'[tenants.acme.databases.main]\nurl = "sqlite://{tmp_path}/main.db"'
    async with databases(tmp_path, config) as db:
        answer = await Sdk(db).call(connector, operation, payload)
        assert answer.error_class == expected[0]
        assert expected[1] in str(answer.message)


@pytest.mark.slow
@pytest.mark.cap_s(60)
async def test_postgresql_in_json(tmp_path):
    with postgres_server() as server:
        config = f'[tenants.acme.databases.main]\nurl = "{server.url}"'
        async with databases(tmp_path, config) as db:
            values = [
                ("numeric", {"$decimal": "1.50"}),
                ("uuid", {"$uuid": "00000000-0000-0000-0000-000000000007"}),
                ("timestamptz", {"$timestamp": "2026-11-22T01:02:03.000004+00:00"}),
                ("date", {"$date": "2026-11-22"}),
                ("time", {"$time": "01:02:03"}),
                ("interval", {"$interval": "-5"}),
                ("float8", {"$float": "nan"}),
                ("jsonb", {"$json": {"a": [1, None]}}),
                ("int8[]", [1, None, 3]),
                ("bool", True),
                ("int8", 2**63 - 1),
                ("text", None),
            ]
            columns = ", ".join(f"%s::{kind}" for kind, _ in values)
            asked = {"sql": f"select {columns}", "params": [value for _, value in values]}
            for connector in ("postgres", "db", "sql"):
                found = await Sdk(db).said(connector, "query", asked)
                assert found["rows"] == [[value for _, value in values]]
