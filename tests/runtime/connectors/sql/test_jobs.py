"""Payloads to jobs."""

import msgspec
import pytest
import trio

from tests.support.databases import sql_request
from vastar_client.wire import ExecuteRequest, PayloadFormat, ResponseFormat
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import OPERATIONS, job_of, wants_json
from vastar_runtime.policy import Deadline, Limit


def call(request: ExecuteRequest) -> Call:
    deadline = Deadline(trio.current_time() + 9, 9, Limit.DEFAULT)
    return Call(request, Caller(), deadline, 1 << 20)


def json_call(operation: str, payload: object) -> Call:
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return call(
        ExecuteRequest(1, tenant_id="a", connector_name="db", operation=operation, payload=data)
    )


async def test_native_and_json_are_the_same_job():
    native = job_of(call(sql_request(1, "query", "select ?", [b"\x00"], source="s", max_rows=3)))
    asked = {"sql": "select ?", "params": [{"$bytes": "AA=="}], "source": "s", "max_rows": 3}
    assert job_of(json_call("query", asked)) == native
    assert (native.statements[0].params, native.max_rows) == ([b"\x00"], 3)
    many = job_of(json_call("execute_many", {"sql": "x", "params_list": [[1], {"a": 1}]}))
    assert list(many.params_list) == [[1], {"a": 1}]
    both = {"statements": [{"sql": "x"}, {"sql": "y", "params": {"n": 1}}]}
    assert [each.sql for each in job_of(json_call("transaction", both)).statements] == ["x", "y"]


@pytest.mark.parametrize(
    ("operation", "payload", "words"),
    [
        ("drop", {}, "known are query"),
        ("query", {}, "Missing required field: sql"),
        ("transaction", {}, "Missing required field: statements"),
        ("transaction", {"statements": [{"sql": " "}]}, "Missing required field"),
        ("query", b"{", "Invalid database request"),
        ("query", b'{"sql":"\xff"}', "Invalid database request"),
        ("query", b'{"x":' + b"[" * 100_000, "Invalid database request"),
        ("query", {"sql": 1}, "Invalid database request"),
        ("query", {"sql": "x", "params": [{"$no": 1}]}, "tagged"),
        ("query", {"sql": "x", "params_list": []}, "params_list"),
        ("execute_many", {"sql": "x"}, "params_list"),
        ("query", {"sql": "x", "statements": []}, "statements are of transaction"),
        ("query", {"sql": "x", "isolation": "serializable"}, "isolation"),
        ("transaction", {"statements": [{"sql": "x"}], "isolation": "none"}, "isolation"),
        ("query", {"sql": "x", "timeout_ms": -1}, "not negative"),
    ],
)
async def test_what_is_no_job(operation, payload, words):
    with pytest.raises(SqlError, match=words) as caught:
        job_of(json_call(operation, payload))
    assert caught.value.blame is Blame.CALLER
    assert "query" in OPERATIONS


async def test_which_form_is_wanted():
    assert wants_json(json_call("query", {}))
    assert not wants_json(call(sql_request(1, "query")))
    assert wants_json(call(sql_request(1, "query", response_format=ResponseFormat.JSON)))
    assert PayloadFormat.JSON is not PayloadFormat.NATIVE
