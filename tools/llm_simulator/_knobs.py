"""What the simulator can be told to do, in one place.

One frozen struct: a field is a command-line flag (`--head-delay-s`), a request header
(`x-sim-head-delay-s`) and a keyword of `Knobs(...)` alike, so the three cannot drift apart. msgspec
does the reading of text and the checking of ranges. A header beats a flag, for its own request.
"""

from collections.abc import Mapping
from typing import Annotated, get_type_hints

import msgspec
from msgspec import Meta

HEADER_PREFIX = "x-sim-"

Seconds = Annotated[float, Meta(ge=0, le=3600)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Words = Annotated[int, Meta(ge=0, le=1_000_000)]  # an answer is made whole, in memory
PieceBytes = Annotated[int, Meta(ge=4, le=65_536)]  # 4: no UTF-8 character is longer
ErrorStatus = Annotated[int, Meta(ge=400, le=599)]


class BadKnobError(ValueError):
    """A knob that does not exist, or a value out of its range; the message says what would do."""


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the simulator answers. Every default is "as fast and as well as it can"."""

    seed: Annotated[
        Count | None,
        Meta(description="makes ids, timestamps in answers and jitter repeatable; default: random"),
    ] = None
    words: Annotated[
        Words, Meta(description="length of an answer in words; 0: what the prompt asks for")
    ] = 0
    piece_bytes: Annotated[
        PieceBytes, Meta(description="UTF-8 bytes of text in one event at most (4 to 65536)")
    ] = 10
    head_delay_s: Annotated[
        Seconds, Meta(description="seconds before the head of the answer is sent")
    ] = 0.0
    event_delay_s: Annotated[
        Seconds, Meta(description="seconds between one event of a stream and the next")
    ] = 0.0
    jitter_ratio: Annotated[
        Ratio, Meta(description="each delay is multiplied by a random 1 - ratio to 1 + ratio")
    ] = 0.0
    status: Annotated[
        ErrorStatus | None,
        Meta(description="answer with this status (400 to 599) and OpenAI's error body"),
    ] = None
    status_times: Annotated[
        Count,
        Meta(description="only the first N requests get `status`; 0: all of them"),
    ] = 0
    throttle_s: Annotated[
        Seconds,
        Meta(description="answer 429 for this many seconds from the first request on, then serve"),
    ] = 0.0
    retry_after_s: Annotated[
        Seconds | None,
        Meta(description="Retry-After of errors; default: the rest of throttle_s, or 1 with 429"),
    ] = None
    key: Annotated[
        str,
        Meta(
            max_length=200,
            description="names a count of status_times, a window of throttle_s",
        ),
    ] = ""
    cut_after_events: Annotated[
        Count | None,
        Meta(description="drop the connection after N events; other answers break off half-way"),
    ] = None
    hang_before_head: Annotated[
        bool, Meta(description="true: take the request and never answer")
    ] = False
    hang_after_events: Annotated[
        Count | None, Meta(description="go silent after N events; other answers stall half-way")
    ] = None

    @property
    def breaks_body(self) -> bool:
        """Whether the body is not to reach its end at once."""
        return self.cut_after_events is not None or self.hang_after_events is not None

    @property
    def waits(self) -> bool:
        """Whether any answer, streamed or not, takes longer than it must."""
        return self.head_delay_s > 0 or self.hang_before_head or self.breaks_body


def descriptions() -> dict[str, str]:
    """Field name to the sentence that says what it does, in the order of the struct."""
    hints = get_type_hints(Knobs, include_extras=True)
    return {
        name: next(meta.description for meta in hints[name].__metadata__ if meta.description)
        for name in Knobs.__struct_fields__
    }


def with_texts(base: Knobs, texts: Mapping[str, str]) -> Knobs:
    """`base` with fields replaced by values in text form.

    Args:
        base: what holds where `texts` says nothing.
        texts: field name (`head_delay_s`) to text; `null` takes an optional field back.

    Raises:
        BadKnobError: an unknown field, or a value that is no number or out of range.
    """
    if not texts:
        return base
    for name in texts:
        if name not in Knobs.__struct_fields__:
            known = ", ".join(Knobs.__struct_fields__)
            raise BadKnobError(f"there is no knob {name!r}; there are {known}")
    try:
        return msgspec.convert({**msgspec.structs.asdict(base), **texts}, Knobs, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        raise BadKnobError(f"{name}: {problem} ({descriptions()[name]})") from None


def from_headers(base: Knobs, headers: Mapping[str, str]) -> Knobs:
    """`base` as the `x-sim-*` headers of one request change it (names in lower case).

    Raises:
        BadKnobError: as `with_texts`.
    """
    texts = {
        name.removeprefix(HEADER_PREFIX).replace("-", "_"): value
        for name, value in headers.items()
        if name.startswith(HEADER_PREFIX)
    }
    return with_texts(base, texts)
