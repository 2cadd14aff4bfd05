"""Long bodies of a known length are counted instead of parsed, and nobody can tell but by time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.fuzz.targets._http import read_by_h11, read_by_us
from vastar_runtime.transport import parser as parsing
from vastar_runtime.transport.errors import ResponseCutShort
from vastar_runtime.transport.parser import ResponseParser

LONG = 200_000


def wire(size: int, *, more: bytes = b"", fields: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"content-length: %d\r\n\r\n" % size
    return head + bytes(range(256)) * (size // 256) + bytes(size % 256) + more


def fed(parser: ResponseParser, data: bytes, step: int) -> ResponseParser:
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    return parser


@given(
    size=st.integers(60_000, 140_000),
    step=st.integers(1000, 70_000),
    more=st.sampled_from([b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"]),
    close=st.booleans(),
)
def test_it_is_what_h11_reads(size, step, more, close):
    fields = b"connection: close\r\n" if close else b""
    data = wire(size, more=more, fields=fields)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    ours, theirs = read_by_us(b"GET", pieces), read_by_h11(b"GET", data)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    parser = ResponseParser(65536)
    for piece in pieces:
        parser.feed(piece)
    assert parser.complete
    assert parser.body_bytes == size
    assert parser.excess is bool(more)
    assert parser.keep_alive is not close


def test_pieces_are_those_that_were_received_and_the_connection_goes_on():
    parser = ResponseParser(65536)
    data = wire(LONG)
    at = data.index(b"\r\n\r\n") + 4
    parser.feed(data[:at])
    pieces = [data[at : at + 65536], data[at + 65536 : at + 131072], data[at + 131072 :]]
    for piece in pieces:
        assert not parser.complete
        parser.feed(piece)
    assert all(mine is given_ for mine, given_ in zip(parser.body, pieces, strict=True))
    assert (parser.complete, parser.excess) == (True, False)
    parser.begin(b"GET")
    parser.feed(b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno")
    assert (parser.status, parser.body, parser.complete) == (404, [b"no"], True)


def test_one_that_ends_early_says_how_far_it_came():
    parser = fed(ResponseParser(65536), wire(LONG)[:-1], 50_000)
    with pytest.raises(ResponseCutShort, match=f"{LONG - 1} of {LONG} bytes"):
        parser.feed_eof()


@pytest.mark.parametrize(
    "data",
    [
        wire(parsing._COUNTED_BYTES - 1),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"ffff\r\n" + bytes(0xFFFF),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(LONG),
    ],
    ids=["short", "chunked", "until the end"],
)
def test_others_are_parsed(data):
    parser = ResponseParser(65536)
    head_bytes = data.index(b"\r\n\r\n") + 4
    parser.feed(data[:head_bytes])
    assert not parser._counted_bytes
    fed(parser, data[head_bytes:], 30_000)
