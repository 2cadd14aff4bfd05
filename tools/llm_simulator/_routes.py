"""Method and path to answer. No I/O: a request and the knobs that hold for it give a `Reply`.

The paths of an LLM API obey the knobs; `/health` and `/_sim/stats` are about the simulator
itself and always tell the truth at once.
"""

import random
import re
import string
import time
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from tools.llm_simulator import _gemini, _openai
from tools.llm_simulator._answers import Prompt, answer, source_of_chance, to_ascii, tokens
from tools.llm_simulator._http import Request
from tools.llm_simulator._knobs import Knobs
from tools.llm_simulator._replies import (
    EVENT_STREAM,
    BadInputError,
    Reply,
    error_reply,
    json_reply,
)

SERVICE = "vastar-llm-simulator"
NOT_FOUND = Reply(404)
_ID_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 29  # as in OpenAI's chatcmpl- ids
_UNSEEDED = random.Random()  # noqa: S311 - ids of a simulator guard nothing
_GEMINI = re.compile(r"/v1beta/models/[^/:]+:(generateContent|streamGenerateContent)")


@attrs.frozen
class Call:
    """A request with the knobs that hold for it, and the wall clock (Unix seconds)."""

    request: Request
    knobs: Knobs
    wall_time: Callable[[], float] = time.time

    @property
    def seed(self) -> int:
        """The seed of the text; ids and times are random where none was given."""
        return self.knobs.seed or 0

    def text(self, prompt: Prompt) -> str:
        """The answer's text."""
        return answer(prompt, self.seed, self.knobs.words)

    def id(self, prompt: Prompt) -> str:
        """`chatcmpl-` and 29 letters or digits; under a seed the same for the same prompt."""
        seeded = self.knobs.seed is not None
        chance = source_of_chance("id\0" + prompt.everything, self.seed) if seeded else _UNSEEDED
        return "chatcmpl-" + "".join(chance.choices(_ID_ALPHABET, k=_ID_LENGTH))

    def created_s(self) -> int:
        """Unix seconds; a constant under a seed."""
        return _openai.FIXED_CREATED_S if self.knobs.seed is not None else int(self.wall_time())


Handler = Callable[[Call], Reply]


def find(method: str, path: str) -> Handler | None:
    """What answers an LLM request, or None where there is no such path or method."""
    handler = _HANDLERS.get((method, path))
    if handler is None and method == "POST" and (gemini := _GEMINI.fullmatch(path)):
        return _gemini_stream if gemini[1] == "streamGenerateContent" else _gemini_whole
    return handler


def answered(handler: Handler, call: Call) -> Reply:
    """The handler's answer, or a 400 in OpenAI's shape for a request it cannot take."""
    try:
        return handler(call)
    except BadInputError as error:
        return error_reply(400, str(error), param=error.param, code=error.code)


def health(wall_time: Callable[[], float]) -> Reply:
    """`{service, status, timestamp}`."""
    now = datetime.fromtimestamp(wall_time(), UTC)
    return json_reply({"service": SERVICE, "status": "healthy", "timestamp": now.isoformat()})


def _test_completion(_call: Call) -> Reply:
    return _TEST_COMPLETION_REPLY


def _models(_call: Call) -> Reply:
    return json_reply(_openai.MODELS)


def _embeddings(call: Call) -> Reply:
    return json_reply(_openai.embeddings(_openai.parse_object(call.request.body)))


def _chat(call: Call) -> Reply:
    fields = _openai.parse_object(call.request.body)
    stream = _openai.wants_stream(fields)
    if stream is not None:
        _openai.check_chat(fields)
    prompt = _openai.prompt_of(fields)
    text = call.text(prompt)
    chat = _openai.Chat(
        id=call.id(prompt),
        created_s=call.created_s(),
        model=_openai.model_of(fields),
        prompt_tokens=tokens(prompt.everything),
        text=text if stream is not None else to_ascii(text),
        piece_bytes=call.knobs.piece_bytes,
    )
    if stream is False:
        return json_reply(_openai.completion(chat))
    if stream:
        events = _openai.openai_events(chat, include_usage=_openai.wants_usage(fields))
    else:
        events = _openai.published_events(chat)
    return Reply(200, content_type=EVENT_STREAM, events=events)


def _gemini_whole(call: Call) -> Reply:
    prompt = _gemini.prompt_of(_openai.parse_object(call.request.body))
    return json_reply(_gemini.candidates(call.text(prompt)))


def _gemini_stream(call: Call) -> Reply:
    prompt = _gemini.prompt_of(_openai.parse_object(call.request.body))
    return Reply(200, content_type=EVENT_STREAM, events=_gemini.events(call.text(prompt)))


_TEST_COMPLETION_REPLY = json_reply(_openai.TEST_COMPLETION)

_HANDLERS: dict[tuple[str, str], Handler] = {
    ("POST", "/test_completion"): _test_completion,
    ("POST", "/v1/chat/completions"): _chat,
    ("POST", "/v1/embeddings"): _embeddings,
    ("GET", "/v1/models"): _models,
}
