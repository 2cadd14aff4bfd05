"""Content decoding: exact for every chunking, bounded in every step, clear about what is broken."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Iterable
from functools import partial
from itertools import pairwise

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.connectors.http.decoding import (
    BadContent,
    DecompressionBomb,
    codings_of,
    decoder_for,
)

STEP_BYTES = 64 * 1024


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODE = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate raw": raw_deflate,
    "br": partial(brotli.compress, quality=2),
}


def pieces(codings: list[str], *chunks: bytes) -> list[bytes]:
    decoder = decoder_for(codings)
    assert decoder is not None
    found = [piece for chunk in chunks for piece in decoder.decode(chunk)]
    decoder.finish()
    return found


def decoded(codings: list[str], *chunks: bytes) -> bytes:
    return b"".join(pieces(codings, *chunks))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Few bytes, and sizes around those of a step: there output waits inside a decoder.
SIZES = st.one_of(
    st.integers(0, 2000),
    *(st.integers(n * STEP_BYTES - 300, n * STEP_BYTES + 300) for n in (1, 2, 3)),
)


@given(
    size=SIZES,
    seed=st.none() | st.integers(0, 2**32),
    how=st.lists(st.sampled_from(sorted(ENCODE)), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_whatever_the_chunking_a_body_comes_back_as_it_was(size, seed, how, cuts):
    body = bytes(size) if seed is None else random.Random(seed).randbytes(size)
    encoded = body
    for name in how:
        encoded = ENCODE[name](encoded)
    found = pieces([name.split()[0] for name in how], *split(encoded, cuts))
    assert b"".join(found) == body
    assert all(len(piece) <= 2 * STEP_BYTES for piece in found)


@pytest.mark.parametrize("name", sorted(ENCODE))
def test_a_body_cut_into_single_bytes_comes_back_as_it_was(name):
    encoded = ENCODE[name](b"hello hello hello")
    assert decoded([name.split()[0]], *split(encoded, list(range(len(encoded))))) == (
        b"hello hello hello"
    )


@pytest.mark.parametrize("name", sorted(ENCODE))
def test_no_output_is_left_inside_when_a_step_ends_with_the_input(name):
    """A raw deflate stream has nothing behind its last symbol that would call for one more step."""
    for around in (STEP_BYTES, 2 * STEP_BYTES):
        for size in range(around - 2, around + 270):
            assert decoded([name.split()[0]], ENCODE[name](bytes(size))) == bytes(size)


@given(
    bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    padding=st.integers(0, 5),
)
def test_gzip_members_follow_each_other_as_in_the_standard_library(bodies, cuts, padding):
    encoded = (bytes(padding)).join(map(gzip.compress, bodies)) + bytes(padding)
    assert decoded(["gzip"], *split(encoded, cuts)) == gzip.decompress(encoded) == b"".join(bodies)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
@pytest.mark.parametrize("rubbish", [b"junk", b"\0junk", b"\xff" * 100])
def test_rubbish_behind_the_end_is_ignored_in_the_same_piece_and_in_a_later_one(name, rubbish):
    encoded = ENCODE[name](b"abc")
    assert decoded([name], encoded + rubbish) == b"abc"
    assert decoded([name], encoded, rubbish) == b"abc"
    assert decoded([name], encoded, rubbish[:1], rubbish[1:], gzip.compress(b"no")) == b"abc"


@pytest.mark.parametrize("name", ["gzip", "deflate"])
@pytest.mark.parametrize("byte", [b"\0", b"x"])
def test_what_follows_the_end_costs_no_memory(name, byte):
    decoder = decoder_for([name])
    assert decoder is not None
    assert b"".join(decoder.decode(ENCODE[name](b"abc"))) == b"abc"
    chunk = byte * STEP_BYTES
    tracemalloc.start()
    try:
        for _ in range(64):
            assert list(decoder.decode(chunk)) == []
        assert tracemalloc.get_traced_memory()[1] < 4 * STEP_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted(ENCODE))
def test_a_body_that_ends_too_early_is_told(name):
    encoded = ENCODE[name](b"hello " * 100)
    coding = name.split()[0]
    said = {"x-gzip": "gzip"}.get(coding, coding)
    for end in (1, len(encoded) // 2, len(encoded) - 1):
        with pytest.raises(BadContent) as caught:
            decoded([coding], encoded[:end])
        assert str(caught.value) == f"the {said} body ends before its end"


@pytest.mark.parametrize("name", ["gzip", "br"])
def test_a_body_of_another_kind_is_told(name):
    with pytest.raises(BadContent) as caught:
        decoded([name], b"<html>not compressed at all, at all</html>")
    assert str(caught.value) == f"the body is not valid {name}"


def test_a_wrong_checksum_is_told():
    for name, encoded in (("gzip", gzip.compress(b"abc")), ("deflate", zlib.compress(b"abc"))):
        spoiled = bytearray(encoded)
        spoiled[-5 if name == "gzip" else -1] ^= 1
        with pytest.raises(BadContent) as caught:
            decoded([name], bytes(spoiled))
        assert str(caught.value) == f"the body is not valid {name}"


def test_a_later_member_that_breaks_is_told_and_never_left_out():
    first = gzip.compress(b"abc")
    second = bytearray(gzip.compress(random.Random(1).randbytes(5000)))
    second[-5] ^= 1
    for cut in (0, 1, 2, 40, 3000, len(second) - 8):
        with pytest.raises(BadContent):
            decoded(["gzip"], first + bytes(second[:cut]), bytes(second[cut:]))


def test_a_gzip_body_of_very_many_members_is_refused_at_the_bound():
    member = gzip.compress(b"")
    assert decoded(["gzip"], gzip.compress(b"a") * 1000 + bytes(9)) == b"a" * 1000
    for chunks in ([member * 1001], [member] * 1001, [member * 1000, b"", member]):
        with pytest.raises(BadContent, match="the gzip body has more than 1000 members"):
            decoded(["gzip"], *chunks)


def test_members_inside_a_second_coding_are_refused_having_taken_one_step():
    encoded = gzip.compress(gzip.compress(b"") * 200_000)
    decoder = decoder_for(["gzip", "gzip"])
    assert decoder is not None
    steps = []
    with pytest.raises(BadContent, match="members"):
        steps.extend(decoder.decode(encoded))
    assert len(steps) <= 1


@pytest.mark.parametrize("inner", ["gzip", "deflate"])
def test_padding_inside_a_second_coding_is_told_in_steps_and_bounded(inner):
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    padding = bytes(1 << 20)
    parts = [compressor.compress(ENCODE[inner](b"hi"))]
    parts += [compressor.compress(padding) for _ in range(65)]
    encoded = b"".join([*parts, compressor.flush()])
    decoder = decoder_for([inner, "gzip"])
    assert decoder is not None
    steps: list[bytes] = []
    with pytest.raises(DecompressionBomb) as caught:
        for piece in decoder.decode(encoded):
            steps.append(piece)  # noqa: PERF402 - what came before the refusal counts
    assert b"".join(steps) == b"hi"
    assert 1000 <= len(steps) <= 1030
    assert str(caught.value) == (
        "the body is encoded several times and longer than 67108864 bytes in between"
    )


def test_rubbish_behind_a_br_body_is_told_in_the_same_piece_and_in_a_later_one():
    encoded = brotli.compress(b"abc")
    for chunks in ([encoded + b"junk"], [encoded, b"junk"]):
        with pytest.raises(BadContent):
            decoded(["br"], *chunks)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br"])
def test_no_bytes_at_all_are_an_empty_body(coding):
    assert decoded([coding]) == decoded([coding], b"") == b""


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        ("gzip", ["gzip"]),
        ("GZIP", ["gzip"]),
        (" gzip ,\tBr", ["gzip", "br"]),
        ("identity", []),
        ("identity, gzip", ["gzip"]),
        (",,gzip,", ["gzip"]),
        ("", []),
    ],
)
def test_codings_are_listed_in_order(value, codings):
    assert codings_of(value) == codings


@pytest.mark.parametrize(
    "codings", [[], ["zstd"], ["gzip", "compress"], ["aes128gcm", "gzip"], ["gzip"] * 5]
)
def test_what_is_unknown_or_too_deep_is_not_decoded(codings):
    assert decoder_for(codings) is None


def test_the_coding_applied_last_is_undone_first():
    assert decoded(["gzip", "br"], brotli.compress(gzip.compress(b"abc"))) == b"abc"
    with pytest.raises(BadContent):
        decoded(["br", "gzip"], brotli.compress(gzip.compress(b"abc")))


# --- bombs --------------------------------------------------------------------------------------

CHAINS = [
    ["gzip"],
    ["deflate"],
    ["br"],
    ["gzip", "gzip"],
    ["gzip", "br"],
    ["br", "deflate", "gzip"],
]


def encoded_as(codings: list[str], body: bytes) -> bytes:
    for coding in codings:
        body = ENCODE[coding](body)
    return body


def most_ratio(codings: list[str]) -> int:
    return 10_000 if "br" in codings else 1000


def refused_after(codings: list[str], chunks: Iterable[bytes]) -> tuple[int, str]:
    """How much came of a bomb until it was refused, and the words."""
    decoder = decoder_for(codings)
    assert decoder is not None
    total = 0
    with pytest.raises(DecompressionBomb) as caught:
        for chunk in chunks:
            for piece in decoder.decode(chunk):
                total += len(piece)
    return total, str(caught.value)


@pytest.mark.parametrize("codings", CHAINS)
@pytest.mark.parametrize("size", [1, 1000, 1 << 30])
def test_a_bomb_is_refused_at_its_ratio_in_steps_of_bounded_memory(codings, size):
    encoded = encoded_as(codings, bytes(64 << 20))
    chunks = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    tracemalloc.start()
    try:
        total, words = refused_after(codings, chunks)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert 900_000 < total <= max(1 << 20, len(encoded) * most_ratio(codings))
    assert words == (
        f"the body ({', '.join(codings)}) decodes to more than {most_ratio(codings)} times its "
        "length, as a decompression bomb does"
    )


@pytest.mark.parametrize("codings", CHAINS)
def test_less_than_a_mebibyte_may_have_any_ratio(codings):
    body = bytes(1 << 20)
    assert decoded(codings, encoded_as(codings, body)) == body


@pytest.mark.parametrize("codings", CHAINS)
def test_what_compresses_well_but_is_no_bomb_comes_whole(codings):
    row = b'{"id": null, "name": "nobody", "tags": [], "parent": null, "state": "unknown"},\n'
    rows = b"".join(b"%d,%b" % (number, row) for number in range(60_000))
    encoded = encoded_as(codings, rows)
    assert len(rows) > 20 * len(encoded)
    assert decoded(codings, encoded) == rows


def test_the_ratio_is_of_all_that_came_and_the_first_bytes_are_free():
    """A long run of zeros behind a body of the usual kind is nothing to refuse."""
    usual = random.Random(1).randbytes(100_000)
    body = usual + bytes(32 << 20)
    assert decoded(["gzip"], gzip.compress(body)) == body


def test_many_small_members_make_no_bomb_of_a_long_body():
    member = gzip.compress(bytes(64 << 10))
    total, words = refused_after(["gzip"], [member * 1001])
    assert total == 1000 * (64 << 10)
    assert "members" in words
