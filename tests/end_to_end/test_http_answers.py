"""What a caller gets for what an upstream answered, in both formats, key by key."""

import base64
import gzip
from functools import partial

import brotli
import msgspec
import pytest

from tests.support.http_calls import (
    NATIVE,
    ORIGIN,
    RAW_PORT,
    RAW_URL,
    json_of,
    native_of,
    native_payload,
    raw,
)
from tests.support.running import running
from vastar_client.wire import Disposition, ErrorClass, PayloadFormat, ResponseFormat

gzipped = partial(gzip.compress, mtime=0)  # workers must agree on the names of the tests


async def answered(head: bytes, body: bytes = b"", **keys: object) -> dict[str, object]:
    """The JSON answer to a GET of an upstream that sends these bytes and closes."""
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head.replace(b"\n", b"\r\n") + b"\r\n" + body)
        return json_of(await runtime.http({"url": RAW_URL, **keys}))


async def test_the_json_form_has_these_keys_and_no_others(autojump_clock):
    fields = await answered(b"HTTP/1.1 200 OK\nX-One: A b\nContent-Length: 2\n", b"hi")
    assert fields == {
        "body": "hi",
        "headers": {"x-one": "A b", "content-length": "2"},
        "is_streaming": False,
        "status_code": 200,
        "success": True,
    }


async def test_repeated_headers_are_joined_and_listed_and_set_cookie_by_newline(autojump_clock):
    fields = await answered(
        b"HTTP/1.1 200 OK\nX-D: first\nSet-Cookie: a=1; Expires=Thu, 01 Jan 2026\nx-d: second\n"
        b"Set-Cookie: b=2\nX-E:\nX-d: first\nContent-Length: 0\n"
    )
    assert fields["headers"] == {
        "x-d": "first, second, first",
        "set-cookie": "a=1; Expires=Thu, 01 Jan 2026\nb=2",
        "x-e": "",
        "content-length": "0",
    }
    assert fields["headers_list"] == [
        ["x-d", "first"],
        ["set-cookie", "a=1; Expires=Thu, 01 Jan 2026"],
        ["x-d", "second"],
        ["set-cookie", "b=2"],
        ["x-e", ""],
        ["x-d", "first"],
        ["content-length", "0"],
    ]


async def test_header_bytes_that_are_not_utf_8_are_read_as_latin_1(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/hdr_latin1"}))
        assert fields["headers"]["x-l"] == fields["headers"]["x-utf"] == "café"


@pytest.mark.parametrize(
    "body",
    [b"", b"text", "é中\N{GRINNING FACE}".encode(), b"\0\x01\x1f\x7f", b'"\\\r\n', b"\xef\xbb\xbf"],
)  # fmt: skip
async def test_a_utf_8_body_is_there_as_text_alone(body, autojump_clock):
    fields = await answered(b"HTTP/1.1 200 OK\nContent-Length: %d\n" % len(body), body)
    assert fields["body"].encode() == body  # type: ignore[attr-defined]
    assert "body_base64" not in fields


@pytest.mark.parametrize(
    "body", [b"\xff", bytes(range(256)), b"\xe9", b"\xc3", b"\xed\xa0\x80", "hi".encode("utf-16")]
)  # fmt: skip
async def test_any_other_body_is_there_twice(body, autojump_clock):
    fields = await answered(b"HTTP/1.1 200 OK\nContent-Length: %d\n" % len(body), body)
    assert fields["body"] == body.decode(errors="replace")
    assert base64.b64decode(fields["body_base64"]) == body  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 429, 500, 503, 599, 999])
