"""The caller's payload: every key, every wrong value with the words it is refused with."""

import json
import re
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client.wire import HttpRequest, PayloadFormat, encode_http_request
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.payload import METHODS, HttpCall, parse_payload

URL = "http://h.test/"


def parsed(payload: object = None, **keys: Any) -> HttpCall:
    data = payload if isinstance(payload, bytes) else json.dumps({"url": URL, **keys}).encode()
    return parse_payload(data, PayloadFormat.JSON)


def native(*args: Any, **fields: Any) -> HttpCall:
    data = b"".join(map(bytes, encode_http_request(HttpRequest(*args, **fields))))
    return parse_payload(data, PayloadFormat.NATIVE)


def with_raw(key: str, value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return b'{"url":"http://h.test/","%b":%b}' % (key.encode(), value)


def refusal(payload: bytes) -> str:
    with pytest.raises(InvalidCall) as caught:
        parsed(payload)
    return str(caught.value)


def test_a_url_alone_is_a_get_of_it():
    assert parsed() == HttpCall(method=b"GET", url=URL)
    assert parsed(b' \n\t{"url":"http://h.test/"}\r\n').url == URL


MISSING = "Missing required field: url"
NESTED = (
    "Invalid HTTP params: query.a is nested; expected text, a number, true, false or a list of "
    "these"
)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"{}", MISSING),
        (b'{"url":null}', MISSING),
        # JSON that is no object, as published.
        (b"[]", MISSING),
        (b"3", MISSING),
        (b"null", MISSING),
        (b"true", MISSING),
        (b'"http://h.test/"', MISSING),
        (b"[" * 100_000, MISSING),
        (b"", "Invalid HTTP params: Input data was truncated"),
        (b"{", "Invalid HTTP params: Input data was truncated"),
        (b'{"url":"http://h.test/"', "Invalid HTTP params: Input data was truncated"),
        (b'{"url":"http://h.te', "Invalid HTTP params: Input data was truncated"),
        (
            b'{"url":"http://h.test/"} x',
            "Invalid HTTP params: JSON is malformed: trailing characters (byte 26)",
        ),
        (b"\xff", "Invalid HTTP params: JSON is malformed: invalid character (byte 0)"),
        (
            b'{"url":"\xff"}',
            (
                "Invalid HTTP params: 'utf-8' codec can't decode byte 0xff in position 0: "
                "invalid start byte"
            ),
        ),
        (
            b'{"url":1}',
            "Invalid HTTP params: Expected `str | null`, got `int` - at `$.url`",
        ),
        (
            b'{"url":{}}',
            "Invalid HTTP params: Expected `str | null`, got `object` - at `$.url`",
        ),
        (
            with_raw("headers", "[]"),
            "Invalid HTTP params: Expected `object | null`, got `array` - at `$.headers`",
        ),
        (
            with_raw("headers", '{"a":1}'),
            "Invalid HTTP params: Expected `str`, got `int` - at `$.headers[...]`",
        ),
        (
            with_raw("headers", '{"a":null}'),
            "Invalid HTTP params: Expected `str`, got `null` - at `$.headers[...]`",
        ),
        (
            with_raw("headers", '{"a":["b"]}'),
            "Invalid HTTP params: Expected `str`, got `array` - at `$.headers[...]`",
        ),
        (
            with_raw("method", "5"),
            "Invalid HTTP params: Expected `str | null`, got `int` - at `$.method`",
        ),
        (
            with_raw("follow_redirects", '"no"'),
            "Invalid HTTP params: Expected `bool | null`, got `str` - at `$.follow_redirects`",
        ),
        (
            with_raw("decode_content", "0"),
            "Invalid HTTP params: Expected `bool | null`, got `int` - at `$.decode_content`",
        ),
        (
            with_raw("query", '"a=1"'),
            "Invalid HTTP params: Expected `object | null`, got `str` - at `$.query`",
        ),
        (
            with_raw("query", '{"a":{"b":1}}'),
            NESTED,
        ),
        (
            with_raw("query", '{"a":[1,[2]]}'),
            NESTED,
        ),
    ],
)
def test_what_is_wrong_is_refused_in_these_words(payload, message):
    assert refusal(payload) == message


def test_a_long_key_is_not_told_back_whole():
    assert len(refusal(with_raw("query", json.dumps({"k" * 100_000: {}})))) < 200


# --- the method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(m.decode() for m in METHODS))
def test_every_registered_method_is_taken_in_any_case(method):
    assert parsed(method=method.lower()).method == parsed(method=method).method == method.encode()
    assert native(URL, method).method == method.encode()


def test_no_method_is_get():
    assert parsed(method=None).method == parsed().method == b"GET"


@pytest.mark.parametrize(
    "method",
    ["", "FOO", "CONNECT", "PRI", "GE T", "GET ", "GET\r\nX: y", "GÉT", "\0", "G" * 10_000],
)
def test_other_methods_are_refused(method):
    for parse in (lambda: parsed(method=method), lambda: native(URL, method)):
        with pytest.raises(InvalidCall) as caught:
            parse()
        shown = re.sub(r"[\r\n\0]", "?", method)
        assert str(caught.value) == (
            f"Unsupported HTTP method: {shown[:40]}; expected GET, HEAD, POST, PUT, PATCH, "
            "DELETE, OPTIONS or another method of IANA's registry"
        )


