"""Credit: what may be sent, what may still come, and when more is granted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client.wire.errors import RemoteProtocolError
from vastar_client.wire.limits import MAX_WINDOW_BYTES
from vastar_client.wire.windows import ReceiveWindow, SendWindow


def test_no_more_is_taken_than_there_is():
    window = SendWindow(100)
    assert window.take(30) == 30
    assert window.take(100) == 70
    assert window.take(1) == 0
    assert window.available_bytes == 0


def test_a_grant_makes_room():
    window = SendWindow(10)
    window.take(10)
    window.grant(5)
    window.grant(0)
    assert window.take(10) == 5


def test_a_window_grows_up_to_the_largest_there_is_and_no_further():
    window = SendWindow(0)
    window.grant(MAX_WINDOW_BYTES)
    assert window.take(1) == 1
    window.grant(1)
    with pytest.raises(RemoteProtocolError, match="a window of more than 2147483647 bytes") as e:
        window.grant(1)
    assert e.value.closes
    assert window.available_bytes == MAX_WINDOW_BYTES, "as it was"


def test_data_up_to_the_window_is_received():
    window = ReceiveWindow(100)
    window.received(60)
    window.received(0)
    window.received(40)
    assert window.left_bytes == 0


def test_data_beyond_the_window_closes_the_connection():
    window = ReceiveWindow(100)
    window.received(60)
    with pytest.raises(RemoteProtocolError, match=r"41 bytes .* where 40 were granted") as caught:
        window.received(41)
    assert caught.value.closes
    assert window.left_bytes == 40, "as it was"


def test_credit_is_granted_again_at_half_of_the_window():
    window = ReceiveWindow(100)
    window.received(100)
    assert window.consumed(49) == 0
    assert window.left_bytes == 0
    assert window.consumed(1) == 50
    assert window.left_bytes == 50
    assert window.consumed(50) == 50
    assert window.consumed(0) == 0


SIZES = st.integers(1, 70_000)


@given(window_bytes=st.integers(1, 70_000), chunks=st.lists(SIZES, max_size=50), data=st.data())
def test_two_ends_that_keep_the_books_agree_and_never_stop(window_bytes, chunks, data):
    """What one end may send is what the other one expects; consuming all lets the sender go on."""
    sender, receiver = SendWindow(window_bytes), ReceiveWindow(window_bytes)
    unread_bytes = 0
    for wanted_bytes in chunks:
        sent_bytes = sender.take(wanted_bytes)
        receiver.received(sent_bytes)
        unread_bytes += sent_bytes
        assert sender.available_bytes == receiver.left_bytes
        consumed_bytes = data.draw(st.integers(0, unread_bytes))
        unread_bytes -= consumed_bytes
        sender.grant(receiver.consumed(consumed_bytes))
        assert sender.available_bytes == receiver.left_bytes
        assert unread_bytes + receiver.left_bytes <= window_bytes, "memory is bounded"
    sender.grant(receiver.consumed(unread_bytes))
    assert sender.available_bytes * 2 > window_bytes - 1, "at least half is free again"


def test_a_window_grows_once_a_whole_one_was_consumed():
    window = ReceiveWindow(100, 400)
    window.received(100)
    assert (window.consumed(60), window.left_bytes) == (60, 60)
    assert (window.consumed(39), window.left_bytes) == (0, 60)
    assert (window.consumed(1), window.left_bytes) == (40 + 300, 400)
    window.received(400)
    assert (window.consumed(199), window.consumed(1), window.left_bytes) == (0, 200, 200)


def test_one_that_nobody_reads_never_grows():
    window = ReceiveWindow(100, 400)
    window.received(99)
    assert (window.consumed(0), window.left_bytes) == (0, 1)
