"""Request headers: what is kept, what is dropped, and what is refused without telling values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.headers import (
    declared_bytes,
    encode_headers,
    has_header,
    without_headers,
)


def refusal(*pairs: tuple[str, str], body_bytes: int = 0) -> str:
    with pytest.raises(InvalidCall) as caught:
        encode_headers(pairs, body_bytes)
    return str(caught.value)


def test_order_and_repeats_are_kept_names_in_lower_case():
    pairs = [("B", "1"), ("a", "2"), ("b", "3"), ("X-Empty", "")]
    assert encode_headers(pairs, 0) == [(b"b", b"1"), (b"a", b"2"), (b"b", b"3"), (b"x-empty", b"")]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (" \tx\t ", b"x"),
        ("a\tb", b"a\tb"),
        ("é", b"\xc3\xa9"),
        ("\x80\xff", b"\xc2\x80\xc3\xbf"),
        ("\N{GRINNING FACE}", b"\xf0\x9f\x98\x80"),
        ("x" * 20_000, b"x" * 20_000),
    ],
)
def test_values_go_as_utf_8_without_blanks_around(value, sent):
    assert encode_headers([("a", value)], 0) == [(b"a", sent)]


@pytest.mark.parametrize("control", [chr(n) for n in (*range(9), *range(10, 32), 127)])
@pytest.mark.parametrize("place", ["{}hunter2", "hunter2{}", "hunter2{}x: y"])
def test_control_characters_are_refused_and_the_value_is_not_told(control, place):
    assert refusal(("X-Api", place.format(control))) == (
        "Invalid value of header 'X-Api': CR, LF, NUL and control characters are not allowed"
    )


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":a", "é", "a\r\nb", "a\n", "\0", "a(b)", "a,b", '"a"', "\u212a"]
)
def test_names_that_are_none_are_refused(name):
    said = refusal((name, "v"))
    assert said == (f"Invalid header name {name!r}: expected letters, digits and !#$%&'*+-.^_`|~")
    assert "\n" not in said


def test_a_header_line_given_as_a_name_does_not_tell_its_secret():
    for line in ("Authorization: Bearer hunter2hunter2", "Cookie: sid=hunter2", "api-key=hunter2"):
        assert "hunter" not in refusal((line, ""))


def test_a_name_without_end_is_refused_shortly():
    assert refusal(("x" * 100_000, "v")) == "Invalid header name of 100000 characters: far too long"
    assert encode_headers([("x" * 256, "v")], 0)


@pytest.mark.parametrize(
    "name", ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Expect"]
)
def test_what_is_of_the_connection_is_dropped(name):
    assert encode_headers([("a", "1"), (name, "x"), ("b", "2")], 0) == [(b"a", b"1"), (b"b", b"2")]
    assert "not allowed" in refusal((name, "x\ny"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Transfer-Encoding", "the runtime frames the body itself; leave it out"),
        ("Upgrade", "connections cannot be upgraded to another protocol; leave it out"),
    ],
)
def test_what_would_change_the_message_is_refused(name, why):
    assert refusal((name, "chunked")) == f"Invalid header {name!r}: {why}"
    assert refusal((name.upper(), "chunked")) == f"Invalid header {name.upper()!r}: {why}"


def test_a_content_length_that_agrees_is_left_to_the_transport():
    assert encode_headers([("Content-Length", " 5 "), ("a", "b")], 5) == [(b"a", b"b")]
    assert encode_headers([("Content-Length", "0")], 0) == []


@pytest.mark.parametrize("value", ["4", "05", "+5", "5, 5", "5.0", "0x5", "", "five", "-5"])
def test_any_other_content_length_is_refused(value):
    assert refusal(("Content-Length", value), body_bytes=5) == (
        "Invalid header 'Content-Length': the body has 5 bytes; leave it out"
    )


@pytest.mark.parametrize("value", ["4", "007", "x", ""])
def test_of_a_body_that_follows_the_length_is_read_elsewhere(value):
    assert encode_headers([("Content-Length", value), ("a", "b")], None) == [(b"a", b"b")]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], None),
        ([("Content-Type", "5")], None),
        ([("Content-Length", "0")], 0),
        ([("a", "b"), ("CONTENT-length", "\t5 ")], 5),
        ([("Content-Length", "5"), ("content-length", " 5")], 5),
        ([("Content-Length", "9" * 18)], 10**18 - 1),
    ],
)
def test_the_length_that_a_caller_declares_for_a_body_that_follows(pairs, expected):
    assert declared_bytes(pairs) == expected


@pytest.mark.parametrize("values", [["5", "6"], ["-5"], ["5, 5"], [""], ["\u0665"], ["9" * 19]])
def test_any_other_declaration_is_refused(values):
    with pytest.raises(InvalidCall) as refused:
        declared_bytes([("Content-Length", value) for value in values])
    assert str(refused.value) == (
        "Invalid header 'content-length': give one number of bytes, or none"
    )


def test_one_host_only():
    assert encode_headers([("Host", "a.test")], 0) == [(b"host", b"a.test")]
    assert refusal(("Host", "a"), ("host", "b")) == (
        "Invalid header 'host': it is given twice; give it once"
    )


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("abcXYZ019-_!#$%&'*+.^`|~"), min_size=1, max_size=8),
            st.text(st.characters(exclude_categories=["Cc", "Cs"])),
        )
    )
)
def test_whatever_is_valid_goes_out_once_each_in_order(pairs):
    sent = encode_headers([(f"x{name}", value) for name, value in pairs], 0)
    assert sent == [
        (f"x{name}".lower().encode(), value.encode().strip(b" \t")) for name, value in pairs
    ]


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=4))
def test_nothing_that_breaks_a_line_ever_goes_out(pairs):
    try:
        sent = encode_headers(pairs, 0)
    except InvalidCall:
        return
    for name, value in sent:
        assert not set(name) & set(b"\r\n\0: ")
        assert not set(value) & set(b"\r\n\0")


def test_looking_for_and_leaving_out():
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert has_header(headers, b"a")
    assert not has_header(headers, b"c")
    assert without_headers(headers, frozenset({b"a", b"c"})) == [(b"b", b"2")]


@pytest.mark.parametrize(
    ("count", "value_bytes", "is_taken"),
    [
        (256, 1, True),
        (257, 1, False),
        (1, 65_530, True),
        (1, 65_537, False),
        (16, 4_093, True),
        (16, 4_094, False),
    ],
)
def test_number_and_size_of_headers_are_bounded(
    count: int, value_bytes: int, is_taken: bool
) -> None:
    pairs = [("x-a", "v" * value_bytes)] * count
    if is_taken:
        assert len(encode_headers(pairs, 0)) == count
    else:
        with pytest.raises(InvalidCall, match="Invalid headers: more than 256 of them, or 65536"):
            encode_headers(pairs, 0)
