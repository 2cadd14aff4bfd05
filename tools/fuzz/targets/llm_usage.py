"""Bodies of LLM calls: nothing is raised, numbers are in bounds, and as Python's json reads them.

Input: what to read (a request, an answer, a stream of events), then the body.
"""

import json
import math
from typing import Any, Final

from tools.fuzz.targets._inputs import Input
from vastar_runtime.policy import llm_usage
from vastar_runtime.policy.llm_usage import StreamUsage, Usage

__all__ = ["check"]

_MOST: Final = 10**9
_MOST_ANSWERS: Final = 128
_MEDIA: Final = ("image_url", "source", "inline_data", "inlineData", "input_audio", "file")
_PROMPT: Final = ("messages", "system", "prompt", "input", "instructions", "contents",
                  "systemInstruction", "tools")  # fmt: skip
_READ: Final = ("prompt_tokens", "input_tokens", "promptTokenCount")
_WRITTEN: Final = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_ADDED: Final = ("cache_creation_input_tokens", "thoughtsTokenCount")


def check(data: bytes) -> bool:
    """Read one body; whether it said something.

    Raises:
        AssertionError: a number is out of bounds, or another than a second reader finds.
    """
    source = Input(data)
    return source.pick((_request, _answer, _stream))(source.rest())


def _parsed(body: bytes) -> Any:
    """By the json module, strictly; None for what is none, or where a key comes twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a key comes twice")
        return dict(pairs)

    def refuse(_constant: str) -> float:
        raise ValueError("no JSON")

    try:
        # An escaped half of a surrogate pair is text for this module, and none for ours.
        found = json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found


def _request(body: bytes) -> bool:
    found = llm_usage.read_request(body)
    assert llm_usage.read_request(memoryview(body)) == found
    assert found.max_tokens is None or 0 <= found.max_tokens <= _MOST
    assert 1 <= found.answer_count <= _MOST_ANSWERS
    fields = _parsed(body)
    if not isinstance(fields, dict) or _is_odd(fields):
        return False
    assert found.prompt_bytes == sum(_text_bytes(fields.get(name)) for name in _PROMPT), found
    return True


def _is_odd(value: Any) -> bool:
    """Whether there is a float that overflows: JSON has it, msgspec refuses it."""
    if isinstance(value, list):
        return any(map(_is_odd, value))
    if isinstance(value, dict):
        return any(map(_is_odd, value.values()))
    return isinstance(value, float) and not math.isfinite(value)


def _text_bytes(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list):
        return sum(map(_text_bytes, value))
    if isinstance(value, dict):
        return sum(
            llm_usage.MEDIA_PROMPT_BYTES if key in (*_MEDIA, "file_data") else _text_bytes(below)
            for key, below in value.items()
        )
    return 4  # a number is a token


def _in_bounds(usage: Usage | None) -> None:
    if usage is not None:
        assert 0 <= usage.input_tokens <= 2 * _MOST
        assert 0 <= usage.output_tokens <= 2 * _MOST
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def _answer(body: bytes) -> bool:
    usage = llm_usage.read_answer(body)
    _in_bounds(usage)
    fields = _parsed(body)
    if isinstance(fields, dict) and _is_plain(fields):
        assert usage == _second(fields), (usage, fields)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return usage is not None  # in a text that nobody reads: msgspec passes over it unread
    assert llm_usage.read_answer(text) == usage
    return usage is not None


def _is_plain(fields: dict[str, Any]) -> bool:
    """One `usage` of whole numbers, and none of the other places."""
    usage = fields.get("usage")
    return (
        isinstance(usage, dict)
        and all(type(value) is int and 0 <= value <= _MOST for value in usage.values())
        and not fields.keys() & {"message", "response", "usageMetadata"}
        and not _is_odd(fields)
    )


def _second(fields: dict[str, Any]) -> Usage | None:
    usage = fields["usage"]
    read = next((usage[name] for name in _READ if name in usage), None)
    written = next((usage[name] for name in _WRITTEN if name in usage), None)
    if read is None and written is None:
        return None
    read = 0 if read is None else read + usage.get(_ADDED[0], 0)
    written = 0 if written is None else written + usage.get(_ADDED[1], 0)
    return Usage(read, written, read + written)


def _stream(body: bytes) -> bool:
    stream = StreamUsage()
    before: Usage | None = None
    for event in body.decode("utf-8", "replace").split("\n"):
        stream.feed_event(event)
        _in_bounds(stream.usage)
        assert before is None or stream.usage is not None  # what was said once stays said
        before = stream.usage
    return before is not None