# --- headers ------------------------------------------------------------------------------------


def test_headers_keep_their_order_and_null_is_none():
    assert parsed(headers=None).headers == parsed(headers={}).headers == ()
    assert parsed(headers={"B": "1", "a": "é"}).headers == (("B", "1"), ("a", "é"))


def test_of_a_key_given_twice_the_last_one_counts():
    assert parsed(b'{"url":"http://h.test/","url":"http://i.test/"}').url == "http://i.test/"
    assert parsed(with_raw("headers", '{"a":"1","a":"2"}')).headers == (("a", "2"),)


# --- the body -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ('"text"', b"text"),
        ('""', None),
        ("null", None),
        ('"\\u0000"', b"\0"),
        ('"caf\\u00e9 caf\xe9"', "café café".encode()),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}".encode()),
        ('"\\u003d\\/"', b"=/"),
        ("0", b"0"),
        ("-1", b"-1"),
        ("1.5", b"1.5"),
        ("123456789012345678901234567890", b"123456789012345678901234567890"),
        ("true", b"true"),
        ("false", b"false"),
        ("[]", b"[]"),
        ("{}", b"{}"),
        (' [ 1 , null , "a b" ] ', b'[1,null,"a b"]'),
        ('{"b": {"z": 1, "y": 2}, "a": [{"d": 1}]}', b'{"a":[{"d":1}],"b":{"y":2,"z":1}}'),
        ('{"k": "\\u00e9\\u0001\\""}', '{"k":"é\\u0001\\""}'.encode()),
        ('{"a":1,"a":2}', b'{"a":2}'),
    ],
)  # fmt: skip
def test_a_body_is_the_bytes_of_a_text_or_compact_json(value, body):
    assert parsed(with_raw("body", value)).body == body


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    ).filter(lambda value: value is not None and not isinstance(value, str)),
    st.sampled_from([None, 2]),
)  # fmt: skip
def test_any_json_value_keeps_its_meaning(value, indent):
    body = parsed(with_raw("body", json.dumps(value, indent=indent))).body
    assert isinstance(body, bytes)
    assert json.loads(body) == value
    assert json.dumps(json.loads(body), sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("key", ["body", "url", "method"])
@pytest.mark.parametrize("escape", ["\\ud800", "\\udc00", "\\ud800\\ud800", "a\\ud83dz"])
def test_half_a_surrogate_pair_is_named_for_what_it_is(key, escape):
    said = refusal(b'{"url":"http://h.test/","%b":"%b"}' % (key.encode(), escape.encode()))
    assert "surrogate" in said or said == (
        "Invalid HTTP params: a \\u escape from d800 to dfff without its other half is not text"
    )


@pytest.mark.parametrize("value", [b'"\xff"', b'"ab\xc3"', b'{"a":"\xff"}', b'["\xed\xa0\x80"]'])
def test_a_body_that_is_not_utf_8_is_refused(value):
    assert refusal(with_raw("body", value)).startswith("Invalid HTTP params: body: 'utf-8' codec")


@pytest.mark.parametrize("value", ["1e400", "[-1e999]", '{"a":1e400}', "9" * 5000])
def test_a_number_that_cannot_be_kept_is_refused_rather_than_changed(value):
    assert refusal(with_raw("body", value)) == (
        "Invalid HTTP params: body: a number is out of range; send it as text"
    )


@pytest.mark.parametrize("value", ["NaN", "Infinity", "01", "truex", "'a'", '"a\x01b"'])
def test_what_is_not_json_is_refused(value):
    assert refusal(with_raw("body", value)).startswith("Invalid HTTP params: JSON is malformed: ")


@pytest.mark.parametrize("key", ["body", "unknown", "query"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [2_000, 1_000_000])
def test_nesting_bombs_are_refused(key, opening, depth):
    closing = b"]" if opening == b"[" else b"}"
    said = refusal(with_raw(key, opening * depth + b"1" + closing * depth))
    assert said.startswith("Invalid HTTP params: ")
    assert len(said) < 200


def test_nesting_just_within_the_parser_s_reach_is_no_bug_of_ours():
    """Somewhere below the parser's own bound, writing it out again needs more than reading it."""
    for depth in range(100, 1100, 7):
        text = "[" * depth + "]" * depth
        try:
            assert parsed(with_raw("body", text)).body == text.encode()
        except InvalidCall as error:
            assert "nested too deeply" in str(error)  # noqa: PT017 - either outcome is right


# --- base64 -------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_body_base64_is_any_bytes(data):
    assert parsed(body_base64=b64encode(data).decode()).body == (data or None)


@pytest.mark.parametrize("text", ["!!", "QQ", "Q", "QQ==\n", "Qé==", "QQ==QQ==", "-_-_", "Q Q="])
def test_what_is_not_base64_is_refused(text):
    assert refusal(with_raw("body_base64", json.dumps(text))) == (
        "Invalid HTTP params: body_base64 is not base64 (RFC 4648)"
    )


def test_one_body_only():
    assert parsed(body=None, body_base64="QQ==").body == b"A"
    assert parsed(body="x", body_base64=None).body == b"x"
    for body in ("x", "", 0, False, []):
        with pytest.raises(InvalidCall, match="body and body_base64 are both set; give one"):
            parsed(body=body, body_base64="QQ==")


# --- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 60_000, 2**63])
def test_timeout_ms_is_a_number_from_0(value):
    assert parsed(timeout_ms=value).timeout_ms == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-1", "timeout_ms is -1; expected a non-negative number of milliseconds"),
        (
            str(2**63 + 1),
            f"timeout_ms is {2**63 + 1}; expected a non-negative number of milliseconds",
        ),
        ("1.5", "Expected `int | null`, got `float` - at `$.timeout_ms`"),
        ("1e3", "Expected `int | null`, got `float` - at `$.timeout_ms`"),
        ('"5"', "Expected `int | null`, got `str` - at `$.timeout_ms`"),
        ("true", "Expected `int | null`, got `bool` - at `$.timeout_ms`"),
        ("9" * 5000, "Integer value out of range - at `$.timeout_ms`"),
    ],
)
def test_other_timeouts_are_refused(value, message):
    assert refusal(with_raw("timeout_ms", value)) == f"Invalid HTTP params: {message}"


