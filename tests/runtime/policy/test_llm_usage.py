"""Bodies of LLM calls as tables: what they may cost, and what they did."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.llm_usage import (
    MEDIA_PROMPT_BYTES,
    LlmRequest,
    StreamUsage,
    Usage,
    read_answer,
    read_request,
)

USER = {"role": "user", "content": "hello"}  # nine bytes of text, the role's too


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [USER]}, LlmRequest(9)),
        ({"messages": [USER], "max_tokens": 100}, LlmRequest(9, 100)),
        ({"messages": [USER], "max_completion_tokens": 7, "max_tokens": 9}, LlmRequest(9, 7)),
        ({"messages": [USER], "max_tokens": 100, "n": 3}, LlmRequest(9, 100, 3)),
        ({"messages": [USER], "max_tokens": 100, "n": 10**6}, LlmRequest(9, 100, 128)),
        ({"messages": [USER], "max_tokens": None, "n": 0}, LlmRequest(9, None, 1)),
        ({"messages": [USER], "max_tokens": 0}, LlmRequest(9, 0)),
        ({"messages": [USER], "max_tokens": -5}, LlmRequest(9)),
        ({"messages": [USER], "max_tokens": "many"}, LlmRequest(9)),
        ({"messages": [USER], "max_tokens": 10**12}, LlmRequest(9)),
        ({"system": "be kind", "messages": [USER], "max_tokens": 5}, LlmRequest(16, 5)),
        ({"instructions": "abc", "input": "de", "max_output_tokens": 6}, LlmRequest(5, 6)),
        ({"prompt": "é"}, LlmRequest(2)),
        ({"input": [[1, 2, 3], [4]]}, LlmRequest(16)),
        ({"model": "is not counted"}, LlmRequest(0)),
        (
            {
                "contents": [{"parts": [{"text": "abcd"}]}],
                "generationConfig": {"maxOutputTokens": 8, "candidateCount": 2},
            },
            LlmRequest(4, 8, 2),
        ),
        (
            {"messages": [{"content": [{"image_url": {"url": "data:" + "A" * 100_000}}]}]},
            LlmRequest(MEDIA_PROMPT_BYTES),
        ),
        ([], LlmRequest(2)),
        ("text", LlmRequest(6)),
    ],
)
def test_requests(body, expected):
    assert read_request(json.dumps(body).encode()) == expected


def test_what_is_no_json_counts_as_prompt_from_end_to_end():
    assert read_request(b"\xff\xfe{") == LlmRequest(3)
    deep = b'{"messages":' + b"[" * 100_000
    assert read_request(deep) == LlmRequest(len(deep))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"usage": {"prompt_tokens": 57, "completion_tokens": 92, "total_tokens": 149}},
            Usage(57, 92, 149),
        ),
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0, 8)),
        ({"usage": {"input_tokens": 10, "output_tokens": 5}}, Usage(10, 5, 15)),
        (
            {
                "usage": {
                    "input_tokens": 10,
                    "output_tokens": 5,
                    "cache_creation_input_tokens": 100,
                    "cache_read_input_tokens": 1000,
                }
            },
            Usage(110, 5, 115),
        ),
        (
            {
                "usageMetadata": {
                    "promptTokenCount": 3,
                    "candidatesTokenCount": 4,
                    "thoughtsTokenCount": 5,
                }
            },
            Usage(3, 9, 12),
        ),
        ({"usage": {"output_tokens": 5}}, Usage(0, 5, 5)),
        ({"usage": None}, None),
        ({"usage": {}}, None),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 5}}, None),
        ({"usage": {"prompt_tokens": "57"}}, None),
        ({"usage": {"prompt_tokens": 10**15}}, None),
        ({"usage": [1]}, None),
        ({"error": {"message": "no"}}, None),
        ([], None),
    ],
)
def test_answers(answer, expected):
    assert read_answer(json.dumps(answer).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_an_answer_that_cannot_be_read_says_nothing(body):
    assert read_answer(body) is None


def usage_of(*events):
    stream = StreamUsage()
    for event in events:
        stream.feed_event(event if isinstance(event, str) else json.dumps(event))
    return stream.usage


def test_an_openai_stream_says_it_in_its_last_event():
    chunk = {"choices": [{"delta": {"content": "hi"}}], "usage": None}
    last = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    assert usage_of(chunk, chunk, last, "[DONE]") == Usage(5, 2, 7)
    assert usage_of(chunk, "[DONE]") is None


def test_a_responses_stream_says_it_when_completed():
    done = {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}},
    }
    assert usage_of({"type": "response.created", "response": {"usage": None}}, done) == Usage(
        5, 2, 7
    )


def test_an_anthropic_stream_says_it_in_pieces_that_count_up():
    start = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 25, "output_tokens": 1}},
    }
    deltas = [
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": n}} for n in (7, 15)
    ]
    assert usage_of(start) == Usage(25, 1, 26)
    assert usage_of(start, *deltas) == Usage(25, 15, 40)


def test_events_without_usage_are_not_even_parsed():

    class Unparsed(StreamUsage):
        def feed(self, document):
            pytest.fail(f"parsed {document}")

    stream = Unparsed()
    stream.feed_event('{"choices":[{"delta":{"content":"its usage"}}]}')
    assert stream.usage is None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_makes_it_raise(body):
    assert read_request(body).prompt_bytes >= 0
    read_answer(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "messages", "max_tokens", "message", "content", "source"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_json_makes_it_raise_and_no_count_is_negative(value):
    body = json.dumps(value).encode()
    request = read_request(body)
    assert request.prompt_bytes >= 0
    assert (request.max_tokens or 0) >= 0
    usage = read_answer(body)
    assert usage is None or usage.total_tokens >= 0
