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
        ({"messages": [USER], "max_tokens": -1, "n": 2}, LlmRequest(9, None, 2)),
        ({"contents": "ab", "generationConfig": {"maxOutputTokens": -1}}, LlmRequest(2)),
        ({"contents": "ab", "generationConfig": 7, "max_tokens": 5}, LlmRequest(2, 5)),
        ({"prompt": [True, None, 1.5]}, LlmRequest(8)),
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


MANY = 30_000
MIB = 1024 * 1024


def of_values(count, value=b"1", more=b""):
    """A prompt of a list; it has one more separator than values that have none themselves."""
    return b'{"input":[' + b",  ".join([value] * count) + b"]" + more + b"}"


def test_more_values_than_can_be_looked_at_count_as_prompt_from_end_to_end():
    """To look at the values of 16 MiB took seconds, in which every other call stood still."""
    few = of_values(MANY - 1)
    assert read_request(few) == LlmRequest(4 * (MANY - 1))
    for many in (of_values(MANY), of_values(MANY // 2, b"{}"), of_values(MANY // 2, b"[]")):
        assert read_request(many) == LlmRequest(len(many))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_limits_of_many_values_are_found_where_that_is_cheap(kind):
    limits = b',"max_tokens":7,"n":2'
    many = of_values(MANY, more=limits)
    assert read_request(kind(many)) == LlmRequest(len(many), 7, 2)
    too_many = of_values(MIB, more=limits)
    assert read_request(kind(too_many)) == LlmRequest(len(too_many))


def test_many_values_that_are_no_json_count_from_end_to_end_too():
    body = b"," * 100_000
    assert read_request(body) == LlmRequest(len(body))


def with_image(image_bytes, text):
    """A call as it comes: an image and a text."""
    message = {"content": [{"image_url": {"url": "A" * image_bytes}}, {"text": text}]}
    return json.dumps({"messages": [message], "max_tokens": 9}, ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["a b ", "\n", "é", "日本"])
def test_a_long_body_is_told_apart_where_it_is_images_and_no_long_text(text):
    """Long texts are slow to read, and there is little to tell apart."""
    image = with_image(5 * MIB, text * 1000)
    expected = MEDIA_PROMPT_BYTES + len((text * 1000).encode())
    assert read_request(image) == LlmRequest(expected, 9)
    long_text = with_image(0, text * (5 * MIB // len(text.encode())))
    assert read_request(long_text) == LlmRequest(len(long_text))


def test_a_shorter_text_is_read_whatever_is_in_it():
    assert read_request(with_image(0, "é" * MIB)) == LlmRequest(MEDIA_PROMPT_BYTES + 2 * MIB, 9)


def test_no_body_is_read_that_is_longer_than_any_provider_takes():
    before, after = b'{"messages":[{"source":"', b'"}],"max_tokens":9}'
    body = before + b"A" * (32 * MIB - len(before + after)) + after
    assert read_request(body) == LlmRequest(MEDIA_PROMPT_BYTES, 9)
    assert read_request(body + b" ") == LlmRequest(32 * MIB + 1)


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


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, bytes.decode])
def test_a_long_answer_is_read_where_it_has_few_values(kind):
    """An image is read, what could stop all other calls is not."""
    usage = b'"usage":{"prompt_tokens":5}}'
    dense = b'{"data":[' + b"1," * MIB + b"1]," + usage
    assert read_answer(kind(dense)) == Usage(5, 0, 5)
    too_dense = b'{"data":[' + b"1," * (2 * MIB) + b"1]," + usage
    assert read_answer(kind(too_dense)) is None
    image = b'{"data":"' + b"A" * (5 * MIB) + b'",' + usage
    assert read_answer(kind(image)) == Usage(5, 0, 5)


def test_no_answer_is_read_that_is_longer_than_any():
    assert (
        read_answer(b'{"usage":{"prompt_tokens":5}, "data":"' + b"A" * (32 * MIB) + b'"}') is None
    )


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
