"""HTTP/1.1 responses: our parser (httptools and our rules) against h11, whole and in pieces.

Input: the method asked with, the bound on heads, from when on bodies are counted, where to cut,
then the bytes. What both take must be the same response. Where one takes what the other refuses
there is a line in `DIFFERENCES`, with the rule that it follows from; anything else is a finding.
"""

import re
from collections.abc import Callable
from typing import Final

import attrs

from tools.fuzz.targets._http import (
    METHODS,
    Reading,
    counting_from,
    read_by_h11,
    read_by_us,
    wire_of,
)
from tools.fuzz.targets._inputs import Input, cut

__all__ = ["DIFFERENCES", "Difference", "check"]

_LIMITS: Final = (65536, 65536, 100)
_COUNTED: Final = (65536, 1)
_QUIET: Final = "chunk header or trailers over"


@attrs.frozen
class Difference:
    """Where ours and h11 are meant to disagree whether bytes are a response.

    Attributes:
        says: what, and the rule it follows from.
        ours: how the words of our error begin; empty where ours takes it and h11 refuses.
        holds: of the bytes, and of what ours read; None where the words say it all.
    """

    says: str
    ours: str
    holds: Callable[[bytes, Reading], object] | None = None


def _has(pattern: bytes) -> Callable[[bytes, Reading], object]:
    search = re.compile(pattern, re.DOTALL | re.IGNORECASE).search
    return lambda wire, _ours: search(wire)


def _has_framing_in_trailers(_wire: bytes, ours: Reading) -> bool:
    return any(name in {b"transfer-encoding", b"content-length"} for name, _ in ours.trailers)


_BARE_LF: Final = _has(rb"(?<!\r)\n")

