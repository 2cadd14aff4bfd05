"""Bodies in pieces on the wire: against h11 on any cut, and lengths that are not true."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.transport.errors import LocalFault
from vastar_runtime.transport.framing import framing_for

_PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def framed(pieces: list[bytes], length_bytes: int | None) -> list[bytes]:
    framing = framing_for(length_bytes)
    return [b"".join(framing.frame(piece)) for piece in pieces]


def read_by_h11(head: bytes, wire: bytes) -> tuple[bytes, bool]:
    """The body that a server reads, and whether it takes it for whole."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nhost: h\r\n" + head + b"\r\n\r\n" + wire)
    assert isinstance(server.next_event(), h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert server.trailing_data == (b"", False)
    return body, isinstance(event, h11.EndOfMessage)


@given(_PIECES, st.booleans(), st.data())
def test_a_server_reads_the_same_body_and_not_too_early(
    pieces: list[bytes], is_counted: bool, data: st.DataObject
) -> None:
    whole = b"".join(pieces)
    length = len(whole) if is_counted else None
    head = b"content-length: %d" % len(whole) if is_counted else b"transfer-encoding: chunked"
    sent = framed([*pieces, b""], length)
    assert read_by_h11(head, b"".join(sent)) == (whole, True)
    if pieces:
        cut = data.draw(st.integers(0, len(pieces)))
        assert not read_by_h11(head, b"".join(sent[:cut]))[1], "before the end of the source"


def test_chunks_are_exact() -> None:
    assert framed([b"a" * 10, b"b", b"c" * 300, b""], None) == [
        b"a\r\naaaaaaaaaa\r\n",
        b"1\r\nb\r\n",
        b"12c\r\n" + b"c" * 300 + b"\r\n",
        b"0\r\n\r\n",
    ]


def test_pieces_are_not_copied() -> None:
    piece = bytearray(b"x" * 100)
    assert framing_for(None).frame(piece)[1] is piece
    assert framing_for(200).frame(piece)[0] is piece


def test_the_last_piece_waits_for_the_end() -> None:
    assert framed([b"abc", b"de", b""], 5) == [b"abc", b"", b"de"]
    assert framed([b""], 0) == [b""]


@pytest.mark.parametrize(
    ("pieces", "length", "words"),
    [
        ([b"abc", b""], 4, "the request body ended short: 3 of 4 bytes"),
        ([b""], 1, "the request body ended short: 0 of 1 bytes"),
        ([b"abc"], 2, "the request body is longer than the 2 bytes declared"),
        ([b"ab", b"c"], 2, "the request body is longer than the 2 bytes declared"),
        ([b"a"], 0, "the request body is longer than the 0 bytes declared"),
    ],
)
def test_another_length_than_declared(pieces: list[bytes], length: int, words: str) -> None:
    framing = framing_for(length)
    for piece in pieces[:-1]:
        assert len(b"".join(framing.frame(piece))) < max(length, 1)
    with pytest.raises(LocalFault, match=words):
        framing.frame(pieces[-1])
