"""What coverage-guided fuzzing attacks: functions from bytes to a verdict, each with an oracle.

Every module here is one target: its `check(data)` is given any bytes whatever, makes of them an
input of the code under test, and holds what comes out against something that knows the answer: the
generated code, h11, a slow reader written from the standard, or the same code fed differently. It
returns whether the code took the input (else it refused it in its own way) and raises where both
disagree, or where an error of another class comes out. No target needs atheris: Hypothesis, a
corpus and a loop can call them as well.

This file only names them: importing it loads nothing, so that what is loaded later can be watched.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final

import attrs

__all__ = ["TARGETS", "Check", "Target"]

Check = Callable[[bytes], bool]


@attrs.frozen
class Target:
    """One target.

    Attributes:
        name: of its module here, and of its corpus.
        says: what is held against what, for people.
        watched: top packages whose branches guide the fuzzer; oracles too, where the code under
            test is in C and shows no branches of its own.
        tokens: for the mutator: what inputs of this kind are made of.
        longest_bytes: of one input. Short inputs are many inputs.
    """

    name: str
    says: str
    watched: tuple[str, ...]
    tokens: tuple[bytes, ...] = ()
    longest_bytes: int = 512

    def load(self) -> Check:
        """Its `check`; loads the code under test."""
        check: Check = importlib.import_module(f"{__name__}.{self.name}").check
        return check


_HTTP: Final = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b" 100 Continue\r\n\r\n", b" 204 ", b" 304 ", b" 101 "),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"keep-alive", b"upgrade", b"identity", b"gzip, chunked", b"\r\n\r\n", b"\r\n", b"\n", b"\r"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b";ext=1", b"Trailer: ", b"\r\n ", b"\t", b"\0", b"\x7f"),
    *(b"+5", b"-1", b"0x5", b"18446744073709551616", b"5, 5", b"Host: ", b"\xff"),
)
_MODEL_API: Final = (
    *(b'{"', b'"}', b'":', b"null", b"[[", b"]]", b"1e9", b"-1", b"1000000000", b"\\ud800"),
    *(b'"usage":{', b'"prompt_tokens":', b'"completion_tokens":', b'"input_tokens":'),
    *(b'"output_tokens":', b'"usageMetadata":{', b'"promptTokenCount":', b'"message":{'),
    *(b'"messages":[', b'"content":"', b'"max_tokens":', b'"n":', b'"generationConfig":{'),
    *(b'"image_url":', b'"input":', b'"response":{', b'"cache_creation_input_tokens":'),
)

_PAYLOADS: Final = (
    *(
        b'{"',
        b'"}',
        b'":',
        b"null",
        b"[[[[",
        b"]",
        b"}",
        b"\\ud800",
        b"\xff",
        b"1e999",
        b"-1",
        b"9" * 20,
    ),
    *(b'"sql":"x"', b'"params":[', b'"statements":[{', b'"params_list":[', b'"source":', b'{"$'),
    *(b'{"$decimal":"', b'{"$bytes":"', b'{"$json":', b'"isolation":"serializable"'),
    *(
        b'"url":"http://a.test/"',
        b'"method":',
        b'"headers":{',
        b'"body":',
        b'"query":{',
        b'"timeout_ms":',
    ),
    *(
        b'"body_base64":"',
        b'"status_code":200',
        b'"headers_list":[["a","b"]]',
        b'"choices":[{"delta":{',
    ),
    *(b'"content":"', b"[DONE]", b'"follow_redirects":false'),
)

_ALL: Final = (
    Target(
        "codec",
        "any bytes as any table: our reader against the generated accessors, and written back",
        ("vastar_client",),
    ),
    Target(
        "encoder",
        "messages of any values: written by us, read by both readers, the same values",
        ("vastar_client",),
    ),
    Target(
        "databases",
        "payloads and values of databases: what is read can be said again, as the same",
        ("vastar_client",),
        (b"\xc0", b"\xc7\x10\x03", b"\xd6\x04", b"\xdd", b"\xcf", b"\xcb", b"sql", b"params"),
    ),
    Target(
        "framing",
        "any split of the same bytes: the frames and errors of a reader that has them all",
        ("vastar_client",),
        longest_bytes=200,
    ),
    Target(
        "connection",
        "both ends of the protocol, any split of the same bytes: the same events and errors",
        ("vastar_client",),
        longest_bytes=300,
    ),
    Target(
        "http_response",
        "HTTP/1.1 responses: our parser against h11, whole and in pieces",
        ("vastar_runtime", "h11"),  # llhttp shows no branches: h11's are as good
        _HTTP,
        400,
    ),
    Target(
        "http_exchange",
        "a whole exchange over a channel: what the parser reads, the connection given back once",
        ("vastar_runtime",),
        _HTTP,
        longest_bytes=320,
    ),
    Target(
        "http_request",
        "calls of hostile methods, URLs and headers: refused, or exactly one request to h11",
        ("vastar_runtime", "h11"),
        (*_HTTP, b"http://", b"https://", b"%0d%0a", b"[::1]", b"@", b"#", b"?", b"//", b"\\"),
    ),
    Target(
        "content_coding",
        "gzip, deflate, br and chains of them: in any split the same; what was encoded comes back",
        ("vastar_runtime",),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x78\x9c", b"\0\0\xff\xff", b"\x03\0\0\0\0\0\0\0\0\0"),
    ),
    Target(
        "payloads",
        "payloads from outside, JSON most of all: a value, or the error that is promised",
        ("vastar_client", "vastar_runtime"),
        _PAYLOADS,
    ),
    Target(
        "sse",
        "server-sent events: against a reader written from the WHATWG text, in any split",
        ("vastar_client", "tools"),
        (b"data: ", b"data", b"event: ", b"id: ", b"id: \0", b"retry: 10", b":", b"\r\n", b"\r",
         b"\n\n", b"\xef\xbb\xbf", b"\xe2\x82", b"\xf0\x9f"),
        longest_bytes=200,
    ),
    Target(
        "llm_usage",
        "bodies of LLM calls: nothing is raised, numbers in bounds, as the json module reads them",
        ("vastar_runtime",),
        _MODEL_API,
    ),
    Target(
        "rate_headers",
        "headers about limits: nothing is raised, times are in bounds, durations by their grammar",
        ("vastar_runtime",),
        (b"6m0s", b"20ms", b"1h2m3.5s", b"2026-11-22T10:00:00Z", b'"a";r=50;t=30', b";q=100;w=60",
         b"limit=100, remaining=50, reset=30", b"Wed, 21 Oct 2026 07:28:00 GMT", b"1e9"),
    ),
)  # fmt: skip

TARGETS: Final[Mapping[str, Target]] = {target.name: target for target in _ALL}
