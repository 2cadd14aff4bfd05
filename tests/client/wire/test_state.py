"""The state table, exhaustively, against rules written here from PROTOCOL.md's words."""

import itertools

import pytest

from tests.client.wire.samples import OF_ACTION, SENDERS, connection_in
from vastar_client import wire
from vastar_client.wire import Phase, Role, limits, state
from vastar_client.wire.state import Action, Consequence, Fault

# "Opting in: a connection that has sent any frame of type 2, 4, 8, 10 or a request with `stream`
# may be sent the types that answer it; Goaway and request credits only after a CreditUpdate."
# Authenticate is answered by type 3, so it opts in too; a request whose body follows has type 10
# frames to come, for which the runtime must be able to give stream credit.
OPT_IN = {
    Action.HEALTH_CHECK,
    Action.STREAM_CREDIT,
    Action.REQUEST_CREDIT,
    Action.CANCEL,
    Action.REQUEST_CHUNK,
    Action.STREAM_CALL,
    Action.AUTHENTICATE,
}
CREDIT = {Action.REQUEST_CREDIT, Action.STREAM_CREDIT}
# The directions of the frame table (section 1) and of section 6.
FROM_CLIENT = OPT_IN | {Action.CALL}
FROM_RUNTIME = set(Action) - FROM_CLIENT | CREDIT
ONLY_CREDITED = {Action.GOAWAY, Action.REQUEST_CREDIT}

EVERY = list(itertools.product(Role, Phase, Action))


def rule(role: Role, phase: Phase, action: Action) -> Phase | None:
    """The phase after `action` of an end of `role`; None where it may not be sent."""
    if phase is Phase.CLOSED:
        return None
    if role is Role.CLIENT:
        if action not in FROM_CLIENT:
            return None
        if action in CREDIT or phase is Phase.CREDITED:
            return Phase.CREDITED
        return Phase.EXTENDED if action in OPT_IN else phase
    if action not in FROM_RUNTIME:
        return None
    if phase is Phase.BASE and action is not Action.ANSWER:
        return None  # nothing unsolicited reaches a published SDK
    if action in ONLY_CREDITED and phase is not Phase.CREDITED:
        return None
    return phase


def ids(value: object) -> str:
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("role", "phase", "action"), EVERY, ids=ids)
def test_the_table_says_what_the_protocol_says(role: Role, phase: Phase, action: Action) -> None:
    assert state.SENDS[role][phase].get(action) is rule(role, phase, action)


def test_the_table_has_a_row_for_every_role_and_phase_and_closed_is_terminal() -> None:
    for role in Role:
        assert set(state.SENDS[role]) == set(Phase)
        assert not state.SENDS[role][Phase.CLOSED]


@pytest.mark.parametrize(("role", "phase", "action"), EVERY, ids=ids)
def test_a_connection_sends_what_the_table_allows(role: Role, phase: Phase, action: Action) -> None:
    connection = connection_in(role, phase)
    next_phase = rule(role, phase, action)
    if next_phase is None:
        with pytest.raises(wire.LocalProtocolError):
            connection.send(OF_ACTION[action])
        assert connection.phase is phase
    else:
        assert connection.send(OF_ACTION[action])
        assert connection.phase is next_phase


@pytest.mark.parametrize(
    ("role", "phase", "action"), [row for row in EVERY if row[1] is not Phase.CLOSED], ids=ids
)
def test_a_connection_accepts_what_its_peer_may_send(
    role: Role, phase: Phase, action: Action
) -> None:
    """And answers the rest by the consequence of a fault."""
    peer = Role.RUNTIME if role is Role.CLIENT else Role.CLIENT
    connection = connection_in(role, phase)
    sender = connection_in(SENDERS[action], Phase.CREDITED)
    connection.receive_data(b"".join(sender.send(OF_ACTION[action])))
    next_phase = rule(peer, phase, action)
    if next_phase is None:
        with pytest.raises(wire.RemoteProtocolError) as caught:
            connection.next_event()
        assert caught.value.closes is (role is Role.CLIENT)
        assert caught.value.error_class is wire.ErrorClass.INVALID_REQUEST
        assert connection.phase is phase
    else:
        assert connection.next_event() == OF_ACTION[action]
        assert connection.phase is next_phase
    assert connection.opted_in is (connection.phase is not Phase.BASE)


@pytest.mark.parametrize("fault", Fault, ids=ids)
def test_what_a_fault_costs(fault: Fault) -> None:
    """A runtime goes on where the framing is intact, but for credit; a client never goes on."""
    framing_is_lost = fault in {Fault.ZERO_LENGTH, Fault.OVERSIZE, Fault.CUT_SHORT}
    closes = framing_is_lost or fault is Fault.BAD_CREDIT
    expected = Consequence.CLOSES if closes else Consequence.GOES_ON
    assert state.FAULTS[Role.RUNTIME][fault] is expected
    assert state.FAULTS[Role.CLIENT][fault] is Consequence.CLOSES


@pytest.mark.parametrize("action", Action, ids=ids)
def test_each_message_is_the_action_it_is_named_after(action: Action) -> None:
    assert state.action_of(OF_ACTION[action]) is action


def test_a_request_is_a_stream_call_when_either_body_is_streamed() -> None:
    call = OF_ACTION[Action.CALL]
    assert isinstance(call, wire.ExecuteRequest)
    for stream, body_follows in itertools.product([False, True], repeat=2):
        message = wire.ExecuteRequest(
            1, "t", "http", "request", stream=stream, body_follows=body_follows
        )
        expected = Action.STREAM_CALL if stream or body_follows else Action.CALL
        assert state.action_of(message) is expected


@pytest.mark.parametrize("role", Role, ids=ids)
@pytest.mark.parametrize("message_type", wire.MessageType, ids=ids)
def test_the_directions_of_the_frame_types(role: Role, message_type: wire.MessageType) -> None:
    allowed = FROM_CLIENT if role is Role.CLIENT else FROM_RUNTIME
    expected = any(OF_ACTION[action].TYPE is message_type for action in allowed)
    assert state.is_sendable_type(role, message_type) is expected


TOP = limits.MAX_WINDOW_BYTES


@pytest.mark.parametrize("delta", [-(2**31), -1, 0, 1, TOP])
@pytest.mark.parametrize("connection_bytes", [-(2**63), -1, 0, 1, TOP, TOP + 1, 2**63 - 1])
def test_credit_is_sound_between_zero_and_the_largest_window(
    delta: int, connection_bytes: int
) -> None:
    update = wire.CreditUpdate(credit_delta=delta, connection_bytes=connection_bytes)
    expected = delta >= 0 and 0 <= connection_bytes <= TOP
    assert state.credit_is_sound(update) is expected
