"""Bells: what was rung is heard once, and nobody waits at one."""

import os
from collections.abc import Iterator

import pytest

from vastar_runtime.sharing.bells import Bells, make_bells


@pytest.fixture
def ends() -> Iterator[tuple[tuple[int, int], ...]]:
    made = make_bells(2)
    yield made
    for fd in (fd for pair in made for fd in pair):
        os.close(fd)


def test_a_worker_hears_what_it_was_rung_for_each_once(ends):
    first, second = Bells(ends, 0), Bells(ends, 1)
    for record_at in (7, 9, 7):
        first.ring(1, record_at)
    second.ring(1, 9)
    assert first.heard() == []
    assert second.heard() == [7, 9]
    assert second.heard() == []


def test_a_bell_that_nobody_hears_holds_nobody_up(ends):
    first, second = Bells(ends, 0), Bells(ends, 1)
    for record_at in range(20_000):
        first.ring(1, record_at)
    assert second.heard() == list(range(512))


def test_without_bells_nothing_rings():
    silent = Bells((), 0)
    silent.ring(1, 7)
    assert silent.own_fd is None
    assert silent.heard() == []


def test_where_descriptors_lack_none_is_left_open(monkeypatch):
    real, made = os.pipe, []

    def pipe() -> tuple[int, int]:
        if len(made) == 2:
            raise OSError(24, "too many open files")
        made.append(real())
        return made[-1]

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="too many"):
        make_bells(3)
    for fd in (fd for pair in made for fd in pair):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
