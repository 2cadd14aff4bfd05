"""What the simulator says: every shape that SDKs and programs depend on, whole."""

import json
import re
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import trio

from tests.tools.simulator_client import CHAT, Answer, Client, asking, connect
from tools.llm_simulator import Knobs, Simulator

NOW_S = 1_800_000_000.5


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(wall_time=lambda: NOW_S)


@pytest.fixture
async def client(simulator: Simulator, nursery: trio.Nursery) -> Client:
    return connect(nursery, simulator)


@pytest.mark.parametrize("body", [None, b"{}", b"\xff no JSON at all", {"stream": True}])
async def test_test_completion_is_constant(client: Client, body: object) -> None:
    """Any body or none gives the same compact completion."""
    answer = await client.ask("POST", "/test_completion", body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == json.dumps(answer.json(), separators=(",", ":")).encode()
    found = answer.json()
    content = found["choices"][0]["message"].pop("content")
    assert "connection works" in content
    assert found == {
        "id": "chatcmpl-AjoahzpVUCsJmOQZRKZUze7qBjEjn",
        "object": "chat.completion",
        "created": 1735482595,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 57, "completion_tokens": 92, "total_tokens": 149},
    }


@pytest.mark.parametrize("body", [None, {}, {"stream": None}, asking("Why is the sky blue?")])
async def test_without_stream_the_published_stream(
    client: Client, body: object, autojump_clock: trio.testing.MockClock
) -> None:
    """Always SSE, one chunk an event, ten bytes of text each, usage last, nothing waits."""
    started_s = trio.current_time()
    answer = await client.ask("POST", CHAT, body)
    assert trio.current_time() == started_s
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(answer.parts) == len(answer.events)
    *contents, last = answer.events
    chat_id = last["id"]
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{29}", chat_id)
    for event in contents:
        text = event["choices"][0]["delta"].pop("content")
        assert len(text.encode()) == 10 or event is contents[-1]
        assert list(event) == [
            "id",
            "object",
            "created",
            "model",
            "system_fingerprint",
            "choices",
            "usage",
        ]
        assert event == {
            "id": chat_id,
            "object": "chat.completion.chunk",
            "created": int(NOW_S),
            "model": last["model"],
            "system_fingerprint": last["system_fingerprint"],
            "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}],
            "usage": None,
        }
    assert last["choices"] == []
    check_usage(last["usage"])


async def test_the_published_stream_says_ascii(client: Client) -> None:
    """Else a cut after exactly ten bytes would break a character."""
    answer = await client.ask("POST", CHAT, asking("Über Straßen"))
    assert answer.text.isascii()
    assert b"[DONE]" not in answer.body
    assert len(answer.text) > 100


async def test_ids_differ_without_a_seed(client: Client) -> None:
    first, second = [await client.ask("POST", CHAT, {}) for _ in range(2)]
    assert first.events[0]["id"] != second.events[0]["id"]


async def test_health(client: Client) -> None:
    answer = await client.ask("GET", "/health")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    stamp = datetime.fromisoformat(found.pop("timestamp"))
    assert stamp.timestamp() == NOW_S
    assert stamp.utcoffset() == timedelta(0)
    assert found == {"service": "vastar-llm-simulator", "status": "healthy"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", CHAT),
        ("PUT", CHAT),
        ("POST", "/health"),
        ("POST", "/v1/chat/completions/"),
        ("GET", "/test_completion"),
        ("POST", "/_sim/stats"),
        ("GET", "/_sim/other"),
        ("POST", "/v1beta/models/:generateContent"),
        ("POST", "/v1beta/models/g:countTokens"),
        ("OPTIONS", "/health"),
    ],
)
async def test_unknown_path_or_method_is_an_empty_404(
    client: Client, method: str, path: str
) -> None:
    answer = await client.ask(method, path)
    assert (answer.status, answer.body, answer.headers) == (404, b"", {"content-length": "0"})


@pytest.mark.parametrize("path", ["/health", "/test_completion", "/nothing"])
async def test_head_is_unknown_too_and_has_no_body(client: Client, path: str) -> None:
    """The connection stays usable: a body after HEAD would break the next answer."""
    answer = await client.ask("HEAD", path)
    assert (answer.status, answer.body) == (404, b"")
    assert (await client.ask("GET", "/health")).status == 200


