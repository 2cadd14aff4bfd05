"""Options, then variables, then the file say which runtime is meant."""

import argparse
from pathlib import Path

import pytest

from vastar_runtime.cli._target import (
    holder_at,
    how_to_start,
    is_leaving_at,
    load_from_options,
    lock_path_of,
    target_of,
)
from vastar_runtime.config import DEFAULT_SOCKET_PATH, ConfigError, TcpAddress, UnixAddress
from vastar_runtime.runtime_files import RuntimeLock


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "SOCKET_PATH", "USE_TCP", "TCP_HOST", "TCP_PORT"):
        monkeypatch.delenv(f"VASTAR_{name}", raising=False)


def _options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"socket": None, "tcp": None, "config": None, **given})


def test_the_usual_place() -> None:
    assert target_of(_options()) == UnixAddress(DEFAULT_SOCKET_PATH)


def test_variables_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASTAR_USE_TCP", "true")
    assert target_of(_options()) == TcpAddress("127.0.0.1", 5000)
    assert target_of(_options(socket="/x")) == UnixAddress("/x")
    server = load_from_options(_options(socket="/x", tcp=["5001"])).config.server
    assert server.addresses() == (UnixAddress("/x"), TcpAddress("127.0.0.1", 5001))


def test_a_broken_file_matters_only_when_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("nonsense = 1")
    with pytest.raises(ConfigError):
        target_of(_options(config=str(file)))
    assert target_of(_options(config=str(file), tcp=["[::1]:7"])) == TcpAddress("::1", 7)


def test_each_address_has_its_lock(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "x"))
    assert lock_path_of(address) == str(tmp_path / "x.lock")
    assert lock_path_of(TcpAddress("127.0.0.1", 7)).endswith("tcp-7.lock")
    assert holder_at(address) is None
    assert not is_leaving_at(address)
    lock = RuntimeLock.acquire(lock_path_of(address), "x")
    lock.tell_leaving()
    assert is_leaving_at(address)
    lock.release()


def test_how_a_runtime_is_started_that_would_be_found_there() -> None:
    assert how_to_start(UnixAddress(DEFAULT_SOCKET_PATH)) == "start one with: vastar start"
    assert how_to_start(UnixAddress("/a b")).endswith("vastar start --socket '/a b'")
    assert how_to_start(TcpAddress("::1", 5000)).endswith("vastar start --tcp [::1]:5000")
