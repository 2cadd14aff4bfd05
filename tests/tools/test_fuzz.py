"""The fuzzer: its judge, its files, and a short attack on our runtime."""

import json

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.fuzz import strategies
from tools.fuzz._calls import Call, Target
from tools.fuzz._circuits import Circuits
from tools.fuzz._minimise import minimise
from tools.fuzz._model import ConnectionModel
from tools.fuzz._steps import Recording, Step, load, save
from tools.fuzz._upstream import pattern
from tools.fuzz._violation import Violation
from tools.fuzz.targets.codec import check
from vastar_client.wire import (
    NEED_DATA,
    Cancel,
    Connection,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    RemoteProtocolError,
    RequestChunk,
    Role,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.enums import ResponseFormat

frame = strategies.frame_of


def db(request_id=1, **fields):
    return ExecuteRequest(request_id, "acme", "db", "request", **fields)


def stream(request_id=1):
    return db(request_id, stream=True)


def permanent(request_id=1):
    return ExecuteResponse(request_id, ErrorClass.PERMANENT, "not implemented")


def model(*sent):
    made = ConnectionModel(None, is_base=False)
    for message in sent:
        made.sent(frame(message))
    return made


def broken_by(made, *received):
    with pytest.raises(Violation) as caught:
        for message in received:
            made.received(message if isinstance(message, bytes) else frame(message))
    return caught.value.rule


def test_a_call_is_answered_once():
    made = model(db())
    made.received(frame(permanent()))
    assert made.owes_nothing
    assert broken_by(made, permanent()) == "one final frame"


@pytest.mark.parametrize(
    ("received", "rule"),
    [
        ([permanent(2)], "one final frame"),
        ([ExecuteResponse(1, payload=b"{}")], "success is completed"),
        ([ExecuteResponse(1, ErrorClass.PERMANENT)], "a failure has a message"),
        ([ExecuteResponse(1, ErrorClass.TIMEOUT, "late")], "error classes are true"),
        ([ExecuteResponse(1, ErrorClass.PERMANENT, "x", b"{}")], "payloads on success only"),
        ([HealthResponse()], "nothing unsolicited"),
        ([b"\0\0\0\0"], "frames of answers are sound"),
        ([strategies.framed(0x40, b"")], "frames of answers are sound"),
        ([Cancel(1)], "frames of answers are sound"),
    ],
)  # fmt: skip
def test_what_may_not_come_after_a_call(received, rule):
    assert broken_by(model(db()), *received) == rule


@pytest.mark.parametrize(
    ("received", "rule"),
    [
        ([StreamChunk(1, 0, b"x")], "a stream begins with its head"),
        ([StreamStart(1, 200), StreamStart(1, 200)], "one head for a stream"),
        ([StreamStart(1, 200), StreamChunk(1, 1, b"x")], "chunks in order"),
        ([StreamStart(1, 200), StreamChunk(1, 0, b"x" * 65_537)], "the window of a stream"),
        ([StreamStart(2, 200)], "ids match"),
        ([StreamEnd(1, ErrorClass.PERMANENT, "x", total_bytes=1)], "the total of a stream"),
    ],
)
def test_what_may_not_come_in_a_stream(received, rule):
    assert broken_by(model(stream()), *received) == rule


def test_connections_close_for_a_reason_and_say_it():
    with pytest.raises(Violation, match="connections live"):
        model(db()).closed(is_reset=False)
    lost = model()
    lost.sent(b"\0\0\0\0")
    with pytest.raises(Violation, match="a close has a reason"):
        lost.closed(is_reset=False)
    lost.received(frame(ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "length 0")))
    lost.closed(is_reset=False)


def test_what_is_certain_is_known():
    made = model(db(), HealthCheck())
    assert not made.owes_nothing_certain
    made.received(frame(permanent()))
    made.received(frame(HealthResponse(healthy=True)))
    assert made.owes_nothing_certain
    assert made.late().rule == "every request is answered"


