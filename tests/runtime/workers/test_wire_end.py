"""The supervisor's end: it never waits."""

import pytest

from vastar_runtime.workers.frames import Answer, Drain, FrameError, FrameReader, Go, encode
from vastar_runtime.workers.spawning import control_pair
from vastar_runtime.workers.wire_end import MAX_HELD_BYTES, WireEnd


@pytest.fixture
def pair():
    ours, theirs = control_pair()
    yield WireEnd(ours), theirs
    ours.close()
    theirs.close()


def test_words_go_both_ways(pair):
    end, theirs = pair
    assert end.read() == []
    assert end.send(Go())
    assert FrameReader().feed(theirs.recv(100)) == [Go()]
    theirs.sendall(encode(Drain())[:3])
    assert end.read() == []
    theirs.sendall(encode(Drain())[3:])
    assert end.read() == [Drain()]
    theirs.close()
    assert end.read() is None


def test_rubbish_is_an_end(pair):
    end, theirs = pair
    theirs.sendall(b"\xff" * 8)
    assert end.read() is None


def test_who_reads_nothing_is_not_waited_for_and_not_stored_for_without_end(pair):
    end, theirs = pair
    long = Answer(1, "x" * (8 * 1024 * 1024))
    sent = 0
    while end.send(long):
        sent += 1
        assert sent < 10
    assert end.wants_to_write
    assert sent * 8 * 1024 * 1024 <= MAX_HELD_BYTES + 8 * 1024 * 1024
    reader, found = FrameReader(), []
    theirs.setblocking(False)
    while end.wants_to_write or len(found) < sent:
        end.write()
        found += reader.feed(theirs.recv(262_144))
    assert found == [long] * sent
    assert end.send(Go())


def test_the_end_of_the_other_is_no_error_and_frees_what_was_held(pair):
    end, theirs = pair
    end.send(Answer(1, "x" * (8 * 1024 * 1024)))
    theirs.close()
    end.write()
    assert not end.wants_to_write
    assert end.send(Go())
    end.close()
    assert end.read() is None


def test_too_long_is_the_askers_fault(pair):
    with pytest.raises(FrameError):
        pair[0].send(Answer(1, "x" * 17_000_000))
