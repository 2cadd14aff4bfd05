"""The connector to copy, against a scripted runtime: what it sends, reads and raises."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.openai_connector import Message, OpenAIConnector
from vastar_client import (
    ConnectorException,
    ErrorClass,
    HTTPRequest,
    HTTPResponse,
    HTTPStatusError,
    RuntimeClient,
    retry_with_backoff,
)
from vastar_client.testing import HOLD, FakeRuntime, respond, respond_events

QUESTION: list[Message] = [{"role": "user", "content": "Why?"}]
COMPLETION = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Därum ✓"}}]}
EVENTS = (
    'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    'data: {"choices":[{"delta":{"content":"Där"}}]}\n\n'
    'data: {"choices":[{"delta":{"content":"um ✓"}}]}\n\n'
    'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
)


def sse(body: str) -> HTTPResponse:
    return respond(body=body, headers={"content-type": "text/event-stream"})


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[OpenAIConnector, FakeRuntime]]]:
    """Connectors to runtimes that give the replies named."""
    clients: list[RuntimeClient] = []

    def build(*replies: Any, **options: Any) -> tuple[OpenAIConnector, FakeRuntime]:
        fake = FakeRuntime(replies)
        clients.append(RuntimeClient(dial=fake.dial))
        return OpenAIConnector(clients[-1], "http://api.example/", "m1", **options), fake

    yield build
    for client in clients:
        client.close()


def request_json(request: HTTPRequest) -> Any:
    return json.loads(bytes(request.body_bytes() or b""))


def test_complete_sends_a_chat_request_and_reads_the_content(make) -> None:
    connector, fake = make(respond(json=COMPLETION), api_key="sk-1", temperature=0.1, timeout_s=9)
    assert connector.complete(QUESTION) == "Därum ✓"
    (request,) = fake.requests
    assert (request.method, request.url) == ("POST", "http://api.example/v1/chat/completions")
    assert request.get_header("authorization") == "Bearer sk-1"
    assert request_json(request) == {
        "model": "m1",
        "messages": QUESTION,
        "temperature": 0.1,
        "stream": False,
    }


def test_without_a_key_no_authorization_is_sent(make) -> None:
    connector, fake = make(respond(json=COMPLETION))
    connector.complete(QUESTION)
    assert fake.requests[0].get_header("authorization") is None


def test_stream_yields_the_deltas(make) -> None:
    """Piece by piece, without the role event and [DONE]."""
    connector, fake = make(sse(EVENTS))
    assert list(connector.stream(QUESTION)) == ["Där", "um ✓"]
    assert request_json(fake.requests[0])["stream"] is True


def test_each_delta_is_there_before_the_next_one_is_made(make) -> None:
    """And who stops to listen stops the API."""
    connector, fake = make(respond_events([_delta("one"), HOLD]), respond(json=COMPLETION))
    deltas = connector.stream(QUESTION)
    assert next(deltas) == "one"
    assert not fake.streams[0].ended
    deltas.close()
    connector.complete(QUESTION)  # on the same connection, so behind the cancellation
    assert fake.streams[0].cancelled


def _delta(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def test_a_stream_that_a_rate_limit_turned_away_is_asked_for_again(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = functools.partial(retry_with_backoff, sleep=lambda _: None)
    monkeypatch.setattr("tools.openai_connector.connector.retry_with_backoff", patient)
    connector, fake = make(respond(429, json={}), respond_events([_delta("a"), "[DONE]"]))
    assert list(connector.stream(QUESTION)) == ["a"]
    assert len(fake.requests) == 2


@pytest.mark.parametrize("body", ["", "data: [DONE]\n\n", "<html>not an API</html>"])
def test_a_stream_without_text_is_an_error(make, body: str) -> None:
    connector, _ = make(sse(body))
    with pytest.raises(ConnectorException, match="is base_url that of") as caught:
        list(connector.stream(QUESTION))
    assert caught.value.error_class is ErrorClass.PERMANENT


@pytest.mark.parametrize(
    "answer",
    [
        respond(body="<html></html>", headers={"content-type": "text/html"}),
        respond(json=[]),
        respond(json={"choices": []}),
        respond(json={"choices": [{"message": {"content": None}}]}),
    ],
)
def test_an_answer_of_another_shape_is_an_error(make, answer: HTTPResponse) -> None:
    connector, _ = make(answer)
    with pytest.raises(ConnectorException, match="not a chat completion"):
        connector.complete(QUESTION)


def test_test_completion_and_models(make) -> None:
    connector, fake = make(
        respond(json=COMPLETION), respond(json={"data": [{"id": "a"}, {"id": "b"}]})
    )
    assert connector.test_completion() == "Därum ✓"
    assert connector.models() == ["a", "b"]
    assert [(request.method, request.url) for request in fake.requests] == [
        ("POST", "http://api.example/test_completion"),
        ("GET", "http://api.example/v1/models"),
    ]
    wrong, _ = make(respond(json={"data": [1]}))
    with pytest.raises(ConnectorException, match="not a list of models"):
        wrong.models()


def test_a_rate_limit_is_waited_out(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as told, and no sooner than the API asks."""
    waits: list[float] = []
    patient = functools.partial(retry_with_backoff, sleep=waits.append)
    monkeypatch.setattr("tools.openai_connector.connector.retry_with_backoff", patient)
    limited = respond(429, json={}, headers={"retry-after": "3"})
    connector, fake = make(limited, limited, respond(json=COMPLETION))
    assert connector.complete(QUESTION) == "Därum ✓"
    assert len(fake.requests) == 3
    assert len(waits) == 2
    assert all(3 <= wait_s <= 4 for wait_s in waits)


def test_a_rate_limit_that_lasts_is_raised(make) -> None:
    connector, fake = make(respond(429, json={}, headers={"retry-after": "3"}), max_retries=0)
    with pytest.raises(HTTPStatusError) as caught:
        connector.complete(QUESTION)
    assert caught.value.error_class is ErrorClass.RATE_LIMITED
    assert caught.value.retry_after_ms == 3000
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        respond(500, json={}),
        respond(401, json={}),
        ConnectorException("reset by the upstream", ErrorClass.TRANSIENT),
        ConnectorException("too slow", ErrorClass.TIMEOUT),
    ],
)
def test_nothing_else_is_sent_twice(make, reply: Any) -> None:
    """A completion may have been made, and costs money."""
    connector, fake = make(reply, max_retries=5)
    with pytest.raises(ConnectorException):
        list(connector.stream(QUESTION))
    assert len(fake.requests) == 1


def test_the_key_is_in_no_repr() -> None:
    connector = OpenAIConnector(RuntimeClient(), "http://x", "m", api_key="sk-secret")
    assert "sk-secret" not in repr(connector)
