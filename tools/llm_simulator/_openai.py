"""OpenAI's shapes, and the published simulator's: request JSON in, values or events out.

Dict literals, so that a reader sees the JSON as it goes out, keys in the order of the wire.
A chat request without `stream` gets the published simulator's stream (ASCII text cut every
`piece_bytes`, no `[DONE]`), whatever else is in it; with `stream` it gets what OpenAI gives.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec

from tools.llm_simulator._answers import Prompt, pieces, tokens
from tools.llm_simulator._replies import BadInputError, sse

MODEL = "gpt-4o-2024-08-06"
FIXED_CREATED_S = 1_735_482_595
_FINGERPRINT = "fp_5f20662549"
_EMBEDDING = (0.0125, -0.03125, 0.5, -0.25, 0.75, 0.0625, -0.125, 0.375)
DONE = b"data: [DONE]\n\n"

TEST_COMPLETION: Final = {
    "id": "chatcmpl-AjoahzpVUCsJmOQZRKZUze7qBjEjn",
    "object": "chat.completion",
    "created": FIXED_CREATED_S,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello! The connection works: your request came in, this answer went "
                "out, and everything in between did its part. What shall we build with it?",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 57, "completion_tokens": 92, "total_tokens": 149},
}

MODELS: Final = {
    "object": "list",
    "data": [
        {"id": MODEL, "object": "model", "created": 1_722_814_719, "owned_by": "system"},
        {"id": "gpt-4o-mini", "object": "model", "created": 1_721_172_741, "owned_by": "system"},
        {
            "id": "text-embedding-3-small",
            "object": "model",
            "created": 1_705_948_997,
            "owned_by": "system",
        },
    ],
}


@attrs.frozen
class Chat:
    """One chat answer to be given: who it comes from and what it says."""

    id: str
    created_s: int
    model: str
    prompt_tokens: int
    text: str
    piece_bytes: int


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body; an empty body is an empty object.

    Raises:
        BadInputError: no JSON, or JSON that is no object.
    """
    if not body:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"The request body must be a JSON object: {error}") from None


def wants_stream(fields: Mapping[str, Any]) -> bool | None:
    """`stream`, or None where the request does not speak of it (which gets the published shape).

    Raises:
        BadInputError: neither true, false nor null.
    """
    stream = fields.get("stream")
    if stream is None or isinstance(stream, bool):
        return stream
    raise _wrong_type("stream", "a boolean")


def check_chat(fields: Mapping[str, Any]) -> None:
    """What OpenAI insists on.

    Raises:
        BadInputError: `model` or `messages` is missing or of the wrong type.
    """
    if "model" not in fields:
        raise _missing("model")
    if not isinstance(fields["model"], str):
        raise _wrong_type("model", "a string")
    if "messages" not in fields:
        raise _missing("messages")
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise _wrong_type("messages", "an array with at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong_type(f"messages[{index}]", "an object with a role")


def wants_usage(fields: Mapping[str, Any]) -> bool:
    """`stream_options.include_usage`."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def model_of(fields: Mapping[str, Any]) -> str:
    """The model named, or the one that the published simulator claims to be."""
    model = fields.get("model")
    return model if isinstance(model, str) else MODEL


def prompt_of(fields: Mapping[str, Any]) -> Prompt:
    """What the messages say; whatever cannot be read is left out."""
    messages = fields.get("messages")
    said = [
        (message.get("role"), _text(message.get("content")))
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict)
    ]
    turns = tuple(text for role, text in said if role == "user")
    return Prompt(turns, "\n".join(f"{role}: {text}" for role, text in said))


def published_events(chat: Chat) -> Iterator[bytes]:
    """The published simulator's stream: content events, then one with the usage. No `[DONE]`."""
    for piece in pieces(chat.text, chat.piece_bytes):
        yield sse(_chunk(chat, [_choice({"content": piece}, None)], usage=None))
    yield sse(_chunk(chat, [], usage=_usage(chat)))


def openai_events(chat: Chat, *, include_usage: bool) -> Iterator[bytes]:
    """OpenAI's stream: role, content, finish reason, usage if asked for, `[DONE]`."""
    nothing_yet: dict[str, None] = {"usage": None} if include_usage else {}
    opening = {"role": "assistant", "content": "", "refusal": None}
    yield sse(_chunk(chat, [_choice(opening, None)], **nothing_yet))
    for piece in pieces(chat.text, chat.piece_bytes):
        yield sse(_chunk(chat, [_choice({"content": piece}, None)], **nothing_yet))
    yield sse(_chunk(chat, [_choice({}, "stop")], **nothing_yet))
    if include_usage:
        yield sse(_chunk(chat, [], usage=_usage(chat)))
    yield DONE


def completion(chat: Chat) -> dict[str, Any]:
    """The whole answer at once, as for `stream: false`."""
    message = {"role": "assistant", "content": chat.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": chat.id,
        "object": "chat.completion",
        "created": chat.created_s,
        "model": chat.model,
        "choices": [choice],
        "usage": _usage(chat),
        "system_fingerprint": _FINGERPRINT,
    }


def embeddings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same small vector for every input.

    Raises:
        BadInputError: `input` is missing.
    """
    if "input" not in fields:
        raise _missing("input")
    given = fields["input"]
    # A list of numbers is one input that is tokenised already.
    many = isinstance(given, list) and not all(isinstance(item, int) for item in given)
    texts = given if many else [given]
    counted = sum(tokens(str(text)) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _EMBEDDING}
            for index in range(len(texts))
        ],
        "model": model_of(fields) if "model" in fields else "text-embedding-3-small",
        "usage": {"prompt_tokens": counted, "total_tokens": counted},
    }


def _chunk(chat: Chat, choices: list[dict[str, Any]], **usage: object) -> dict[str, Any]:
    return {
        "id": chat.id,
        "object": "chat.completion.chunk",
        "created": chat.created_s,
        "model": chat.model,
        "system_fingerprint": _FINGERPRINT,
        "choices": choices,
        **usage,
    }


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _usage(chat: Chat) -> dict[str, Any]:
    completion_tokens = tokens(chat.text)
    return {
        "prompt_tokens": chat.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": chat.prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _text(content: object) -> str:
    """A message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def _missing(name: str) -> BadInputError:
    return BadInputError(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def _wrong_type(name: str, wanted: str) -> BadInputError:
    return BadInputError(
        f"Invalid type for '{name}': it must be {wanted}.", param=name, code="invalid_type"
    )
