"""What is too much to be worked through between two turns of the event loop is refused."""

import json
from typing import Any

import pytest

from vastar_client.wire import HttpRequest, PayloadFormat, encode_http_request
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.json_text import PIECE_BYTES
from vastar_runtime.connectors.http.payload import HttpCall, begin_payload, parse_payload

URL = "http://h.test/"


def parsed(**keys: Any) -> HttpCall:
    return parse_payload(json.dumps({"url": URL, **keys}).encode(), PayloadFormat.JSON)


def refusal(key: str, value: bytes) -> str:
    with pytest.raises(InvalidCall) as caught:
        parse_payload(
            b'{"url":"http://h.test/","%b":%b}' % (key.encode(), value), PayloadFormat.JSON
        )
    return str(caught.value)


AS_TEXT = "; send it as text (a JSON string), as body_base64 or in the native form"


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (b'["' + b"x" * (8 << 20) + b'"]', "8388608 bytes"),
        (b"[" + b"1," * 500_000 + b"1]", "500000 commas and opening brackets"),
        (b"[" + b"{}," * 250_000 + b"1]", "500000 commas and opening brackets"),
    ],
    ids=["bytes", "numbers", "objects"],
)
def test_json_too_large_to_be_rewritten_is_refused_and_taken_as_text(value, limit):
    said = refusal("body", value)
    assert said == f"Invalid HTTP params: body is JSON of more than {limit}{AS_TEXT}"
    assert parsed(body=value.decode()).body == value
    native = b"".join(map(bytes, encode_http_request(HttpRequest(URL, "POST", body=value))))
    assert parse_payload(native, PayloadFormat.NATIVE).body == value


def test_a_large_json_body_of_few_values_is_taken():
    image = "x" * ((8 << 20) - 100)
    assert parsed(body={"image": image}).body == b'{"image":"%b"}' % image.encode()


HEADERS_TOO_LONG = "Invalid headers: more than 524288 bytes of JSON"


@pytest.mark.parametrize(
    "value",
    [
        b"{" + b",".join(b'"%d":""' % number for number in range(60_000)) + b"}",
        b'{"a":"' + b"\\u00e9" * 90_000 + b'"}',
        b"{" + b",".join([b'"a":""'] * 90_000) + b"}",
        b"[" + b"[]," * 200_000 + b"1]",
    ],
    ids=["names", "escapes", "repeats", "no headers"],
)
def test_headers_that_are_too_much_are_not_decoded(value, monkeypatch):
    monkeypatch.delattr("vastar_runtime.connectors.http.payload._HEADERS_DECODER")
    assert refusal("headers", value) == HEADERS_TOO_LONG


def test_headers_at_their_limit_fit_however_they_are_written():
    value = b"{" + b", ".join(b'"\\u0061%d": "%b"' % (n, b"\\u0061" * 250) for n in range(256))
    call = parse_payload(b'{"url":"http://h.test/","headers":%b}}' % value, PayloadFormat.JSON)
    assert call.headers == tuple((f"a{n}", "a" * 250) for n in range(256))


def test_a_long_payload_that_is_cut_is_not_read_twice(monkeypatch):
    monkeypatch.delattr("json.loads")
    with pytest.raises(InvalidCall, match="truncated"):
        parse_payload(b'{"url":"","zz":[' + b"{}," * 30_000, PayloadFormat.JSON)


def test_of_a_method_only_the_beginning_is_looked_at():
    assert len(refusal("method", b'"%b"' % (b"get" * 1_000_000))) < 300


@pytest.mark.parametrize(
    ("key", "text"), [("body", "\u00e9" * 300_000), ("body_base64", "QUJD" * 90_000)]
)
def test_a_long_body_of_text_is_read_in_pieces(key, text):
    payload = json.dumps({"url": URL, key: text}).encode()
    call, pieces = begin_payload(payload, PayloadFormat.JSON)
    assert call.body is None
    assert pieces is not None
    read = [*pieces]
    assert len(read) >= len(payload) // PIECE_BYTES
    assert max(map(len, read)) <= PIECE_BYTES
    assert parse_payload(payload, PayloadFormat.JSON).body == b"".join(read)
    expected = text.encode() if key == "body" else b"ABC" * 90_000
    assert b"".join(read) == expected


TOO_LONG = (
    "Invalid HTTP params: query is longer than 65536 bytes when encoded; send what is longer in "
    "the body"
)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1] * 16_385},
        {"a": "x" * 65_534},
        {"a": "&" * 22_000},
        {"a" * 40_000: [1, 2]},
        {str(number): "" for number in range(12_000)},
        {"a": [None] * 200_000},
    ],
)
def test_a_query_beyond_the_limit_of_a_url_is_refused(value):
    assert refusal("query", json.dumps(value).encode()) == TOO_LONG


def test_a_query_is_given_up_where_it_is_too_long(monkeypatch):
    """Its values are encoded one by one, and none behind the limit."""
    encoded: list[str] = []

    def counting(text: str) -> str:
        encoded.append(text)
        return text

    monkeypatch.setattr("vastar_runtime.connectors.http.payload.quote_plus", counting)
    assert refusal("query", json.dumps({"a": [1] * 100_000}).encode()) == TOO_LONG
    assert len(encoded) == 1 + 65_536 // 4 + 1
    encoded.clear()
    assert refusal("query", json.dumps({"a": [1] * 5_000_000}).encode()) == TOO_LONG
    assert encoded == []


def test_the_longest_query_is_taken_also_in_escapes():
    for value in ("x" * 65_533, "\N{GRINNING FACE}" * 5_461):
        assert len(parsed(query={"a": value}).url) > 65_500


def test_a_query_that_is_not_text_is_refused():
    said = refusal("query", b'{"a":"\xff"}')
    assert said.startswith("Invalid HTTP params: 'utf-8' codec")
