"""What an LLM call may cost and did cost, read from bodies: OpenAI, Anthropic and Gemini shapes.

Only called where a token limit is set: nothing else has a reason to look into a body. Bodies come
from outside, so nothing here raises: what cannot be read is as if it were not there. Numbers that
no call can have (negative, over a thousand million) are not read either.

Shapes: `max_tokens`, `max_completion_tokens` (OpenAI chat), `max_output_tokens` (OpenAI responses),
`generationConfig.maxOutputTokens` (Gemini); `usage` with `prompt_tokens`/`completion_tokens` or
`input_tokens`/`output_tokens`, `usageMetadata` (Gemini). In streams usage comes in the last event
(OpenAI), in pieces (Anthropic: input at the start, output so far in `message_delta`), or in every
event (Gemini); all of them count up, so the last value of each part holds.
"""

from typing import Annotated, Any, Final, TypeAlias

import attrs
import msgspec
from msgspec import Meta

__all__ = [
    "MEDIA_PROMPT_BYTES",
    "LlmRequest",
    "StreamUsage",
    "Usage",
    "read_answer",
    "read_request",
]

MEDIA_PROMPT_BYTES: Final = 4096
"""What an image, sound or file counts as, about a thousand tokens: its base64 text says nothing of
its tokens (ours; the answer's usage puts it right)."""

_MEDIA_KEYS: Final = frozenset(
    ("image_url", "source", "inline_data", "inlineData", "input_audio", "file", "file_data")
)
_NUMBER_PROMPT_BYTES: Final = 4
"""A prompt may come as the numbers of its tokens; then each number is one."""

_MAX_ANSWERS: Final = 128
"""OpenAI's own bound of `n`."""

_Count: TypeAlias = Annotated[int, Meta(ge=0, le=10**9)] | None


@attrs.frozen
class LlmRequest:
    """What a request says about its cost.

    Attributes:
        prompt_bytes: UTF-8 bytes of all text that goes to the model, media at a flat rate.
        max_tokens: longest answer, None where the request gives none.
        answer_count: how many answers it wants (`n`).
    """

    prompt_bytes: int
    max_tokens: int | None = None
    answer_count: int = 1


@attrs.frozen
class Usage:
    """What a call has cost.

    Attributes:
        input_tokens: of the prompt, without what a cache answered for free.
        output_tokens: of the answer.
        total_tokens: what a limit counts.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int


class _GenerationConfig(msgspec.Struct):
    max_output_tokens: _Count = msgspec.field(default=None, name="maxOutputTokens")
    candidate_count: _Count = msgspec.field(default=None, name="candidateCount")


class _Limits(msgspec.Struct):
    max_completion_tokens: _Count = None
    max_tokens: _Count = None
    max_output_tokens: _Count = None
    n: _Count = None
    generation_config: _GenerationConfig | None = msgspec.field(
        default=None, name="generationConfig"
    )


class _Prompt(msgspec.Struct):
    messages: Any = None
    system: Any = None
    prompt: Any = None
    input: Any = None
    instructions: Any = None
    contents: Any = None
    system_instruction: Any = msgspec.field(default=None, name="systemInstruction")
    tools: Any = None


class _UsageFields(msgspec.Struct):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    prompt_token_count: _Count = msgspec.field(default=None, name="promptTokenCount")
    candidates_token_count: _Count = msgspec.field(default=None, name="candidatesTokenCount")
    thoughts_token_count: _Count = msgspec.field(default=None, name="thoughtsTokenCount")


class _Nested(msgspec.Struct):
    usage: _UsageFields | None = None


class _Answer(msgspec.Struct):
    usage: _UsageFields | None = None
    usage_metadata: _UsageFields | None = msgspec.field(default=None, name="usageMetadata")
    message: _Nested | None = None
    response: _Nested | None = None


_LIMITS: Final = msgspec.json.Decoder(_Limits)
_PROMPT: Final = msgspec.json.Decoder(_Prompt)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(body: bytes | bytearray | memoryview) -> LlmRequest:
    """What `body` says; one that cannot be read counts as prompt from end to end."""
    try:
        prompt_bytes = _text_bytes(_PROMPT.decode(body))
    except _UNREADABLE:
        prompt_bytes = len(body)
    try:
        limits = _LIMITS.decode(body)
    except _UNREADABLE:
        return LlmRequest(prompt_bytes)
    gemini = limits.generation_config or _GenerationConfig()
    max_tokens = _first(
        limits.max_completion_tokens,
        limits.max_tokens,
        limits.max_output_tokens,
        gemini.max_output_tokens,
    )
    answers = _first(limits.n, gemini.candidate_count) or 1
    return LlmRequest(prompt_bytes, max_tokens, min(answers, _MAX_ANSWERS))


def read_answer(body: bytes | bytearray | memoryview | str) -> Usage | None:
    """The usage in a whole JSON answer, None where there is none."""
    stream = StreamUsage()
    stream.feed(body)
    return stream.usage


class StreamUsage:
    """The usage of one stream, from its events."""

    __slots__ = ("_input", "_output")

    def __init__(self) -> None:
        self._input: int | None = None
        self._output: int | None = None

    @property
    def usage(self) -> Usage | None:
        """What the events so far say; None where none said anything."""
        if self._input is None and self._output is None:
            return None
        read, written = self._input or 0, self._output or 0
        return Usage(read, written, read + written)

    def feed_event(self, data: str) -> None:
        """Read the `data` of one event; those without usage are told apart without parsing."""
        if '"usage' in data:
            self.feed(data)

    def feed(self, document: bytes | bytearray | memoryview | str) -> None:
        """Read one JSON document."""
        try:
            answer = _ANSWER.decode(document)
        except _UNREADABLE:
            return
        for holder in (answer, answer.message, answer.response):
            if holder is not None and holder.usage is not None:
                self._take(holder.usage)
        if answer.usage_metadata is not None:
            self._take(answer.usage_metadata)

    def _take(self, fields: _UsageFields) -> None:
        read = _first(fields.prompt_tokens, fields.input_tokens, fields.prompt_token_count)
        if read is not None:
            # Anthropic counts what it wrote into its cache apart, and against the limit; what it
            # read from there is in neither.
            self._input = read + (fields.cache_creation_input_tokens or 0)
        written = _first(
            fields.completion_tokens, fields.output_tokens, fields.candidates_token_count
        )
        if written is not None:
            self._output = written + (fields.thoughts_token_count or 0)


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _text_bytes(prompt: _Prompt) -> int:
    """Bytes of all text below `prompt`; a loop and not a recursion, bodies are from outside."""
    total = 0
    pending: list[Any] = [getattr(prompt, name) for name in prompt.__struct_fields__]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            total += len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            for key, below in value.items():
                if key in _MEDIA_KEYS:
                    total += MEDIA_PROMPT_BYTES
                else:
                    pending.append(below)
        elif value is not None:
            total += _NUMBER_PROMPT_BYTES
    return total
