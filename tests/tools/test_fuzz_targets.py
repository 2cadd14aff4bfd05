"""The targets of the coverage-guided fuzzer: every case of the corpus, and random inputs.

Hypothesis draws here what atheris draws in `test_fuzz_coverage.py`, so that every Python tests the
same oracles, with or without atheris.
"""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.fuzz import _corpus
from tools.fuzz._shrinking import failure_of
from tools.fuzz.targets import TARGETS, _made, codec, encoder
from tools.fuzz.targets._inputs import Input, cut
from vastar_client.wire import sse, values
from vastar_client.wire.framing import FrameDecoder
from vastar_runtime.connectors.http import decoding, headers
from vastar_runtime.connectors.sql import jobs
from vastar_runtime.policy import llm_usage, rate_headers
from vastar_runtime.transport.parser import ResponseParser
from vastar_runtime.transport.response import UpstreamResponse

CASES = [(name, case) for name in TARGETS for case in _corpus.load(name)]


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda v: getattr(v, "says", v))
def test_a_case_of_the_corpus_holds(name: str, case: _corpus.Case) -> None:
    TARGETS[name].load()(case.data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_shows_the_code_inputs_that_it_takes_and_such_that_it_refuses(name: str) -> None:
    check = TARGETS[name].load()
    assert {check(case.data) for case in _corpus.load(name)} == {True, False}


def near(name: str) -> st.SearchStrategy[bytes]:
    """Free bytes, the words of the target, and cases of its corpus, one behind another."""
    target = TARGETS[name]
    words = st.sampled_from(target.tokens) if target.tokens else st.nothing()
    part = st.binary(max_size=8) | words
    cases = st.sampled_from([case.data for case in _corpus.load(name)])
    spoiled = st.builds(
        lambda data, at, part, gone: data[: at % (len(data) + 1)] + part + data[at + gone :],
        cases,
        st.integers(0, 300),
        part,
        st.integers(0, 4),
    )
    return spoiled | st.lists(part, max_size=20).map(b"".join)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_on_random_inputs(name: str) -> None:
    check = TARGETS[name].load()

    @given(near(name))
    def holds(data: bytes) -> None:
        assert check(data[: TARGETS[name].longest_bytes]) in {True, False}

    holds()


@given(st.binary(max_size=60), st.binary(max_size=40))
def test_pieces_are_the_whole(choices: bytes, data: bytes) -> None:
    pieces = cut(data, Input(choices).cuts())
    assert b"".join(pieces) == data
    assert all(pieces)


def test_an_input_that_is_used_up_chooses_the_first_of_all() -> None:
    source = Input(b"\x05\x02ab")
    assert (source.pick("xyz"), source.text()) == ("z", "ab")
    assert not source.has_more
    assert (source.pick("xyz"), source.text(), source.number(8), source.rest()) == ("x", "", 0, b"")
    assert source.cuts() == ()


def twice(method):
    def wrong(*args):
        method(*args)
        return method(*args)

    return wrong


def forgetful(decoder, data):
    decoder._data, decoder._position = data, 0


def ended_twice(response):
    if response._connection is not None:
        response._connection = None
        response._give_back(response._slot)
        response._give_back(response._slot)


def misread(table, data):
    value = _made.decode(table, data)
    return msgspec.structs.replace(value, request_id=value.request_id + 1)


PLANTED = {
    "codec": (codec, "decode", misread),
    "encoder": (encoder, "encode", lambda table, value: _made.encode(table, value)[:-1]),
    "databases": (values, "_interval_us", lambda _value: 0),
    "framing": (FrameDecoder, "in_frame", False),
    "connection": (FrameDecoder, "receive_data", forgetful),
    "http_response": (ResponseParser, "on_body", twice(ResponseParser.on_body)),
    "http_exchange": (UpstreamResponse, "_end", ended_twice),
    "http_request": (headers, "_BAD_IN_VALUE", re.compile(rb"(?!)")),
    "content_coding": (decoding._Zlib, "finish", lambda _self: None),
    "payloads": (jobs, "_UNREADABLE", ()),
    "sse": (sse, "_BOM", b"?"),
    "llm_usage": (llm_usage, "_NUMBER_PROMPT_BYTES", 5),
    "rate_headers": (rate_headers, "_SECONDS_PER", rate_headers._SECONDS_PER | {"ms": 0.1}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_an_oracle_sees_a_wrong_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bug in the code under test, and the corpus alone shows it."""
    check = TARGETS[name].load()
    monkeypatch.setattr(*PLANTED[name])
    seen = [case for case in _corpus.load(name) if failure_of(check, case.data)]
    assert seen
