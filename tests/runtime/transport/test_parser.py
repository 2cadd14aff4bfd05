"""The response parser: against h11 on generated responses, and each rule of ours by itself."""

import itertools
import re

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tools.fuzz.targets._http import Reading, read_by_h11, read_by_us
from vastar_runtime.transport.errors import InvalidResponse
from vastar_runtime.transport.parser import ResponseParser

EMPTY_LINE_BEFORE_STATUS = re.compile(rb"(\A|\r\n\r\n)[\r\n]+HTTP/")
OK = b"HTTP/1.1 200 OK\r\n"
CODED_1_0 = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"

_TOKEN = st.text("abcXYZ019-_!~", min_size=1, max_size=8).map(str.encode)
_VALUE = st.binary(max_size=20).map(
    lambda raw: bytes(b for b in raw if b in range(0x21, 0x7F) or b > 0x7F or b in b" \t").strip()
)
_FREE = st.lists(st.tuples(_TOKEN.map(lambda t: b"x-" + t), _VALUE), max_size=4)
_CONNECTION = st.sampled_from([None, b"close", b"keep-alive", b"Close", b"x, close", b"upgrade"])


def _lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(method of the request, all bytes of a good response with its interim ones)."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST"]))
    wire = b""
    for _ in range(draw(st.integers(0, 2))):
        wire += b"HTTP/1.1 103 Early Hints\r\n" + _lines(draw(_FREE)) + b"\r\n"
    status = draw(st.sampled_from([200, 201, 204, 301, 304, 404, 500, 599]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" Not \xe9 Found"]))
    fields = draw(_FREE)
    if connection := draw(_CONNECTION):
        fields.append((draw(st.sampled_from([b"Connection", b"connection"])), connection))
    chunks = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    bodiless = method == b"HEAD" or status in {204, 304}
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if status == 204:
        framing = "close"  # neither field is allowed on a 204
    body = b"".join(chunks)
    if framing == "length":
        fields.append((b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        fields.append((b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        extension = draw(st.sampled_from([b"", b";a=b"]))
        body = b"".join(b"%x%s\r\n%s\r\n" % (len(c), extension, c) for c in chunks)
        body += b"0\r\n" + _lines(draw(_FREE)) + b"\r\n"
    order = draw(st.permutations(fields))
    wire += b"HTTP/%s %d%s\r\n" % (version, status, reason) + _lines(order) + b"\r\n"
    return method, wire + (b"" if bodiless else body)


def _cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[a:b] for a, b in itertools.pairwise(at)]


def _comparable(reading: Reading, oracle: Reading) -> Reading:
    """Ours with the agreed differences for good responses evened out.

    How both are meant to disagree over bad ones is in `tools.fuzz.targets.http_response`.
    """
    reading = attrs.evolve(
        reading,
        headers=tuple(
            (n, v.lower() if n == b"transfer-encoding" else v) for n, v in reading.headers
        ),
        behind=oracle.behind,  # ours says only that there is something
    )
    if reading.http_version == "1.0":  # ours obeys keep-alive there, h11 never reuses
        return attrs.evolve(reading, persistent=oracle.persistent)
    return reading


@given(responses(), st.lists(st.integers(0, 10_000), max_size=6))
def test_good_responses_read_the_same_as_h11_however_they_are_cut(
    response: tuple[bytes, bytes], cuts: list[int]
) -> None:
    method, wire = response
    pieces = _cut(wire, cuts)
    oracle = read_by_h11(method, wire)
    assert not oracle.error
    assert _comparable(read_by_us(method, pieces), oracle) == oracle
    assert read_by_us(method, [bytes([b]) for b in wire]) == read_by_us(method, pieces)


@given(responses(), st.integers(0, 10_000), st.integers(0, 255), st.sampled_from("rid"))
@example((b"GET", OK + b"Content-Length: 3\r\n\r\nabc"), 16, 0x0A, "i")
def test_damaged_responses_are_refused_or_read_the_same_as_h11(
    response: tuple[bytes, bytes], place: int, byte: int, how: str
) -> None:
    method, wire = response
    place %= len(wire)
    keep = place + (how != "i")
    wire = wire[:place] + (b"" if how == "d" else bytes([byte])) + wire[keep:]
    ours, oracle = read_by_us(method, [wire]), read_by_h11(method, wire)
    if ours.error:
        return
    if oracle.error:
        assert EMPTY_LINE_BEFORE_STATUS.search(wire), (ours, oracle)
        return
    assert (ours.status, ours.body) == (oracle.status, oracle.body), (ours, oracle)
    assert not (ours.persistent and oracle.excess)


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"this is not http\r\n\r\n", "invalid HTTP: no HTTP/1.x status line"),
        (b"RTSP/1.0 200 OK\r\n\r\n", "invalid HTTP: no HTTP/1.x status line"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "invalid HTTP: HTTP version other than 1.0 or 1.1"),
        (b"HTTP/1.1 099 X\r\n\r\n", "invalid HTTP: status code under 100"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "invalid HTTP: invalid status code"),
        (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nabc", "invalid HTTP: 101"),
        (b"HTTP/1.1 101 X\r\n\r\n", "invalid HTTP: 101 without a request for an upgrade"),
        (OK[:-2] + b"\nA: b\r\n\r\n", "invalid HTTP: missing expected CR"),
        (OK + b"A: b\r\n c\r\n\r\n", "invalid HTTP: unexpected whitespace after header value"),
        (OK + b"A : b\r\n\r\n", "invalid HTTP: invalid header token"),
        (OK + b"A: b\0\r\n\r\n", "invalid HTTP: invalid header value char"),
        (
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "invalid HTTP: content-Length can't be present with Transfer-Encoding",
        ),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "invalid HTTP: transfer coding other"),
        (OK + b"Transfer-Encoding: identity\r\n\r\nabc", "invalid HTTP: transfer coding other"),
        (
            OK + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
            "invalid HTTP: transfer coding other than chunked, once",
        ),
        (
            OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
            "invalid HTTP: transfer coding other than chunked, once",
        ),
        (
            OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "invalid HTTP: duplicate Content-Length",
        ),
        (OK + b"Content-Length: -3\r\n\r\nabc", "invalid HTTP: invalid character in Content-Len"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "invalid HTTP: invalid character in chunk size",
        ),
        (b"", "closed before the response"),
        (b"HTTP/1.1 200 OK\r\nA: b", "closed inside the response head"),
        (OK + b"Content-Length: 100\r\n\r\nonly thi", "response cut short: 8 of 100 bytes"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "response cut short: 3 bytes",
        ),
    ],
)
def test_each_violation_has_its_own_words(wire: bytes, cause: str) -> None:
    for pieces in ([wire] if wire else [], [bytes([b]) for b in wire]):
        assert read_by_us(b"GET", pieces).error.startswith(cause)