async def test_stream_false_gives_one_completion(client: Client) -> None:
    answer = await client.ask("POST", CHAT, asking("What is a pool?", stream=False))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    check_usage(found.pop("usage"))
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{29}", found.pop("id"))
    message = found["choices"][0]["message"]
    assert "pool" in message.pop("content")
    assert message == {"role": "assistant", "refusal": None}
    assert found["choices"][0] == {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert found["object"] == "chat.completion"
    assert found["created"] == int(NOW_S)
    assert found["model"] == "gpt-4o-mini"


async def test_stream_true_is_what_openai_streams(client: Client) -> None:
    """Role first, then content, then the finish reason, then [DONE]; no usage unasked."""
    answer = await client.ask("POST", CHAT, asking("What is a pool?", stream=True))
    assert answer.headers["content-type"] == "text/event-stream"
    first, *contents, last, done = answer.events
    assert done == "[DONE]"
    assert choice_of(first) == {
        "delta": {"role": "assistant", "content": "", "refusal": None},
        "finish_reason": None,
    }
    assert choice_of(last) == {"delta": {}, "finish_reason": "stop"}
    for event in contents:
        assert list(choice_of(event)["delta"]) == ["content"]
        assert choice_of(event)["finish_reason"] is None
    chunks = [first, *contents, last]
    assert {(c["id"], c["object"], c["model"]) for c in chunks} == {
        (first["id"], "chat.completion.chunk", "gpt-4o-mini")
    }
    assert not any("usage" in chunk for chunk in chunks)


async def test_include_usage_adds_one_event_before_done(client: Client) -> None:
    body = asking("Hello there", stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = (await client.ask("POST", CHAT, body)).events
    assert done == "[DONE]"
    assert usage["choices"] == []
    check_usage(usage["usage"])
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_cuts_are_at_character_boundaries(client: Client) -> None:
    """Streamed and whole answers agree, though they are not ASCII; pieces fill their ten bytes."""
    whole = await client.ask("POST", CHAT, asking("Wie spät?", stream=False))
    text = whole.json()["choices"][0]["message"]["content"]
    streamed = await client.ask("POST", CHAT, asking("Wie spät?", stream=True))
    assert not text.isascii()
    assert streamed.text == text
    pieces = [choice_of(event)["delta"].get("content") for event in streamed.events[1:-2]]
    for piece, following in pairwise(pieces):
        assert 10 - len(following[0].encode()) < len(piece.encode()) <= 10


async def test_answers_follow_prompt_and_seed(simulator: Simulator, nursery: trio.Nursery) -> None:
    """The same prompt and seed give the same bytes; another prompt or seed gives another text."""

    async def body(prompt: str, seed: str) -> bytes:
        client = connect(nursery, simulator)
        headers = {"x-sim-seed": seed}
        return (await client.ask("POST", CHAT, asking(prompt, stream=True), headers)).body

    assert await body("Tell me of trees", "7") == await body("Tell me of trees", "7")
    told = {await body(prompt, seed) for prompt in ("trees", "birds") for seed in ("7", "8")}
    assert len(told) == 4


async def test_without_a_seed_the_text_still_follows_the_prompt(client: Client) -> None:
    first, second = [
        await client.ask("POST", CHAT, asking("Tell me of trees", stream=True)) for _ in range(2)
    ]
    assert first.text == second.text


async def test_a_later_turn_shows_that_the_history_came(client: Client) -> None:
    body = asking("Explain sockets", "They are doors.", "And pipes?", stream=False)
    text = (await client.ask("POST", CHAT, body)).json()["choices"][0]["message"]["content"]
    assert "turn 2" in text
    assert "sockets" in text
    assert "pipes" in text


async def test_content_in_parts_is_read(client: Client) -> None:
    parts = [{"type": "text", "text": "describe volcanoes"}, {"type": "image_url"}]
    body = {"model": "m", "stream": False, "messages": [{"role": "user", "content": parts}]}
    answer = await client.ask("POST", CHAT, body)
    assert "volcanoes" in answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, None),
        (b"\xff\xfe", None, None),
        (b"[1]", None, None),
        (b'"text"', None, None),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": True, "messages": []}, "model", "missing_required_parameter"),
        ({"stream": True, "model": 4, "messages": []}, "model", "invalid_type"),
        ({"stream": False, "model": "m"}, "messages", "missing_required_parameter"),
        ({"stream": True, "model": "m", "messages": []}, "messages", "invalid_type"),
        ({"stream": True, "model": "m", "messages": ["x"]}, "messages[0]", "invalid_type"),
    ],
)
async def test_bad_input_is_a_400_in_openai_s_shape(
    client: Client, body: object, param: str | None, code: str | None
) -> None:
    answer = await client.ask("POST", CHAT, body)
    check_error(answer, 400, "invalid_request_error", param, code)


