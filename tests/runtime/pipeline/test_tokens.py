"""What one answer's body tells of the tokens that it has cost."""

import pytest

from vastar_runtime.pipeline import tokens
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.policy.llm_usage import LlmRequest
from vastar_runtime.policy.rate_limit import Allowed
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

USAGE = b'{"usage": {"prompt_tokens": 60, "completion_tokens": 9}}'
REQUEST = LlmRequest(400, 100)
RESERVED = 200
LIMIT = 1000


def held(count: int = 1, *, events: bool = False) -> tuple[TokenHold, list[Pacer[TokenLimiter]]]:
    pacers = [Pacer(TokenLimiter(TokenLimitSettings.per_minute(LIMIT))) for _ in range(count)]
    reservations = []
    for pacer in pacers:
        permit = pacer.limiter.reserve(0.0, REQUEST, 1.0)
        assert isinstance(permit, Allowed)
        reservations.append((pacer, permit))
    return TokenHold(REQUEST, reservations, is_event_stream=events), pacers


def spent(pacer: Pacer[TokenLimiter]) -> float:
    assert pacer.limiter.held == 0
    return round(LIMIT - pacer.limiter.available(0.0), 6)


def feed(hold: TokenHold, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        hold.saw(data[at : at + size])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_usage_of_a_whole_body_in_any_pieces(size):
    hold, [pacer] = held()
    feed(hold, USAGE, size)
    hold.settle(0.0)
    assert spent(pacer) == 69


def test_the_usage_of_events_as_they_pass():
    """Also of a stream that never ends."""
    hold, [pacer] = held(events=True)
    for event in ('{"delta": "x"}', USAGE.decode(), '{"delta": "y"}'):
        hold.saw_event(event)
    hold.saw(USAGE * 10)  # the stream's bytes are not read as a document
    hold.settle(0.0)
    assert spent(pacer) == 69


def test_a_stream_that_says_nothing_costs_its_length():
    hold, [pacer] = held(events=True)
    hold.saw(b"x" * 40)
    hold.saw_event("x")
    hold.settle(0.0)
    assert spent(pacer) == 110


def test_every_limit_is_settled():
    hold, pacers = held(4)
    hold.saw(USAGE)
    hold.settle(0.0)
    assert [spent(pacer) for pacer in pacers] == [69] * 4


def test_a_body_that_says_nothing_costs_its_length():
    for data, cost in ((b"", 100), (b"x" * 40, 110), (USAGE[:-1], 114), (b"x" * 9999, 200)):
        hold, [pacer] = held()
        hold.saw(data)
        hold.settle(0.0)
        assert spent(pacer) == cost


def test_what_is_not_event_stream_is_not_read_as_one():
    hold, [pacer] = held()
    hold.saw(b"data: " + USAGE + b"\n\n")
    hold.settle(0.0)
    assert spent(pacer) == 100 + 16


def test_a_body_that_is_too_long_to_keep_costs_its_length(monkeypatch):
    monkeypatch.setattr(tokens, "_MAX_KEPT_BYTES", len(USAGE) - 1)
    hold, [pacer] = held()
    feed(hold, USAGE, 10)
    assert hold._kept is None
    hold.settle(0.0)
    assert spent(pacer) == 114


def test_what_was_never_acted_on_comes_back_whole():
    hold, pacers = held(2)
    hold.saw(b"x" * 400)
    hold.refund(0.0)
    assert [spent(pacer) for pacer in pacers] == [0, 0]


def test_it_ends_once():
    hold, [pacer] = held()
    hold.settle(0.0)
    hold.refund(0.0)
    hold.settle(0.0)
    assert spent(pacer) == 100
