"""What is opened for several workers, and that all of it is closed."""

import os
import socket

import msgspec
import pytest

from vastar_runtime.config import RuntimeConfig
from vastar_runtime.runtime_files import RuntimeFileError
from vastar_runtime.workers import supervise as under_test
from vastar_runtime.workers.place import MAX_WORKERS
from vastar_runtime.workers.supervise import supervise, worker_count


def config_at(path: str, *, metrics: str | None = None) -> RuntimeConfig:
    whole = RuntimeConfig()
    return msgspec.structs.replace(
        whole,
        server=msgspec.structs.replace(whole.server, socket_path=path, workers=2),
        metrics=msgspec.structs.replace(whole.metrics, listen=metrics),
    )


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are what is compared


def test_workers_are_counted_by_number_or_by_cores(monkeypatch):
    assert worker_count(3) == 3
    assert worker_count("auto") == len(os.sched_getaffinity(0))
    monkeypatch.setattr(under_test.os, "sched_getaffinity", lambda _: range(1000))
    assert worker_count("auto") == MAX_WORKERS
    monkeypatch.delattr(under_test.os, "sched_getaffinity")
    monkeypatch.setattr(under_test.os, "cpu_count", lambda: 3)
    assert worker_count("auto") == 3
    monkeypatch.setattr(under_test.os, "cpu_count", lambda: None)
    assert worker_count("auto") == 1


def test_all_is_closed_and_removed_at_the_end(tmp_path, monkeypatch, capfd):
    seen = []

    class Fake:
        refusal = "no"

        def __init__(self, *_: object, given: under_test.Given, **__: object) -> None:
            seen.append(given)

        def run(self) -> int:
            given = seen[0]
            assert given.counts.all() == [None, None]
            place = given.place(1, 2, 99)
            assert place.listeners[0][0] == f"unix:{tmp_path}/x"
            assert place.metrics is not None
            assert place.metrics[0].startswith("tcp:127.0.0.1:")
            assert given.shared is not None
            assert place.memory_fd == given.shared.fd
            assert len(place.bells) == 2
            assert len(place.descriptors()) == 5 + 4
            return 5

    monkeypatch.setattr(under_test, "Supervisor", Fake)
    before = open_descriptors()
    config = config_at(f"{tmp_path}/x", metrics="127.0.0.1:0")
    assert supervise(config, lambda: config, 0.0) == (5, "no")
    assert open_descriptors() == before
    assert list(tmp_path.iterdir()) == []
    assert "stopped" in capfd.readouterr().err


def test_a_port_that_is_taken_is_named_and_nothing_left(tmp_path):
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_at(f"{tmp_path}/x", metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(RuntimeFileError, match=r"^metrics\.listen: "):
            supervise(config, lambda: config, 0.0)
    assert open_descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_without_memory_files_nothing_is_shared(tmp_path, monkeypatch):
    seen = []

    class Fake:
        refusal = None

        def __init__(self, *_: object, given: under_test.Given, **__: object) -> None:
            seen.append(given.shared)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(under_test, "Supervisor", Fake)
    monkeypatch.setattr(under_test, "_has_memory_files", lambda: False)
    config = config_at(f"{tmp_path}/x")
    assert supervise(config, lambda: config, 0.0) == (0, None)
    assert seen == [None]