def test_what_the_upstream_saw_is_believed():
    class Hits:
        ports = (1, 2)

        def hits(self, token):
            return 1

    target = Target("ok", "t1", 0, is_steady=True, timeout_ms=0, is_native=False)
    call = Call(db(), Hits(), target, was_cancelled=True)
    lie = ExecuteResponse(1, ErrorClass.PERMANENT, "cancelled", disposition=Disposition.NOT_SENT)
    with pytest.raises(Violation, match="not sent is true"):
        call.ends(lie, is_base=False)


def http(path="ok", request_id=1, **how):
    return strategies.http_request(request_id, f"http://127.0.0.1:{PORTS[0]}/{path}", **how)


PORTS = (11111, 22222, 33333)


class Seen:
    """An upstream that has had every request once."""

    ports = PORTS

    def hits(self, token):
        return 1


class Unseen(Seen):
    """One that never had any."""

    def hits(self, token):
        return 0


def asked(*messages, hits=Seen):
    made = ConnectionModel(hits(), is_base=False, circuits=Circuits())
    for message in messages:
        made.sent(frame(message))
    return made


def refusal(request_id=1, *, words="the circuit is open", retry_after_ms=4000):
    return ExecuteResponse(
        request_id,
        ErrorClass.TRANSIENT,
        f"refused: {words}",
        retry_after_ms=retry_after_ms,
        disposition=Disposition.NOT_SENT,
        refused_by="circuit_breaker:tenant",
    )


def test_only_a_silent_upstream_holds_a_connection_open_behind_a_framing_fault():
    fault = ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "a frame of no length")
    for path, may_wait in (("ok/t1", False), ("hang/t1", True)):
        made = asked(http(path))
        made.sent(b"\0\0\0\0")
        assert not made.owes_nothing_certain  # the words for it come at once
        made.received(frame(fault))
        assert made.owes_nothing_certain == may_wait
        assert made.late().rule == "faults of framing close"


def test_a_framing_fault_behind_an_offence_need_not_be_told():
    made = asked(http("stream/t1/9", stream=True))
    made.sent(frame(CreditUpdate(2**31 - 1, 0, 1)) + frame(CreditUpdate(2**31 - 1, 0, 1)))
    made.sent(b"\0\0\0\0" + b"\0\0\0\0")
    with pytest.raises(Violation, match="a close has a reason"):
        made.closed(is_reset=False)
    made.received(frame(ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "the window overflows")))
    made.closed(is_reset=False)


def test_the_end_of_ones_own_half_changes_nothing_behind_an_offence():
    made = asked(http("sum/t1", body_follows=True), RequestChunk(1, 0, b"x" * 65_537))
    made.sent(strategies.framed(0, b"") + strategies.framed(0, b""))
    made.sent_eof()
    with pytest.raises(Violation, match="a close has a reason"):
        made.closed(is_reset=False)
    fault = ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "more than was granted")
    made.received(frame(fault))
    made.closed(is_reset=False)


def test_more_of_a_body_than_was_granted_does_not_end_well():
    body = [RequestChunk(1, 0, b"x" * 65_536), RequestChunk(1, 1, b"x", last=True)]
    answer = ExecuteResponse(
        1, payload=b'{"status_code": 200, "body": "1 1"}', disposition=Disposition.COMPLETED
    )
    assert broken_by(asked(http("sum/t1", body_follows=True), *body), answer) == (
        "the window of a body"
    )
    granted = asked(http("sum/t1", body_follows=True), *body)
    granted.received(frame(CreditUpdate(1, 0, 1)))
    granted.received(frame(answer))


def test_a_bug_that_is_told_is_a_bug():
    answer = ExecuteResponse(1, ErrorClass.PERMANENT, "internal error")
    assert broken_by(asked(http("503/t1")), answer) == "no bugs are told"


def test_a_steady_origin_opens_no_circuit():
    assert broken_by(asked(http("ok/t1"), hits=Unseen), refusal()) == "circuits open for a reason"


