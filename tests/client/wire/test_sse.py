"""The event decoder against the standard's rules, in every chunking."""

import codecs
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client.wire import sse
from vastar_client.wire.sse import SSEDecoder, SSEEvent, SSELimitError

E = SSEEvent

CASES = {
    "one event": (b"data: hello\n\n", [E("hello")]),
    "data lines join with LF": (b"data: a\ndata: b\n\n", [E("a\nb")]),
    "no space after the colon": (b"data:a\n\n", [E("a")]),
    "only one space is dropped": (b"data:  a\n\n", [E(" a")]),
    "a tab is kept": (b"data:\ta\n\n", [E("\ta")]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\n", [E("a\nb")]),
    "CR alone": (b"data: a\rdata: b\r\r", [E("a\nb")]),
    "line ends mixed": (b"data: a\r\ndata: b\rdata: c\n\r\n", [E("a\nb\nc")]),
    "CR LF CR is two line ends": (b"data: a\r\n\rdata: b\n\n", [E("a"), E("b")]),
    "comment": (b": keep-alive\ndata: a\n\n", [E("a")]),
    "comment between data lines": (b"data: a\n:x\ndata: b\n\n", [E("a\nb")]),
    "only comments": (b":\n\n:\n\n", []),
    "event type": (b"event: add\ndata: a\n\n", [E("a", "add")]),
    "the event type lasts one event": (
        b"event: add\ndata: a\n\ndata: b\n\n",
        [E("a", "add"), E("b")],
    ),
    "the last event type wins": (b"event: a\nevent: b\ndata: x\n\n", [E("x", "b")]),
    "an empty event type is message": (b"event:\ndata: x\n\n", [E("x")]),
    "type without data is dropped, and forgotten": (b"event: a\n\ndata: x\n\n", [E("x")]),
    "data without a colon is one empty line": (b"data\n\n", [E("")]),
    "empty data is an event": (b"data:\n\n", [E("")]),
    "two empty data lines": (b"data\ndata\n\n", [E("\n")]),
    "no data, no event": (b"id: 1\n\n\n\n", []),
    "id": (b"id: 7\ndata: a\n\n", [E("a", id="7")]),
    "the id persists": (b"id: 7\ndata: a\n\ndata: b\n\n", [E("a", id="7"), E("b", id="7")]),
    "an id without an event persists": (b"id: 7\n\ndata: b\n\n", [E("b", id="7")]),
    "an empty id resets it": (b"id: 7\nid\ndata: b\n\n", [E("b")]),
    "an id with NUL is ignored": (b"id: 7\nid: 8\x009\ndata: b\n\n", [E("b", id="7")]),
    "unknown fields": (b"foo: 1\ndata: a\nDATA: b\n data: c\n\n", [E("a")]),
    "a colon in the value": (b"data: a: b\n\n", [E("a: b")]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", [E("a")]),
    "only one BOM, only at the start": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\xef\xbb\xbfdata: c\n\n",
        [E("b")],
    ),
    "BOM in a value": (b"data: \xef\xbb\xbfa\n\n", [E("\ufeffa")]),
    "unfinished event": (b"data: a\n\ndata: b\n", [E("a")]),
    "unfinished line": (b"data: a\n\ndata: b", [E("a")]),
    "invalid UTF-8 is replaced": (b"data: \xff\xc3\n\n", [E("\ufffd\ufffd")]),
    "a character cut by the line end": (b"data: \xe2\x82\ndata: \xac\n\n", [E("\ufffd\n\ufffd")]),
    "characters of every length": ("data: aé€😀\n\n".encode(), [E("aé€😀")]),
    "other line separators are text": (
        "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        [E("a\u2028b\u0085c\x0bd\x0ce")],
    ),
    "NUL is text": (b"data: a\x00b\n\n", [E("a\0b")]),
    "blank lines at the start": (b"\n\r\n\rdata: a\n\n", [E("a")]),
    "nothing": (b"", []),
}

CHUNKINGS = {
    "whole": lambda data: [data],
    "bytes": lambda data: [data[i : i + 1] for i in range(len(data))],
    "threes and nothings": lambda data: [
        part for i in range(0, len(data), 3) for part in (data[i : i + 3], b"")
    ],
}


def decode(chunks):
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    decoder.finish()
    return events


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("case", CASES)
def test_whatwg_case(case, chunking):
    data, events = CASES[case]
    assert decode(CHUNKINGS[chunking](data)) == events


@pytest.mark.parametrize(
    ("field", "retry_ms"),
    [
        (b"retry: 10", 10),
        (b"retry:0", 0),
        (b"retry: -1", None),
        (b"retry: 1.5", None),
        (b"retry: 1s", None),
        (b"retry:", None),
        ("retry: \u0663".encode(), None),
        (b"retry: " + b"9" * 5000, None),
    ],
)
def test_retry_takes_ascii_digits_only(field, retry_ms):
    decoder = SSEDecoder()
    assert decoder.feed(field + b"\n\n") == []
    assert decoder.retry_ms == retry_ms


def test_the_id_to_come_back_with_is_that_of_what_was_dispatched():
    """Else a reconnecting client would skip the event that was cut short."""
    decoder = SSEDecoder(last_event_id="1")
    assert decoder.feed(b"data: a\n\nid: 2\ndata: b\n") == [E("a", id="1")]
    assert decoder.last_event_id == "1"
    assert decoder.feed(b"\nid: 3\n") == [E("b", id="2")]
    assert decoder.last_event_id == "2"
    assert decoder.feed(b"\n") == [], "an id without data counts at its blank line"
    assert decoder.last_event_id == "3"
    decoder.feed(b"id: 4\n")
    decoder.finish()
    assert decoder.last_event_id == "3"
    assert decoder.feed(b"data: c\n\n") == [E("c", id="3")]


def test_memoryviews_are_taken():
    assert decode([memoryview(b"data: a\n"), bytearray(b"\n")]) == [E("a")]


def test_an_event_is_there_as_soon_as_its_blank_line_is():
    """A lone CR ends a line without waiting for the LF that might follow."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\r") == [E("a")]
    assert decoder.feed(b"\ndata: b\n\n") == [E("b")]


def oracle(data):
    """The standard's words: decode the whole stream, then cut lines, then interpret them."""
    text = codecs.decode(data, "utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events, values, kind, last_id = [], [], "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if values:
                events.append(E("\n".join(values), kind or "message", last_id))
            values, kind = [], ""
        elif name == "data":
            values.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


PIECES = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"a"),
        *(b"\0", b"\xef", b"\xbb", b"\xbf", b"\xe2\x82\xac", b"\xe2\x82", b"\xff", b"data: x\n"),
    ]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


