"""Messages may stand in a log line: what may be secret is told by its size only."""

import pickle
import traceback
from typing import Any

import msgspec
import pytest

from tests.client.wire.reference import ENCODE, VALUE_TYPES, make
from tests.client.wire.schema import TABLES
from vastar_client import wire

SECRET = "s3cr3t-planted"
HIDDEN = {"payload", "headers", "body", "data", "token", "trailers", "url"}
VALUES: dict[str, Any] = {
    "[ubyte]": SECRET.encode(),
    "[KeyValue]": [("authorization", SECRET), (SECRET, "value")],
    "string": SECRET,
}


def planted(table: str) -> Any:
    """A message of `table` with the secret in every field that may hold one."""
    values = {f.name: VALUES[f.type] for f in TABLES[table] if f.name in HIDDEN}
    required = {f.name: "visible" for f in TABLES[table] if f.required}
    return make(table, required | values)


@pytest.mark.parametrize("table", VALUE_TYPES)
@pytest.mark.parametrize("show", [repr, str, "{!r:.2000}".format, "{}".format, "%s".__mod__])
def test_no_way_of_showing_a_message_shows_its_secrets(table: str, show: Any) -> None:
    shown = show(planted(table))
    assert VALUE_TYPES[table].__name__ in shown
    assert SECRET not in shown
    assert SECRET.encode().hex() not in shown


@pytest.mark.parametrize("table", VALUE_TYPES)
def test_pretty_printers_get_no_more_than_repr(table: str) -> None:
    """`rich` asks a value for its fields; msgspec's own answer would be all of them."""
    assert SECRET not in repr(list(planted(table).__rich_repr__()))


def test_bodies_of_several_buffers_are_hidden_too() -> None:
    for parts in ([SECRET.encode()], (bytearray(SECRET.encode()), memoryview(b"x"))):
        for message in (
            wire.ExecuteResponse(1, payload=parts),
            wire.HttpRequest("http://h/", body=parts),
            [wire.HttpResponse(200, body=parts)],
        ):
            assert SECRET not in repr(message)


def test_what_is_not_secret_is_shown() -> None:
    call = wire.ExecuteRequest(7, "acme", "http", "request", trace_id="t-1", payload=b"12345")
    shown = repr(call)
    assert shown.startswith("ExecuteRequest(request_id=7, tenant_id='acme'")
    assert "trace_id='t-1'" in shown
    assert "payload=<5>" in shown
    assert "headers=None" in shown


def test_a_peer_cannot_forge_lines_or_fields_of_a_log() -> None:
    shown = repr(wire.Goaway("x, drain_ms=9)\n\x1b[2J ERROR forged"))
    assert "\n" not in shown
    assert "\x1b" not in shown


def test_a_traceback_of_a_failed_encoding_shows_no_secret() -> None:
    message = wire.StreamStart(-1, headers=[("authorization", SECRET)])
    with pytest.raises(wire.LocalProtocolError) as caught:
        ENCODE["StreamStart"](message)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("table", VALUE_TYPES)
def test_messages_are_values(table: str) -> None:
    message = planted(table)
    assert message == planted(table)
    with pytest.raises(AttributeError):
        message.request_id = 5
    assert pickle.loads(pickle.dumps(message)) == message


def test_the_hidden_fields_are_all_the_fields_that_carry_content() -> None:
    """A field that the schema gains is looked at here before it can be logged."""
    seen = {f.name for fields in TABLES.values() for f in fields if f.type[0] in "s["}
    shown = {"tenant_id", "workspace_id", "trace_id", "connector_name", "operation"}
    shown |= {"idempotency_key", "error_message", "refused_by", "message", "reason", "method"}
    assert seen - {"key", "value"} == HIDDEN | shown | {"http_version"}
    assert issubclass(wire.ExecuteRequest, msgspec.Struct)