DIFFERENCES: Final = (
    # Ours is stricter: each is a known way to make two readers see different messages.
    Difference(
        "a bare LF ends no line (RFC 9112, 2.2: a recipient MAY take it)",
        "invalid HTTP: ",
        _BARE_LF,
    ),
    Difference(
        "folded lines are refused (RFC 9112, 5.2: obs-fold must not be sent)",
        "invalid HTTP: ",
        _has(rb"\n[ \t]"),
    ),
    Difference(
        "Content-Length once, one number (RFC 9112, 6.3: repeats MAY be refused)",
        "invalid HTTP: duplicate Content-Length",
    ),
    Difference(
        "the same, as a list in one field",
        "invalid HTTP: invalid character in Content-Length",
        _has(rb"content-length:[ \t]*\d+[ \t]*,"),
    ),
    Difference(
        "no control characters in values (RFC 9110, 5.5: they MAY be kept)",
        "invalid HTTP: invalid header value char",
        _has(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    ),
    Difference(
        "no control characters in the reason phrase (RFC 9112, 4)",
        "invalid HTTP: control character in the reason phrase",
    ),
    Difference(
        "a length beyond 64 bits is none (RFC 9110, 8.6: overflow is to be prevented)",
        "invalid HTTP: content-Length overflow",
    ),
    Difference("the same, of a chunk (RFC 9112, 7.1)", "invalid HTTP: chunk size overflow"),
    Difference(
        "sizes of chunks and their extensions follow their grammar (RFC 9112, 7.1)",
        "invalid HTTP: invalid character in chunk ",
    ),
    Difference(
        "a bare CR ends no line (RFC 9112, 2.2: it MUST be invalid or replaced)",
        "invalid HTTP: ",
        _has(rb"\r(?!\n)"),
    ),
    Difference(
        "HTTP/1.0 and 1.1 are all versions there are of it (RFC 9112, 2.3)",
        "invalid HTTP: HTTP version other than 1.0 or 1.1",
    ),
    Difference(
        "the same, of those that llhttp knows to be none", "invalid HTTP: invalid HTTP version"
    ),
    Difference(
        "a coding with a tab behind it is refused: llhttp takes it for another",
        "invalid HTTP: transfer coding other than chunked, once",
        _has(rb"transfer-encoding:[^\r\n]*\t"),
    ),
    Difference(
        "an interim response has no body, and no framing (RFC 9110, 15.2)",
        "invalid HTTP: interim response with a body",
    ),
    Difference(
        "both framings are refused (RFC 9112, 6.3: it ought to be handled as an error)",
        "invalid HTTP: transfer-Encoding can't be present with Content-Length",
    ),
    Difference(
        "the same, the other way round",
        "invalid HTTP: content-Length can't be present with Transfer-Encoding",
    ),
    Difference(
        "nothing follows a response that says close (RFC 9112, 9.6), an interim one neither",
        "invalid HTTP: data after `Connection: close`",
    ),
    # Ours takes it.
    Difference(
        "what an interim response says of its framing is not read, as it has no body",
        "",
        _has(rb"HTTP/1\.[01] 10[023] [^\n]*\r\n([^\r\n]+\r\n)*transfer-encoding:"),
    ),
    Difference(
        "empty lines in front of a status line are passed over (RFC 9112, 2.2, of requests)",
        "",
        _has(rb"(\A|\r\n\r\n)[\r\n]+HTTP/"),
    ),
    Difference(
        "zeros in front of a length may be many (RFC 9110, 8.6); h11 takes 20 digits",
        "",
        _has(rb"content-length:[ \t]*\d{21}"),
    ),
    Difference(
        "fields of the framing in trailers say nothing (RFC 9110, 6.5.1), and are only passed on",
        "",
        _has_framing_in_trailers,
    ),
)


def check(data: bytes) -> bool:
    """Hold one response against h11 and against itself in pieces; whether ours took it.

    Raises:
        AssertionError: they differ in a way that is not listed.
    """
    source = Input(data)
    method = source.pick(METHODS)
    limit = source.pick(_LIMITS)
    counted = source.pick(_COUNTED)
    cuts = source.cuts()
    wire = wire_of(source)
    whole = read_by_us(method, [wire] if wire else [], limit)
    theirs = read_by_h11(method, wire)
    with counting_from(counted):
        pieces = read_by_us(method, cut(wire, cuts), limit)
    _assert_same_in_pieces(whole, pieces, theirs)
    if limit == _LIMITS[0]:
        _assert_as_h11(wire, whole, theirs)
    return not whole.error


def _has_line_ends_behind(theirs: Reading) -> bool:
    """Whether nothing but empty lines comes behind the response.

    llhttp passes over them, and the connection serves again where they came with it. When they
    come later the pool closes the connection, as one that speaks unasked; counted bodies know too.
    """
    return bool(theirs.behind) and not theirs.behind.strip(b"\r\n")


def _assert_same_in_pieces(whole: Reading, pieces: Reading, theirs: Reading) -> None:
    if _QUIET in whole.error or _QUIET in pieces.error:
        return  # a bound on memory: what comes at once with the end of it was never held
    if whole.error and pieces.error:
        # What came before the fault may have been seen in part only, and of two faults one.
        assert whole.cut_short == pieces.cut_short, (whole, pieces)
        return
    if theirs.error or _has_line_ends_behind(theirs):
        whole, pieces = (attrs.evolve(r, persistent=False, excess=False) for r in (whole, pieces))
    assert whole == pieces, (whole, pieces)


def _assert_as_h11(wire: bytes, ours: Reading, theirs: Reading) -> None:
    if ours.error or theirs.error:
        if bool(ours.error) != bool(theirs.error):
            assert any(_explains(each, wire, ours) for each in DIFFERENCES), (ours, theirs)
        return
    assert (ours.status, ours.http_version, ours.body) == (
        theirs.status,
        theirs.http_version,
        theirs.body,
    ), (ours, theirs)
    assert _fields(ours.headers) == _fields(theirs.headers), (ours, theirs)
    assert _fields(ours.trailers) == _fields(theirs.trailers), (ours, theirs)
    assert ours.reason == theirs.reason, (ours, theirs)
    # Ours may close a connection that could serve again, never the other way round; but one of
    # HTTP/1.0 with keep-alive is used again by ours alone.
    if ours.persistent and not _has_line_ends_behind(theirs):
        assert not theirs.excess, (ours, theirs)
        assert theirs.persistent or ours.http_version == "1.0", (ours, theirs)


def _fields(fields: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    """As h11 gives them: it lowers the value of this one."""
    return [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in fields]


def _explains(difference: Difference, wire: bytes, ours: Reading) -> bool:
    error = ours.error
    if bool(difference.ours) != bool(error) or not error.startswith(difference.ours):
        return False
    return difference.holds is None or bool(difference.holds(wire, ours))
