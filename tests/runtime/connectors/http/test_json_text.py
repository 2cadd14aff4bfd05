"""Long JSON strings in pieces: whatever the pieces, they say what the whole says."""

import json
from base64 import b64encode

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vastar_runtime.connectors.http.json_text import bytes_of_base64, utf8_of_text

SIZES = st.integers(16, 40)
TOKENS = [
    *("\\\\", '\\"', "\\n", "\\/", "\\u00e9", "\\ud83d\\ude00", "\\uD83D\\uDE00", "\\u0041"),
    *("a", "uD83D", "é", "€", "😀", "xyz" * 5),
]


def raw(text: bytes) -> msgspec.Raw:
    return msgspec.Raw(text)


@given(st.lists(st.sampled_from(TOKENS), max_size=60), SIZES)
@example(["\\\\"] * 40, 17)
@example(["a", *["\\ud83d\\ude00"] * 10], 18)
@example(["aaa", *["\\\\", "uD83D"] * 10], 16)
@example(["a", *["😀"] * 20], 16)
def test_pieces_of_text_say_what_the_whole_says(tokens: list[str], size: int) -> None:
    text = f'"{"".join(tokens)}"'
    pieces = [*utf8_of_text(raw(text.encode()), size)]
    assert b"".join(pieces) == json.loads(text).encode()
    assert all(len(piece) <= size for piece in pieces)
    assert len(pieces) <= len(text.encode()) // (size - 12) + 1


@given(st.binary(max_size=100), SIZES, st.booleans())
@example(b"\x04\x10A" * 3 + b"\x04\x11\x01\x01\x01\x01\x05", 28, True)  # cut within the padding
def test_pieces_of_base64_say_what_the_whole_says(
    data: bytes, size: int, escaped: bool
) -> None:  # fmt: skip
    text = b64encode(data).decode().replace("/", "\\/")
    if escaped:
        text = text.replace("A", "\\u0041")
    assert b"".join(bytes_of_base64(raw(f'"{text}"'.encode()), size)) == data


@pytest.mark.parametrize(
    "text",
    [
        "QQ==" * 8,
        "QUJD" * 3 + "QQ==QUJDQUJDQUJD",
        "QUJD" * 4 + "QUI",
        "QUJD" * 8 + "Q",
        "QUJD" * 8 + "QQ",
        "QUJ-" * 8,
        "Q é " * 8,
    ],
)
@pytest.mark.parametrize("size", [16, 19, 1000])
def test_what_is_not_base64_is_refused_in_pieces_too(text: str, size: int) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        b"".join(bytes_of_base64(raw(f'"{text}"'.encode()), size))
    assert not isinstance(caught.value, msgspec.DecodeError)


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\x80" * 40, b"\xf0\x9f\x98"])
@pytest.mark.parametrize("lead", [0, 13, 15])
def test_what_is_not_utf8_is_refused(bad: bytes, lead: int) -> None:
    with pytest.raises(UnicodeDecodeError):
        b"".join(utf8_of_text(raw(b'"%b%b%b"' % (b"a" * lead, bad, b"b" * 40)), 16))
