"""The published names for event streams of chat completions."""

import json

import pytest

from vastar_client.response import HTTPResponse
from vastar_client.sse_parser import SSEParser
from vastar_client.wire.sse import SSELimitError


def event(content, **more):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": content}}], **more})


ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}'
USAGE = 'data: {"choices":[],"usage":{"total_tokens":3}}'
STREAM = "\n\n".join([ROLE, event("Hel"), event("lo é"), USAGE, "data: [DONE]", ""])


@pytest.mark.parametrize(
    "source",
    [
        STREAM,
        STREAM.encode(),
        STREAM.replace("\n", "\r\n"),
        HTTPResponse(1, 200, {}, STREAM.encode()),
        [STREAM.encode()[i : i + 1] for i in range(len(STREAM.encode()))],
        iter([STREAM]),
    ],
    ids=["str", "bytes", "crlf", "response", "chunks", "iterator"],
)
def test_the_text_of_a_stream(source):
    assert SSEParser.parse_stream(source) == "Hello é"


def test_the_generator_gives_each_delta():
    assert list(SSEParser.parse_stream_generator(STREAM)) == ["Hel", "lo é"]


@pytest.mark.parametrize(
    ("chunk", "content"),
    [
        (event("a"), "a"),
        (event("a") + "\n\n", "a"),
        (event("a") + "\r", "a"),
        ('data: {"id":"1","delta":{"content":"top level"}}', "top level"),
        ("data: [DONE]", None),
        (ROLE, None),
        (USAGE, None),
        (": comment", None),
        ("", None),
        ("data: not json", None),
        ("data: 5", None),
        ('data: {"choices":[{"delta":{"content":null}}]}', None),
        ('data: {"choices":[{"delta":null}]}', None),
        ('data: {"choices":"x"}', None),
        ('data: {"error":{"message":"m"}}', None),
        ('data: {"choices":[{"delta":{"content":"cut', None),
        ('data: {"choices":' + "[" * 100_000, None),
    ],
)
def test_one_chunk(chunk, content):
    assert SSEParser.parse_chunk(chunk) == content


def test_chunks_split_as_the_published_guide_does():
    chunks = [c for c in STREAM.split("\n\n") if c.startswith("data: ")]
    assert "".join(filter(None, map(SSEParser.parse_chunk, chunks))) == "Hello é"


def test_an_endless_line_is_refused():
    with pytest.raises(SSELimitError):
        SSEParser.parse_stream(b"data: " + b"x" * 2_000_000)