async def test_embeddings(client: Client) -> None:
    """One small fixed vector per input, a list of tokens being one input."""
    body = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    answer = await client.ask("POST", "/v1/embeddings", body)
    found = answer.json()
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    assert found["data"][0]["embedding"] == found["data"][1]["embedding"]
    assert found["data"][0]["object"] == "embedding"
    assert found["object"] == "list"
    assert found["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    one = await client.ask("POST", "/v1/embeddings", {"input": [1, 2, 3]})
    assert len(one.json()["data"]) == 1
    missing = await client.ask("POST", "/v1/embeddings", {})
    check_error(missing, 400, "invalid_request_error", "input", "missing_required_parameter")


async def test_models(client: Client) -> None:
    found = (await client.ask("GET", "/v1/models")).json()
    assert found["object"] == "list"
    assert "gpt-4o-2024-08-06" in [model["id"] for model in found["data"]]
    assert all(set(m) == {"id", "object", "created", "owned_by"} for m in found["data"])


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Tell me about glaciers"}]}]}


async def test_gemini_whole(client: Client) -> None:
    answer = await client.ask("POST", "/v1beta/models/gemini-2.0:generateContent", GEMINI)
    assert answer.headers["content-type"] == "application/json"
    text = answer.json()["candidates"][0]["content"]["parts"][0]["text"]
    assert answer.json() == {"candidates": [{"content": {"parts": [{"text": text}]}}]}
    assert "glaciers" in text


async def test_gemini_stream_is_one_word_per_event(client: Client) -> None:
    whole = await client.ask("POST", "/v1beta/models/g:generateContent", GEMINI)
    answer = await client.ask("POST", "/v1beta/models/g:streamGenerateContent?alt=sse", GEMINI)
    assert answer.headers["content-type"] == "text/event-stream"
    *events, done = answer.events
    assert done == "[DONE]"
    words = [event["candidates"][0]["content"]["parts"][0]["text"] for event in events]
    assert all(len(word.split()) == 1 for word in words)
    assert [{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in words] == events
    assert "".join(words) == whole.json()["candidates"][0]["content"]["parts"][0]["text"]


async def test_a_seeded_answer_is_the_same_on_another_day(nursery: trio.Nursery) -> None:
    """Ids and times under a seed do not depend on the clock or on earlier requests."""
    bodies = set()
    for now_s in (1.0, 2.0):
        simulator = Simulator(Knobs(seed=3), wall_time=lambda now_s=now_s: now_s)
        client = connect(nursery, simulator)
        if now_s > 1:
            await client.ask("POST", CHAT, {})
        bodies.add((await client.ask("POST", CHAT, asking("Hi", stream=False))).body)
    assert len(bodies) == 1


def choice_of(event: dict) -> dict:
    """The only choice, without what never changes."""
    (choice,) = event["choices"]
    rest = dict(choice)
    assert (rest.pop("index"), rest.pop("logprobs")) == (0, None)
    return rest


def check_usage(usage: dict) -> None:
    assert set(usage) == {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    }
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 0


def check_error(
    answer: Answer, status: int, kind: str, param: str | None, code: str | None
) -> None:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert error.pop("message")
    assert answer.json().keys() == {"error"}
    assert error == {"type": kind, "param": param, "code": code}