def test_switches():
    for key in ("follow_redirects", "decode_content"):
        for value, wanted in ((True, True), (False, False), (None, True)):
            assert getattr(parsed(**{key: value}), key) is wanted
        assert getattr(parsed(), key) is True


def test_unknown_keys_are_ignored():
    assert parsed(proxy="http://p/", verify=False, retries=[1, {"a": 2}]) == parsed()


@pytest.mark.parametrize(
    ("url", "query", "wanted"),
    [
        (URL, {"a": 1}, "http://h.test/?a=1"),
        (URL + "?x=1", {"a": 1}, "http://h.test/?x=1&a=1"),
        (URL + "?", {"a": 1}, "http://h.test/?a=1"),
        (URL + "?x&", {"a": 1}, "http://h.test/?x&a=1"),
        (URL + "#f", {"a": 1}, "http://h.test/?a=1#f"),
        (URL + "#f?x=1", {"a": 1}, "http://h.test/?a=1#f?x=1"),
        (URL + "?x=1#f#g", {"a": 1}, "http://h.test/?x=1&a=1#f#g"),
        ("http://h.test", {"a": 1}, "http://h.test?a=1"),
        (URL, {}, URL),
        (URL, None, URL),
        (URL, {"a": None}, URL),
        (URL, {"a": []}, URL),
        (URL, {"a": ""}, "http://h.test/?a="),
        (URL, {"": "b"}, "http://h.test/?=b"),
        (URL, {"b": "x", "a": "y"}, "http://h.test/?b=x&a=y"),
        (URL, {"a": [1, 2.5, "z", True, False, None]}, "http://h.test/?a=1&a=2.5&a=z&a=true&a=false"),
        (URL, {"k&=": "a b&c=d#é+"}, "http://h.test/?k%26%3D=a+b%26c%3Dd%23%C3%A9%2B"),
        (URL, {"a": "\r\n\0"}, "http://h.test/?a=%0D%0A%00"),
    ],
)  # fmt: skip
def test_query_is_appended_encoded(url, query, wanted):
    assert parsed(url=url, query=query).url == wanted


# --- the native form ----------------------------------------------------------------------------


def test_native_says_the_same():
    call = native(
        URL, "post", headers=[("A", "1"), ("a", "2")], body=b"\xff\0", timeout_ms=7,
        follow_redirects=False, decode_content=False,
    )  # fmt: skip
    assert (call.method, call.url, tuple(call.headers)) == (b"POST", URL, (("A", "1"), ("a", "2")))
    assert bytes(call.body) == b"\xff\0"  # type: ignore[arg-type]
    assert (call.timeout_ms, call.follow_redirects, call.decode_content) == (7, False, False)
    assert native(URL) == HttpCall(method=b"GET", url=URL)
    assert native(URL, body=b"").body is None


@given(st.binary(max_size=80))
def test_native_rubbish_is_refused_by_name(data):
    try:
        parse_payload(data, PayloadFormat.NATIVE)
    except InvalidCall as error:
        assert str(error).startswith(  # noqa: PT017 - rubbish may be a message by chance
            ("Invalid HTTP params: ", "Missing required field: ", "Unsupported HTTP method: ")
        )


@given(st.binary(max_size=200))
def test_json_rubbish_is_refused_by_name(data):
    with pytest.raises(InvalidCall) as caught:
        parse_payload(data, PayloadFormat.JSON)
    assert str(caught.value).startswith(("Invalid HTTP params: ", "Missing required field: url"))


def test_a_payload_value_does_not_show_its_secrets():
    call = parsed(
        url="http://u:hunter2@h.test/?key=hunter3",
        headers={"Authorization": "hunter4"},
        body="hunter5",
    )
    assert "hunter" not in repr(call)
