"""Three scenes: does it work at all, an answer as it comes, a conversation that remembers.

Each is a function of the connector and prints what it does; none catches an error, which is for
the one place that knows how to explain it (`cli.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """A question, the answer printed piece by piece, and when the pieces came."""
    print(f"You: {QUESTION}")
    said = _say(connector, _opening(config, QUESTION))
    print(f"({said.timing()})")


def conversation(connector: OpenAIConnector, config: Config) -> None:
    """A few turns; the API keeps nothing, so each call carries all that was said."""
    history: list[Message] = _opening(config)
    for turn in TURNS:
        print(f"You: {turn}")
        history.append({"role": "user", "content": turn})
        history.append({"role": "assistant", "content": _say(connector, history).text})


SCENES: Final[dict[str, Scene]] = {
    "connection": connection,
    "streaming": streaming,
    "conversation": conversation,
}


def _opening(config: Config, *turns: str) -> list[Message]:
    said = [("system", config.system_prompt), *(("user", turn) for turn in turns)]
    return [Message(role=role, content=content) for role, content in said]


@dataclass(frozen=True)
class _Said:
    """An answer as it came: its pieces, and the seconds from the question to each."""

    pieces: Sequence[str]
    came_s: Sequence[float]

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def timing(self) -> str:
        """Shows that nobody on the way kept the text until it was whole."""
        first_ms, last_ms = (round(came_s * 1000) for came_s in (self.came_s[0], self.came_s[-1]))
        count = len(self.pieces)
        return f"first token after {first_ms} ms, the last of {count} after {last_ms} ms"


def _say(connector: OpenAIConnector, messages: Sequence[Message]) -> _Said:
    """Print the answer as it comes."""
    print("Assistant: ", end="", flush=True)
    pieces: list[str] = []
    came_s: list[float] = []
    asked_s = time.perf_counter()
    try:
        for piece in connector.stream(messages):
            came_s.append(time.perf_counter() - asked_s)
            print(piece, end="", flush=True)
            pieces.append(piece)
    finally:
        print()
    return _Said(pieces, came_s)