def test_what_came_before_a_fault_stays_readable() -> None:
    reading = read_by_us(b"GET", [OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n!"])
    assert reading.body == b"abc"
    assert reading.error


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
def test_the_head_may_be_exactly_as_long_as_the_limit(piece_bytes: int) -> None:
    start, end = b"HTTP/1.1 103 X\r\n\r\n" + OK + b"X-A: ", b"\r\nContent-Length: 2\r\n\r\n"
    for over, error in ((0, ""), (1, "invalid HTTP: header block over 500 bytes")):
        head = start + b"a" * (500 + over - len(start) - len(end)) + end
        wire = head + b"ok"
        pieces = [wire[i : i + piece_bytes] for i in range(0, len(wire), piece_bytes)]
        reading = read_by_us(b"GET", pieces, limit_bytes=500)
        assert reading.error == error
        assert error or reading.body == b"ok"


def test_interim_responses_without_end_are_cut_off() -> None:
    parser = ResponseParser(1000)
    with pytest.raises(InvalidResponse, match="header block over 1000 bytes"):
        for _ in range(100):
            parser.feed(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("tail", [b"0\r\nT: ", b"3;"])
def test_trailers_and_chunk_extensions_without_end_are_cut_off(tail: bytes) -> None:
    parser = ResponseParser(1000)
    parser.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n" + tail)
    with pytest.raises(InvalidResponse, match="chunk header or trailers over 1000 bytes"):
        for _ in range(20):
            parser.feed(b"a" * 100)


def test_trailers_come_behind_the_body() -> None:
    reading = read_by_us(
        b"GET",
        [OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: end \r\nX-T: 2\r\n\r\n"],
    )
    assert reading.trailers == ((b"x-t", b"end"), (b"x-t", b"2"))
    assert reading.headers == ((b"transfer-encoding", b"chunked"),)
    assert reading.persistent


@pytest.mark.parametrize(
    ("method", "wire", "persistent"),
    [
        (b"GET", OK + b"Content-Length: 2\r\n\r\nok", True),
        (b"GET", OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", False),
        (b"GET", OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", False),
        (b"GET", OK + b"Content-Length: 2\r\n\r\nok!", False),
        (b"GET", OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok!", False),
        (b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True),
        (b"GET", OK + b"\r\nok", False),
        (b"GET", CODED_1_0 + b"1\r\na\r\n0\r\n\r\n", False),
        (b"HEAD", CODED_1_0, False),
        (b"GET", b"HTTP/1.1 204 X\r\n\r\n", True),
        (b"GET", b"HTTP/1.1 304 X\r\nContent-Length: 100\r\n\r\n", True),
        (b"GET", b"HTTP/1.1 304 X\r\n\r\nbody", False),
        (b"HEAD", OK + b"Content-Length: 100\r\n\r\n", True),
        (b"HEAD", OK + b"Content-Length: 0\r\n\r\n", True),
        (b"HEAD", OK + b"\r\n", True),
        (b"HEAD", OK + b"Connection: x, Close\r\n\r\n", False),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", True),
        (b"HEAD", OK + b"Content-Length: 4\r\n\r\nbody", False),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\nbody", False),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n0", False),
        (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"HEAD", b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HEAD", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_a_connection_persists_only_when_that_is_safe(
    method: bytes, wire: bytes, persistent: bool
) -> None:
    reading = read_by_us(method, [wire])
    assert not reading.error
    assert reading.persistent is persistent


@given(st.lists(responses(), min_size=1, max_size=5))
def test_one_parser_reads_one_response_after_another(many: list[tuple[bytes, bytes]]) -> None:
    """Whatever went through it before (HEAD above all), the next response reads as if new."""
    parser = ResponseParser(65536)
    for method, wire in many:
        alone = read_by_us(method, [wire])
        parser.begin(method)
        parser.feed(wire)
        if alone.persistent:
            assert parser.complete
        else:
            parser.feed_eof()
        assert (parser.status, b"".join(parser.body)) == (alone.status, alone.body)
        assert not parser.excess
        if not alone.persistent:
            break


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [104, 110, 150, 198, 199])
def test_an_interim_response_has_no_body_that_could_become_the_next_one_s(status, framing):
    """RFC 9110, 15.2; llhttp would go by the framing."""
    parser = ResponseParser(65536)
    parser.begin(b"GET")
    data = b"HTTP/1.1 %d X\r\n%b\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    with pytest.raises(InvalidResponse, match="interim response with a body"):
        parser.feed(data % (status, framing))