def test_whose_circuit_it_is_nobody_knows_where_calls_share_an_id():
    troubled = strategies.http_request(1, f"http://127.0.0.1:{PORTS[1]}/reset/t2")
    made = asked(http("hang/t1"), troubled, hits=Unseen)
    made.received(frame(refusal()))


def test_an_open_circuit_holds_for_as_long_as_it_says():
    answer = ExecuteResponse(
        2, ErrorClass.TRANSIENT, "reset", disposition=Disposition.SENT_NO_RESPONSE, attempts=1
    )

    def then(first, path="reset/t2"):
        made = ConnectionModel(Seen(), is_base=False, circuits=Circuits())
        for number, where in enumerate(("reset/t1", path), 1):
            url = f"http://127.0.0.1:{PORTS[1]}/{where}"
            made.sent(frame(strategies.http_request(number, url)))
            made._hits = Unseen() if number == 1 else Seen()
            made.owed[0].hits = made._hits
            if number == 1:
                made.received(frame(first))
        return made

    assert broken_by(then(refusal()), answer) == "open circuits hold"
    then(refusal(words="half-open")).received(frame(answer))
    then(refusal(retry_after_ms=0)).received(frame(answer))


def test_a_spoiled_buffer_may_be_read_otherwise_where_the_protocol_is_the_published_one():
    """An enumeration that only we know is wrong: the published runtime runs the call."""
    spoiled = bytearray(frame(db(7, response_format=ResponseFormat.NATIVE)))
    spoiled[spoiled.rindex(2)] = 99
    for is_base in (True, False):
        made = ConnectionModel(None, is_base=is_base)
        made.sent(bytes(spoiled))
        if is_base:
            made.received(frame(permanent(7)))
            assert made.owes_nothing
        else:
            assert broken_by(made, permanent(7)) == "one final frame"


def test_a_recording_is_read_as_it_was_written(tmp_path):
    steps = (Step("open", 1), Step("send", 1, b"\0\xff"))
    made = Recording(steps, "rule", "what", "wire", base=False, ports=(1, 2), salt="s000001")
    save(made, tmp_path / "f.json")
    assert load(tmp_path / "f.json") == made
    (tmp_path / "f.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="no recording"):
        load(tmp_path / "f.json")


def test_failing_steps_become_few_and_short():
    good, bad = frame(db(1)), frame(db(7))
    steps = [Step("open"), *[Step("send", 0, good)] * 9, Step("send", 0, good + bad + good)]

    def breaks(candidate):
        return any(bad in step.data for step in candidate)

    assert minimise(steps, breaks, 10.0) == (Step("send", 0, bad),)


@given(data=st.one_of(strategies.byte_level(), strategies.buffer_level()))
@settings(max_examples=150, deadline=None, suppress_health_check=list(Check))
def test_no_bytes_break_the_reader(data):
    connection = Connection(Role.RUNTIME)
    connection.receive_data(data)
    for _ in range(len(data) + 1):
        try:
            if connection.next_event() is NEED_DATA:
                return
        except RemoteProtocolError as error:
            if error.closes:
                return
    pytest.fail("the reader never ends")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_pieces_are_the_whole(data):
    raw = data.draw(strategies.message_level())
    assert b"".join(data.draw(strategies.splits(raw))) == raw


def test_the_pattern_shows_a_piece_out_of_place():
    whole = pattern(0, 100_000)
    assert whole[300:900] == pattern(300, 600)
    assert pattern(0, 600) != pattern(65_536, 600)


@given(data=st.one_of(strategies.message_level(), strategies.buffer_level()))
@settings(max_examples=150, deadline=None, suppress_health_check=list(Check))
def test_the_codec_reads_as_the_generated_code(data):
    check(bytes((0, 0)) + data[5:])


def test_the_codec_takes_what_is_sound():
    assert check(bytes((0, 0)) + frame(db())[5:])
    assert not check(b"")
