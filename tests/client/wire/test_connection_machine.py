"""Two real ends joined in memory against a dumb model, in any order and any split."""

import copy
from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.client.wire.samples import OF_ACTION, SENDERS, event_or_fault, frame
from tests.client.wire.strategies import chunks, messages
from vastar_client import wire
from vastar_client.wire import Connection, Message, MessageType, Phase, Role
from vastar_client.wire.state import Action

BY_CLIENT = ["ExecuteRequest", "CreditUpdate", "Cancel", "RequestChunk", "Authenticate"]
BY_RUNTIME = ["ExecuteResponse", "HealthCheckResponse", "StreamStart", "StreamChunk", "StreamEnd"]
BY_RUNTIME += ["KeepAlive", "Goaway", "CreditUpdate"]
FORGIVEN = {
    "unknown type": frame(200, b"whatever"),
    "bad buffer": frame(0, b"\x01\x02\x03"),
    "not for a runtime": frame(1, b""),
}


def opens(message: Message) -> Phase:
    """The least phase that a connection is in after a client sent `message`."""
    if isinstance(message, wire.CreditUpdate):
        return Phase.CREDITED
    plain_call = isinstance(message, wire.ExecuteRequest) and not (
        message.stream or message.body_follows
    )
    return Phase.BASE if plain_call else Phase.EXTENDED


RANK = {Phase.BASE: 0, Phase.EXTENDED: 1, Phase.CREDITED: 2}


def least(message: Message) -> Phase:
    """The least phase in which a runtime may send `message`."""
    if isinstance(message, wire.ExecuteResponse):
        return Phase.BASE
    request_credit = isinstance(message, wire.CreditUpdate) and not message.request_id
    return Phase.CREDITED if request_credit or isinstance(message, wire.Goaway) else Phase.EXTENDED


def sound(message: Message) -> bool:
    if not isinstance(message, wire.CreditUpdate):
        return True
    return message.credit_delta >= 0 and 0 <= message.connection_bytes < 2**31


class TwoEnds(RuleBasedStateMachine):
    """The model: what was sent and not yet received, in order, and the phase of each end."""

    @initialize()
    def begin(self) -> None:
        self.ends = {role: Connection(role) for role in Role}
        self.phases = dict.fromkeys(Role, Phase.BASE)
        # what is on its way to each end: messages, or None for a fault that is forgiven
        self.expected: dict[Role, deque[Message | None]] = {role: deque() for role in Role}
        self.wires: dict[Role, bytearray] = {role: bytearray() for role in Role}
        self.failed: set[Role] = set()

    def put(self, to: Role, message: Message, buffers: list[wire.Buffer]) -> None:
        self.wires[to] += b"".join(buffers)
        self.expected[to].append(message)

    @precondition(lambda self: Role.CLIENT not in self.failed)
    @rule(message=messages(*BY_CLIENT) | st.just(wire.HealthCheck()))
    def client_sends(self, message: Message) -> None:
        if not sound(message):
            with pytest.raises(wire.LocalProtocolError):
                self.ends[Role.CLIENT].send(message)
            return
        self.put(Role.RUNTIME, message, self.ends[Role.CLIENT].send(message))
        self.phases[Role.CLIENT] = max(
            self.phases[Role.CLIENT], opens(message), key=lambda phase: RANK[phase]
        )

    @precondition(lambda self: Role.RUNTIME not in self.failed)
    @rule(message=messages(*BY_RUNTIME))
    def runtime_sends(self, message: Message) -> None:
        runtime = self.ends[Role.RUNTIME]
        early = RANK[least(message)] > RANK[self.phases[Role.RUNTIME]]
        if early or not sound(message):
            with pytest.raises(wire.LocalProtocolError):
                runtime.send(message)
        else:
            self.put(Role.CLIENT, message, runtime.send(message))

    @rule(role=st.sampled_from(Role), data=st.data())
    def sends_what_only_the_other_may(self, role: Role, data: st.DataObject) -> None:
        others = [a for a in Action if SENDERS[a] is not role and "CREDIT" not in a.name]
        with pytest.raises(wire.LocalProtocolError):
            self.ends[role].send(OF_ACTION[data.draw(st.sampled_from(others))])

    @rule(name=st.sampled_from(sorted(FORGIVEN)))
    def a_client_sends_what_is_forgiven(self, name: str) -> None:
        self.wires[Role.RUNTIME] += FORGIVEN[name]
        self.expected[Role.RUNTIME].append(None)

    @rule(role=st.sampled_from(Role), data=st.data())
    def receives(self, role: Role, data: st.DataObject) -> None:
        """Some of what is on the wire arrives, in any split."""
        amount = data.draw(st.integers(0, len(self.wires[role])) | st.just(len(self.wires[role])))
        arrived = bytes(self.wires[role][:amount])
        del self.wires[role][:amount]
        for chunk in data.draw(chunks(arrived)):
            self.ends[role].receive_data(chunk)
            self.take(role)

    def take(self, role: Role) -> None:
        """Everything that has arrived whole is what was sent, in order."""
        end = self.ends[role]
        while (event := event_or_fault(end)) is not wire.NEED_DATA:
            message = self.expected[role].popleft()
            if isinstance(event, wire.RemoteProtocolError):
                assert not event.closes
                assert message is None
                continue
            assert event == message
            if role is Role.RUNTIME:
                self.phases[role] = max(
                    self.phases[role], opens(message), key=lambda phase: RANK[phase]
                )

    @rule(role=st.sampled_from(Role))
    def a_write_fails(self, role: Role) -> None:
        self.ends[role].send_failed()
        self.failed.add(role)

    @rule(role=st.sampled_from(Role))
    def the_stream_to_it_ends_here(self, role: Role) -> None:
        """Looked at on a copy: the end between frames, or inside one."""
        end = copy.deepcopy(self.ends[role])
        end.receive_data(b"")
        if end.in_frame:
            with pytest.raises(wire.RemoteProtocolError, match="inside a frame"):
                end.next_event()
        else:
            assert end.next_event() is wire.END_OF_STREAM

    @rule(role=st.sampled_from(Role))
    def what_closes_a_connection_closes_it_for_good(self, role: Role) -> None:
        end = copy.deepcopy(self.ends[role])
        if end.in_frame:
            return
        end.receive_data(bytes(4))
        for _ in range(2):
            with pytest.raises(wire.RemoteProtocolError) as caught:
                end.next_event()
            assert caught.value.closes
            end.receive_data(frame(MessageType.HEALTH_CHECK, b""))

    @invariant()
    def phases_are_as_the_model_says(self) -> None:
        for role, end in self.ends.items():
            expected = Phase.CLOSED if role in self.failed else self.phases[role]
            assert end.phase is expected
            assert end.opted_in is (self.phases[role] is not Phase.BASE)

    @invariant()
    def an_end_is_in_a_frame_exactly_when_part_of_one_is_still_to_come(self) -> None:
        for role, end in self.ends.items():
            assert not end.in_frame or self.wires[role]
            assert self.wires[role] or not self.expected[role]

    def teardown(self) -> None:
        """What is left on the wire arrives."""
        for role in Role:
            if self.wires[role]:
                self.ends[role].receive_data(bytes(self.wires[role]))
            self.take(role)
            assert not self.expected[role]
            assert not self.ends[role].in_frame


TestTwoEnds = TwoEnds.TestCase
