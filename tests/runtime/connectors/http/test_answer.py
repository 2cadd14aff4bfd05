"""Writing an answer, in both formats, without looking at how it came about."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client.wire import PayloadFormat, decode_http_response
from vastar_client.wire.codec import one_buffer
from vastar_runtime.connectors.http.answer import HttpAnswer, header_text


def answer(*pieces: bytes, headers=(), **fields: object) -> HttpAnswer:
    return HttpAnswer(
        **{
            "status_code": 200,
            "headers": list(headers),
            "body": pieces,
            "http_version": "1.1",
            "url": "http://h.test/",
            **fields,
        }  # type: ignore[arg-type]
    )


def as_json(made: HttpAnswer) -> dict[str, object]:
    reply = made.reply(PayloadFormat.JSON)
    assert reply.payload_format is PayloadFormat.JSON
    return json.loads(bytes(one_buffer(reply.payload)))  # type: ignore[no-any-return]


def test_the_reply_tells_the_status_for_the_log():
    assert answer(status_code=503).reply(PayloadFormat.JSON).status_code == 503
    assert answer(status_code=503).reply(PayloadFormat.NATIVE).status_code == 503


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_no_body_is_lost_in_either_format(pieces):
    whole = b"".join(pieces)
    fields = as_json(answer(*pieces))
    if "body_base64" in fields:
        assert b64decode(str(fields["body_base64"])) == whole
        assert fields["body"] == whole.decode(errors="replace")
    else:
        assert str(fields["body"]).encode() == whole
    reply = answer(*pieces).reply(PayloadFormat.NATIVE)
    assert bytes(decode_http_response(one_buffer(reply.payload)).body) == whole


NAMES = st.sampled_from([b"a", b"b", b"set-cookie"])


@given(st.lists(st.tuples(NAMES, st.text("xyz", max_size=3).map(str.encode)), max_size=6))
def test_joined_headers_say_all_that_the_list_says(pairs):
    fields = as_json(answer(headers=pairs))
    wanted: dict[str, list[str]] = {}
    for name, value in pairs:
        wanted.setdefault(name.decode(), []).append(value.decode())
    assert fields["headers"] == {
        name: ("\n" if name == "set-cookie" else ", ").join(values)
        for name, values in wanted.items()
    }
    if len(wanted) != len(pairs):
        assert fields["headers_list"] == [[n.decode(), v.decode()] for n, v in pairs]
    else:
        assert "headers_list" not in fields


def test_native_pieces_are_not_copied():
    piece = bytes(1000)
    payload = answer(piece, piece).reply(PayloadFormat.NATIVE).payload
    assert isinstance(payload, (list, tuple))
    assert sum(part is piece for part in payload) == 2


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"abc", "abc"), (b"caf\xc3\xa9", "café"), (b"caf\xe9", "café"), (b"\xff", "ÿ")],
)
def test_header_bytes_as_text(data, text):
    assert header_text(data) == text