async def test_every_status_is_a_success_with_its_number(status, autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/status/{status}"})
        assert answer.error_class is ErrorClass.SUCCESS
        assert answer.disposition is Disposition.COMPLETED
        # Those that may get better were retried; the last answer, and what it asks for, is told.
        assert answer.attempts == (3 if status in {429, 500, 503} else 1)
        # After a 429 the credential rests a little longer than it was asked to, by chance.
        assert answer.retry_after_ms == {429: 1125, 503: 1000}.get(status, 0)
        fields = json_of(answer)
        assert fields["status_code"] == status
        assert fields["success"] is True
        assert fields["body"] == f"status body {status}"


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_format", ["json", "native"])
@pytest.mark.parametrize(
    "wanted", [ResponseFormat.AS_REQUEST, ResponseFormat.JSON, ResponseFormat.NATIVE]
)
async def test_the_answer_is_in_the_format_asked_for(request_format, wanted, autojump_clock):
    url = f"{ORIGIN}/small"
    async with running() as runtime:
        if request_format == "native":
            answer = await runtime.http(native_payload(url), response_format=wanted, **NATIVE)
        else:
            answer = await runtime.http({"url": url}, response_format=wanted)
        native = wanted is ResponseFormat.NATIVE or (
            wanted is ResponseFormat.AS_REQUEST and request_format == "native"
        )
        if native:
            assert answer.payload_format is PayloadFormat.NATIVE
            response = native_of(answer)
            assert (response.status_code, response.url) == (200, url)
            assert msgspec.json.decode(bytes(response.body)) == {"ok": True, "msg": "hello world"}
        else:
            assert json_of(answer)["body"] == '{"ok": true, "msg": "hello world"}'


async def test_native_keeps_order_repeats_and_bytes(autojump_clock):
    body = bytes(range(256)) * 3
    fields = (b"X-D: 1", b"Set-Cookie: a", b"x-d: 2", b"Set-Cookie: b", b"X-L: caf\xe9")
    head = b"\r\n".join((b"HTTP/1.0 203 Eh", *fields, b"\r\n"))
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head + body)
        url = f"http://u:p@127.0.0.1:{RAW_PORT}/a?b#c"
        answer = await runtime.http(native_payload(url), **NATIVE)
    response = native_of(answer)
    assert [tuple(pair) for pair in response.headers] == [
        ("x-d", "1"),
        ("set-cookie", "a"),
        ("x-d", "2"),
        ("set-cookie", "b"),
        ("x-l", "café"),
    ]
    assert bytes(response.body) == body
    assert (response.status_code, response.http_version) == (203, "1.0")
    assert response.url == f"{RAW_URL}/a?b"


async def test_the_native_url_is_the_one_behind_the_redirects(autojump_clock):
    async with running() as runtime:
        answer = await runtime.http(native_payload(f"{ORIGIN}/redir?to=/small%3Fx"), **NATIVE)
        assert native_of(answer).url == f"{ORIGIN}/small?x"


# --- what kinds of bodies there are -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chunked", "ab0ab1ab2"),
        ("/nolen", "until close"),
        ("/http10", "old"),
        ("/early", '{"early": 1}'),
        ("/big?n=300000", "y" * 300_000),
        ("/drip?n=5", "....."),
    ],
)
async def test_a_body_arrives_whole_however_it_is_framed(path, body, autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": ORIGIN + path}))
        assert (fields["status_code"], fields["body"]) == (200, body)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [204, 304])
async def test_no_body_where_there_is_none(method, status, autojump_clock):
    async with running() as runtime:
        payload = {"url": f"{ORIGIN}/status/{status}", "method": method}
        for _ in range(2):  # the connection is kept
            fields = json_of(await runtime.http(payload))
            assert (fields["status_code"], fields["body"]) == (status, "")
        assert len(runtime.upstream.seen("conn_open")) == 1


async def test_head_keeps_the_headers_of_the_body_that_is_not_there(autojump_clock):
    fields = await answered(
        b"HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 1000\n", method="HEAD"
    )
    assert fields["headers"] == {"content-encoding": "gzip", "content-length": "1000"}
    assert fields["body"] == ""


