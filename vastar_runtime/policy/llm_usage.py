"""What an LLM call may cost and did cost, read from bodies: OpenAI, Anthropic and Gemini shapes.

Only called where a token limit is set: nothing else has a reason to look into a body. Bodies come
from outside, so nothing here raises: what cannot be read is as if it were not there. Numbers that
no call can have (negative, over a thousand million) are not read either.

Shapes: `max_tokens`, `max_completion_tokens` (OpenAI chat), `max_output_tokens` (OpenAI responses),
`generationConfig.maxOutputTokens` (Gemini); `usage` with `prompt_tokens`/`completion_tokens` or
`input_tokens`/`output_tokens`, `usageMetadata` (Gemini). In streams usage comes in the last event
(OpenAI), in pieces (Anthropic: input at the start, output so far in `message_delta`), or in every
event (Gemini); all of them count up, so the last value of each part holds.

All other calls stand still while one body is read, so what takes long is not read at all: it counts
as prompt from end to end, which for text is nearly what reading would have found. Measured: base64
takes 0.5 ms a MiB, text of many escapes or of other scripts 2 to 3, to pass over dense values 4,
and each value of the prompt up to 0.5 us on top. The bounds below keep one body of up to 16 MiB at
about 20 ms, whatever is in it. Text of that size fits no model, but images do, so these are told
apart up to 32 MiB.
"""

from typing import Annotated, Any, Final, TypeAlias, TypeVar

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

_MAX_UNGUARDED_BYTES: Final = 64 * 1024
"""What is shorter is read whatever is in it: it has no room for so many values."""

_MAX_SEPARATORS: Final = 30_000
"""Commas and opening brackets of a body whose values are looked at, in its texts too: there are
some 700 KB of code with as many, which is about what most models take."""

_MAX_SLOW_BYTES: Final = 4 * 1024 * 1024
"""Of pieces that are not plain, and of what is passed over whatever is in it."""

_MAX_READ_BYTES: Final = 32 * 1024 * 1024
"""The longest requests that providers take."""

_PIECE_BYTES: Final = 64 * 1024
_NOT_IN_MEDIA: Final = (b" ", b"\\", b"\n", b"\r", b"\t")

T = TypeVar("T")
_Document: TypeAlias = bytes | bytearray | memoryview | str | msgspec.Raw
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


_ABSENT: Final = msgspec.Raw(b"null")


class _Limits(msgspec.Struct):
    """Unread yet: what no call can have (or sends to mean no limit) must not hide the rest."""

    max_completion_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT
    generation_config: msgspec.Raw = msgspec.field(default=_ABSENT, name="generationConfig")


class _Request(_Limits):
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


_REQUEST: Final = msgspec.json.Decoder(_Request)
_LIMITS: Final = msgspec.json.Decoder(_Limits)
_GENERATION: Final = msgspec.json.Decoder[_GenerationConfig | None](_GenerationConfig | None)
_COUNT: Final = msgspec.json.Decoder[_Count](_Count)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_PROMPT_FIELDS: Final = _Request.__struct_fields__[len(_Limits.__struct_fields__) :]
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(body: bytes | bytearray | memoryview) -> LlmRequest:
    """What `body` says; one that cannot be read counts as prompt from end to end.

    So does one that would take long to read; then its limits are still found up to 4 MiB.
    """
    if len(body) > _MAX_UNGUARDED_BYTES:
        body = bytes(body)
        if not _has_few_values(body) or not _is_mostly_media(body):
            is_short = len(body) <= _MAX_SLOW_BYTES
            return _request(len(body), _decoded(_LIMITS, body) if is_short else None)
    request = _decoded(_REQUEST, body)
    return _request(len(body) if request is None else _text_bytes(request), request)


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
        """Read one JSON document; one over 4 MiB only where it has few values, as images have."""
        if len(document) > _MAX_SLOW_BYTES:
            document = document.encode() if isinstance(document, str) else bytes(document)
            if len(document) > _MAX_READ_BYTES or not _has_few_values(document):
                return
        answer = _decoded(_ANSWER, document)
        if answer is None:
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


def _decoded(decoder: msgspec.json.Decoder[T], body: _Document) -> T | None:
    try:
        return decoder.decode(body)
    except _UNREADABLE:
        return None


def _request(prompt_bytes: int, limits: _Limits | None) -> LlmRequest:
    if limits is None:
        return LlmRequest(prompt_bytes)
    gemini = _decoded(_GENERATION, limits.generation_config) or _GenerationConfig()
    max_tokens = _first(
        _decoded(_COUNT, limits.max_completion_tokens),
        _decoded(_COUNT, limits.max_tokens),
        _decoded(_COUNT, limits.max_output_tokens),
        gemini.max_output_tokens,
    )
    answers = _first(_decoded(_COUNT, limits.n), gemini.candidate_count) or 1
    return LlmRequest(prompt_bytes, max_tokens, min(answers, _MAX_ANSWERS))


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _has_few_values(body: bytes) -> bool:
    """Whether there are at most `_MAX_SEPARATORS`."""
    if len(body) <= _MAX_SLOW_BYTES:
        return body.count(b",") + body.count(b"[") + body.count(b"{") <= _MAX_SEPARATORS
    # Where they are few `find` runs at the speed of the memory, and `count` takes 0.3 ms a MiB.
    left = _MAX_SEPARATORS
    for separator in b",[{":
        at = body.find(separator)
        while at >= 0:
            left -= 1
            if left < 0:
                return False
            at = body.find(separator, at + 1)
    return True


def _is_mostly_media(body: bytes) -> bool:
    """Whether all but `_MAX_SLOW_BYTES` is quick to decode: ASCII, no escapes and no blanks."""
    if len(body) <= _MAX_SLOW_BYTES:
        return True
    if len(body) > _MAX_READ_BYTES:
        return False
    slow_bytes = 0
    for at in range(0, len(body), _PIECE_BYTES):
        piece = body[at : at + _PIECE_BYTES]
        if not piece.isascii() or any(mark in piece for mark in _NOT_IN_MEDIA):
            slow_bytes += len(piece)
    return slow_bytes <= _MAX_SLOW_BYTES


def _text_bytes(request: _Request) -> int:
    """Bytes of all text below `request`; a loop and not a recursion, bodies are from outside."""
    total = 0
    pending: list[Any] = [getattr(request, name) for name in _PROMPT_FIELDS]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is str:
            is_plain = value.isascii()
            total += len(value) if is_plain else len(value.encode("utf-8", "surrogatepass"))
        elif kind is list:
            pending += value
        elif kind is dict:
            for key, below in value.items():
                if key in _MEDIA_KEYS:
                    total += MEDIA_PROMPT_BYTES
                else:
                    pending.append(below)
        elif value is not None:
            total += _NUMBER_PROMPT_BYTES
    return total
