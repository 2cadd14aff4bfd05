"""Three scenes: does it work at all, an answer as it comes, a conversation that remembers.

Each is a function of the connector and prints what it does; none catches an error, which is for
the one place that knows how to explain it (`cli.py`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tools.openai_connector.config import Config
from tools.openai_connector.connector import Message, OpenAIConnector

Scene: TypeAlias = Callable[[OpenAIConnector, Config], None]

QUESTION: Final = "Why does a connection pool make an API client faster?"
TURNS: Final = (
    "What is a circuit breaker in software?",
    "When should it close again?",
    "Sum our talk up in one sentence.",
)
_SHOWN_MODELS = 5


def connection(connector: OpenAIConnector, config: Config) -> None:
    """One small call, to see that runtime, network, API and key work."""
    started_s = time.perf_counter()
    if config.use_real_openai:
        names = connector.models()
        said = f"{len(names)} models, among them {', '.join(names[:_SHOWN_MODELS])}"
    else:
        said = connector.test_completion()
    took_ms = (time.perf_counter() - started_s) * 1000
    print(f"{config.url} answered in {took_ms:.0f} ms: {said}")


def streaming(connector: OpenAIConnector, config: Config) -> None:
    """A question, and the answer printed piece by piece."""
    print(f"You: {QUESTION}")
    _say(connector, _opening(config, QUESTION))


def conversation(connector: OpenAIConnector, config: Config) -> None:
    """A few turns; the API keeps nothing, so each call carries all that was said."""
    history: list[Message] = _opening(config)
    for turn in TURNS:
        print(f"You: {turn}")
        history.append({"role": "user", "content": turn})
        history.append({"role": "assistant", "content": _say(connector, history)})


SCENES: Final[dict[str, Scene]] = {
    "connection": connection,
    "streaming": streaming,
    "conversation": conversation,
}


def _opening(config: Config, *turns: str) -> list[Message]:
    said = [("system", config.system_prompt), *(("user", turn) for turn in turns)]
    return [Message(role=role, content=content) for role, content in said]


def _say(connector: OpenAIConnector, messages: Sequence[Message]) -> str:
    """Print the answer as it comes; the whole of it."""
    print("Assistant: ", end="", flush=True)
    pieces: list[str] = []
    try:
        for piece in connector.stream(messages):
            print(piece, end="", flush=True)
            pieces.append(piece)
    finally:
        print()
    return "".join(pieces)
