"""Gemini's shapes, as far as the simulator gives them: text candidates, whole or word by word."""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.llm_simulator._answers import Prompt, words_with_spaces
from tools.llm_simulator._openai import DONE
from tools.llm_simulator._replies import sse


def prompt_of(fields: Mapping[str, Any]) -> Prompt:
    """What `contents` says; a content without a role is the user's."""
    said = [
        (content.get("role", "user"), " ".join(_texts(content)))
        for content in _list(fields.get("contents"))
        if isinstance(content, dict)
    ]
    turns = tuple(text for role, text in said if role == "user")
    return Prompt(turns, "\n".join(f"{role}: {text}" for role, text in said))


def candidates(text: str) -> dict[str, Any]:
    """`{candidates: [{content: {parts: [{text}]}}]}`."""
    return {"candidates": [{"content": {"parts": [{"text": text}]}}]}


def events(text: str) -> Iterator[bytes]:
    """One word (with the space behind it) per event, then `[DONE]`."""
    for word in words_with_spaces(text):
        yield sse(candidates(word))
    yield DONE


def _texts(content: Mapping[str, Any]) -> list[str]:
    parts = [part.get("text") for part in _list(content.get("parts")) if isinstance(part, dict)]
    return [text for text in parts if isinstance(text, str)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
