"""The connector itself: the piece to copy.

It builds requests, sends them through a `RuntimeClient` and reads the answers; connections, TLS,
pooling and the deadline are the runtime's business. What goes wrong comes out as
`ConnectorException` (an HTTP status of 400 or more as its subclass `HTTPStatusError`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypedDict, TypeVar

from vastar_client import (
    ConnectorException,
    ErrorClass,
    HTTPResponse,
    RuntimeClient,
    Stream,
    StreamResponse,
    retry_with_backoff,
)

_Answer = TypeVar("_Answer", HTTPResponse, StreamResponse)


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


class OpenAIConnector:
    """Chat completions of OpenAI, or of whatever speaks its API.

    Args:
        client: a client of the runtime; it stays the caller's to close.
        base_url: such as `https://api.openai.com`, without `/v1`.
        model: the model's name.
        api_key: sent as a bearer token where it is given.
        temperature: 0 to 2.
        timeout_s: longest time that one call may take, everything included.
        max_retries: repeats of a call that was turned away by a rate limit.
    """

    def __init__(
        self,
        client: RuntimeClient,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float = 0.7,
        timeout_s: float = 60.0,
        max_retries: int = 2,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._max_retries = max_retries

    def complete(self, messages: Sequence[Message]) -> str:
        """The model's answer, whole.

        Raises:
            ConnectorException: the call failed, or its answer is no chat completion.
        """
        return _content(self._post("/v1/chat/completions", self._chat(messages, stream=False)))

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The model's answer in the pieces in which it comes, each as soon as it is there.

        Raises:
            ConnectorException: the call failed, or the answer held no text.
        """
        # Leaving the block early, as when the caller stops iterating, stops the API too.
        with ExitStack() as opened:
            response = self._retried(lambda: opened.enter_context(self._ask(messages)))
            empty = True
            for delta in response.content_deltas():
                empty = False
                yield delta
            if empty:
                raise _unexpected(response, "a stream of chat completion events")

    def test_completion(self) -> str:
        """The simulator's constant answer: proof that everything in between works.

        Raises:
            ConnectorException: the call failed, or its answer is no chat completion.
        """
        return _content(self._post("/test_completion", {}))

    def models(self) -> list[str]:
        """The names of the models that the key may use.

        Raises:
            ConnectorException: the call failed, or its answer is no list of models.
        """
        response = self._client.get(
            f"{self._base_url}/v1/models", headers=self._headers, timeout_s=self._timeout_s
        ).raise_for_status()
        try:
            return [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, LookupError, TypeError):
            raise _unexpected(response, "a list of models") from None

    def _chat(self, messages: Sequence[Message], *, stream: bool) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": list(messages),
            "temperature": self._temperature,
            "stream": stream,
        }

    def _ask(self, messages: Sequence[Message]) -> Stream:
        return self._client.stream(
            "POST",
            self._base_url + "/v1/chat/completions",
            json=self._chat(messages, stream=True),
            headers=self._headers,
            timeout_s=self._timeout_s,
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> HTTPResponse:
        return self._retried(
            lambda: self._client.post(
                self._base_url + path,
                json=body,
                headers=self._headers,
                timeout_s=self._timeout_s,
            )
        )

    def _retried(self, call: Callable[[], _Answer]) -> _Answer:
        # Only what was certainly not carried out is sent again: a completion may cost money, and
        # after a timeout or a lost connection nobody knows whether it was made.
        return retry_with_backoff(
            lambda: call().raise_for_status(),
            max_retries=self._max_retries,
            retryable_errors=[ErrorClass.RATE_LIMITED],
        )


def _content(response: HTTPResponse) -> str:
    """`choices[0].message.content`."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        content = None
    if not isinstance(content, str):
        raise _unexpected(response, "a chat completion")
    return content


def _unexpected(response: HTTPResponse | StreamResponse, wanted: str) -> ConnectorException:
    kind = response.headers.get("content-type", "no content type")
    size = response.received_bytes if isinstance(response, StreamResponse) else len(response.body)
    return ConnectorException(
        f"the answer is not {wanted} (it is {size} bytes, {kind}): "
        "is base_url that of an OpenAI-compatible API?",
        ErrorClass.PERMANENT,
        response.request_id,
    )