@pytest.mark.parametrize("status", [204, 304])
async def test_so_do_204_and_304(status, autojump_clock):
    fields = await answered(b"HTTP/1.1 %d X\nContent-Encoding: gzip\n" % status)
    assert fields["headers"] == {"content-encoding": "gzip"}


# --- content coding -----------------------------------------------------------------------------


def encoded_head(coding: bytes, size: int) -> bytes:
    return b"HTTP/1.1 200 OK\nX-A: 1\nContent-Encoding: %b\nContent-Length: %d\nX-B: 2\n" % (
        coding,
        size,
    )


CODED = [
    (b"gzip", gzipped(b"hello")),
    (b"GZip", gzipped(b"hel") + gzipped(b"lo")),
    (b"br", brotli.compress(b"hello")),
    (b"gzip, br", brotli.compress(gzipped(b"hello"))),
    (b"identity", b"hello"),
]


@pytest.mark.parametrize(("coding", "data"), CODED)
async def test_a_coding_is_undone_and_the_headers_say_so(coding, data, autojump_clock):
    fields = await answered(encoded_head(coding, len(data)), data)
    assert fields["body"] == "hello"
    if coding != b"identity":
        assert fields["headers"] == {"x-a": "1", "content-length": "5", "x-b": "2"}


async def test_codings_on_several_lines_are_one_list(autojump_clock):
    data = brotli.compress(gzipped(b"hello"))
    fields = await answered(
        b"HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: %d\nContent-Encoding: br\n"
        % len(data),
        data,
    )
    assert (fields["body"], fields["headers"]) == ("hello", {"content-length": "5"})


async def test_an_encoded_body_of_no_bytes_is_undone_too(autojump_clock):
    data = gzipped(b"")
    fields = await answered(encoded_head(b"gzip", len(data)), data)
    assert fields["body"] == ""
    assert fields["headers"] == {"x-a": "1", "content-length": "0", "x-b": "2"}


async def test_no_bytes_at_all_are_no_fault(autojump_clock):
    fields = await answered(encoded_head(b"gzip", 0))
    assert fields["body"] == ""


@pytest.mark.parametrize(
    "keys",
    [
        {"decode_content": False},
        {"headers": {"Accept-Encoding": "gzip"}},
        {"headers": {"aCCEPT-encoding": ""}},
    ],
)
async def test_who_wants_it_raw_gets_it_raw(keys, autojump_clock):
    data = gzipped(b"hello")
    fields = await answered(encoded_head(b"gzip", len(data)), data, **keys)
    assert base64.b64decode(fields["body_base64"]) == data  # type: ignore[arg-type]
    assert fields["headers"]["content-encoding"] == "gzip"  # type: ignore[index]
    assert fields["headers"]["content-length"] == str(len(data))  # type: ignore[index]


@pytest.mark.parametrize("coding", [b"zstd", b"gzip, zstd", b"compress", b"aes128gcm"])
async def test_an_unknown_coding_is_left_alone(coding, autojump_clock):
    data = gzipped(b"hello")
    fields = await answered(encoded_head(coding, len(data)), data)
    assert base64.b64decode(fields["body_base64"]) == data  # type: ignore[arg-type]
    assert fields["headers"]["content-encoding"] == coding.decode()  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gzipped(b"hello")[:-4], "the gzip body ends before its end"),
        (b"hello, this is not gzip", "the body is not valid gzip"),
    ],
)
async def test_a_broken_coding_is_a_transient_fault_with_its_cause(data, why, autojump_clock):
    async with running() as runtime:
        head = encoded_head(b"gzip", len(data)).replace(b"\n", b"\r\n") + b"\r\n"
        runtime.network.handlers[RAW_PORT] = raw(head + data)
        answer = await runtime.http({"url": RAW_URL})
        assert answer.error_class is ErrorClass.TRANSIENT
        assert answer.error_message == f"HTTP request failed: {RAW_URL}: {why}"
        assert answer.payload is None
        assert answer.disposition >= Disposition.RESPONSE_STARTED
