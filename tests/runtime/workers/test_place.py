"""What a worker is given."""

import pytest

from vastar_runtime.workers.place import MAX_WORKERS, NO_DESCRIPTOR, WorkerPlace

WHOLE = WorkerPlace(
    index=1,
    count=2,
    control_fd=5,
    memory_fd=6,
    counts_fd=7,
    bells=((11, 12), (13, 14)),
    listeners=(("unix:/run/x.sock", 8), ("tcp:127.0.0.1:5000", 9)),
    metrics=("tcp:127.0.0.1:9000", 10),
)


def test_a_place_survives_the_command_line():
    assert WorkerPlace.from_text(WHOLE.to_text()) == WHOLE
    bare = WorkerPlace(0, 1, 3)
    assert WorkerPlace.from_text(bare.to_text()) == bare
    assert "\n" not in WHOLE.to_text()


def test_all_descriptors_are_named_and_only_those_there_are():
    assert WHOLE.descriptors() == (5, 6, 7, 11, 12, 13, 14, 8, 9, 10)
    assert WorkerPlace(0, 1, 3).descriptors() == (3,)
    assert NO_DESCRIPTOR not in WorkerPlace(0, 1, 3).descriptors()


@pytest.mark.parametrize(
    ("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, MAX_WORKERS + 1), (MAX_WORKERS, MAX_WORKERS)]
)
def test_impossible_places_are_refused(index, count):
    with pytest.raises(ValueError, match="there is no worker"):
        WorkerPlace(index, count, 3)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"index":0}', WHOLE.to_text().replace('"index":1', '"index":9')]
)
def test_what_is_no_place_is_refused_with_the_reason(text):
    with pytest.raises(ValueError, match=r"no place of a worker|there is no worker"):
        WorkerPlace.from_text(text)