@given(STREAMS)
def test_any_bytes_mean_what_the_standard_says(data):
    assert decode([data]) == oracle(data)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=10))
def test_the_chunking_never_matters(data, cuts):
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(chunks) == decode([data])


def feed_all(decoder, data, chunk_bytes, events):
    for i in range(0, len(data), chunk_bytes):
        events += decoder.feed(data[i : i + chunk_bytes])
    decoder.finish()


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_long_line_is_refused_with_or_without_its_end(chunk_bytes, ended):
    data = b"data: ok\n\n:" + b"x" * 100 + b"\n\n" * ended
    decoder = SSEDecoder(max_line_bytes=100)
    events = []
    with pytest.raises(SSELimitError, match="line of the event stream exceeds the limit of 100 "):
        feed_all(decoder, data, chunk_bytes, events)
    assert events == [E("ok")], "what was complete before the fault is delivered"
    with pytest.raises(SSELimitError):
        decoder.feed(b"data: more\n\n")


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_a_long_event_is_refused(chunk_bytes):
    data = b"data: ok\n\n" + b"data: 0123456789\n" * 10 + b"\n"
    decoder = SSEDecoder(max_event_bytes=109)
    with pytest.raises(SSELimitError, match="event of the stream exceeds the limit of 109 bytes"):
        feed_all(decoder, data, chunk_bytes, [])
    assert len(decode_with(data, max_event_bytes=110)) == 2, "the limit itself is allowed"


def decode_with(data, **limits):
    return SSEDecoder(**limits).feed(data)


def test_a_line_of_exactly_the_limit_is_taken():
    data = b"data:" + b"x" * (sse.MAX_LINE_BYTES - 5)
    assert len(decode([data, b"\n\n"])[0].data) == sse.MAX_LINE_BYTES - 5
    with pytest.raises(SSELimitError):
        decode([data + b"x", b"\n\n"])


def test_the_limit_counts_an_event_type_too():
    with pytest.raises(SSELimitError):
        decode_with(b"event: 0123456789\n", max_event_bytes=9)


def test_time_is_linear_in_the_input():
    """A megabyte line, byte by byte, costs about as much a byte as a tenth of it."""

    def cpu_s(line_bytes):
        decoder = SSEDecoder()
        begin = time.process_time()
        for _ in range(line_bytes):
            decoder.feed(b"x")
        return time.process_time() - begin

    small = min(cpu_s(20_000) for _ in range(3))
    assert cpu_s(200_000) < 10 * small * 4
