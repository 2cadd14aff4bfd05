"""Text, lines, events and deltas, in any chunking."""

import codecs
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client._decoding import (
    BytesDecoder,
    DeltaDecoder,
    EventDecoder,
    LineDecoder,
    Reading,
    TextDecoder,
    too_long,
)
from vastar_client.errors import ConnectorException
from vastar_client.sse_parser import SSEParser
from vastar_client.wire import Disposition, ErrorClass
from vastar_client.wire.sse import SSEEvent, SSELimitError


def decode(decoder, chunks):
    items = [item for chunk in chunks for item in decoder.feed(chunk)]
    return [*items, *decoder.finish()]


def in_pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


CUTS = st.integers(1, 9)


def test_bytes_are_what_they_are():
    assert decode(BytesDecoder(), [b"a", b"bc"]) == [b"a", b"bc"]


@given(st.binary(max_size=60), CUTS)
def test_utf8_in_any_chunking(data, size):
    text = "".join(decode(TextDecoder(None), in_pieces(data, size)))
    assert text == data.decode(errors="replace")


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "shift_jis", "UTF-8"])
def test_any_charset(charset):
    text = "aé" if charset == "latin-1" else "aあ"
    for size in (1, 2, 100):
        assert "".join(decode(TextDecoder(charset), in_pieces(text.encode(charset), size))) == text


@pytest.mark.parametrize("charset", ["none-such", "hex", "idna", "base64", "\0", ""])
def test_what_is_no_charset_is_utf8(charset):
    assert decode(TextDecoder(charset), [b"\xc3", b"\xa9", b"\xff", b"\xc3"]) == ["é", "�", "�"]


def lines_of(data, size, charset=None):
    decoder = LineDecoder(charset, 1000, ValueError)
    return decode(decoder, in_pieces(data, size))


LINES = {
    b"a\nb\r\nc\rd": ["a", "b", "c", "d"],
    b"a\n\nb\r\r\n\n": ["a", "", "b", "", ""],
    b"\r\n": [""],
    b"": [],
    b"a": ["a"],
    "a\u2028b\u0085c\x0bd\x0ce\n".encode(): ["a\u2028b\u0085c\x0bd\x0ce"],
    b"\xff\n\xc3": ["�", "�"],
}


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("data", LINES)
def test_lines_end_in_lf_crlf_or_cr_and_in_nothing_else(data, size):
    assert lines_of(data, size) == LINES[data]


@given(st.text("a\r\né", max_size=40), CUTS)
def test_lines_in_any_chunking(text, size):
    wanted = re.split(r"\r\n|\r|\n", text)
    wanted = wanted[:-1] if not wanted[-1] else wanted
    assert lines_of(text.encode(), size) == wanted


def test_lines_of_other_charsets():
    assert lines_of("a\r\nb".encode("utf-16"), 1, "utf-16") == ["a", "b"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_is_bounded(size, end):
    exact = b"x" * 1000 + b"\n"
    assert lines_of(exact * 2, size) == ["x" * 1000] * 2
    with pytest.raises(ValueError, match="a line of more than 1000 characters"):
        lines_of(b"x" * 1001 + end, size)


def test_an_endless_line_costs_linear_time():
    """Its parts are joined once, not once for each chunk."""
    decoder = LineDecoder(None, 10**9, ValueError)
    for _ in range(20_000):
        assert decoder.feed(b"x" * 100) == []
    assert [len(line) for line in decoder.finish()] == [2_000_000]
    assert max(len(part) for part in decoder._begun) == 100


def test_events_go_on_behind_an_earlier_stream():
    decoder = EventDecoder("6")
    assert decode(decoder, [b"data: a\n\nid: 7\n", b"data: b\n\ndata: cut"]) == [
        SSEEvent("a", id="6"),
        SSEEvent("b", id="7"),
    ]
    assert decoder.sse.last_event_id == "7"


def test_a_bound_that_was_passed_is_told_at_the_end_too():
    decoder = EventDecoder()
    assert len(decoder.feed(b"data: a\n\n" + b"x" * 1_048_577)) == 1
    with pytest.raises(SSELimitError):
        decoder.finish()


def delta(text):
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()


def test_deltas_and_nothing_behind_done():
    decoder = DeltaDecoder()
    role = b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'
    assert decoder.feed(role + delta("a") + b": comment\n\n" + delta("b")) == ["a", "b"]
    assert not decoder.done
    assert decoder.feed(delta("c") + b"data: [DONE]\n\n" + delta("d")) == ["c"]
    assert decoder.done
    assert decode(decoder, [delta("e")]) == []


@given(st.lists(st.text(max_size=5), max_size=6), CUTS, st.booleans())
def test_deltas_are_those_of_the_published_parser(texts, size, is_cut):
    data = b"".join(map(delta, texts))
    data = data[:-2] if is_cut else data
    assert decode(DeltaDecoder(), in_pieces(data, size)) == list(
        SSEParser.parse_stream_generator(data)
    )


# Reading


def test_what_was_made_ahead_is_kept():
    reading = Reading()
    assert not reading.has_begun
    reading.begin("iter_lines", lambda: LineDecoder(None, 100, ValueError))
    assert reading.has_begun
    reading.feed(b"a\nb\nc")
    assert list(reading.ready) == ["a", "b"]
    reading.begin("iter_lines", BytesDecoder)
    reading.feed(b"")
    assert list(reading.ready) == ["a", "b", "c"]
    assert reading.has_ended


def test_a_response_is_read_in_one_way():
    reading = Reading()
    reading.begin("events", EventDecoder)
    with pytest.raises(RuntimeError, match=r"is being read by events\(\): .* for iter_text\(\)"):
        reading.begin("iter_text", lambda: TextDecoder(None))


def test_who_knows_what():
    reading = Reading()
    assert (reading.sse, reading.is_done) == (None, False)
    reading.begin("events", EventDecoder)
    assert reading.sse.last_event_id == ""
    assert not reading.is_done
    other = Reading()
    other.begin("content_deltas", DeltaDecoder)
    assert (other.sse, other.is_done) == (None, False)
    other.feed(b"data: [DONE]\n\n")
    assert other.is_done
    assert not other.has_ended
    other.stop()
    assert other.has_ended


def test_too_much_is_an_error_that_no_repeat_mends():
    error = too_long("more than 5 bytes", 7)
    assert isinstance(error, ConnectorException)
    assert str(error).startswith("the response has more than 5 bytes (PERMANENT; ")
    assert (error.error_class, error.request_id) == (ErrorClass.PERMANENT, 7)
    assert error.disposition is Disposition.RESPONSE_STARTED


def test_every_codec_of_the_standard_library_is_text_or_none():
    """None of them makes the decoder fail, whatever an upstream names."""
    for name in ("ascii", "cp1252", "utf-7", "utf-8-sig", "punycode", "rot13", "unicode_escape"):
        codecs.lookup(name)
        assert isinstance("".join(decode(TextDecoder(name), [b"a\xff", b"\\"])), str)
