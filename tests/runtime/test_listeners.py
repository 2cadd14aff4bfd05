"""A listener takes over from the dead, never from the living, and removes only what is its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vastar_runtime.config import ServerConfig, TcpAddress, UnixAddress
from vastar_runtime.listeners import (
    Listener,
    close_listeners,
    inherited,
    is_readable,
    is_stale,
    open_listeners,
    open_tcp,
    open_unix,
    peer_credentials,
)
from vastar_runtime.runtime_files import (
    AlreadyRunningError,
    ForeignListenerError,
    RuntimeFileError,
    holder_of,
    is_leaving,
    lock_path_of_port,
    lock_path_of_socket,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "r.sock")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    listener = open_unix(path)
    yield listener
    listener.close()


def _leave_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()


def test_it_listens_with_mode_0600_and_tidies_up(listener: Listener, path: str) -> None:
    assert Path(path).stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        served, _ = listener.socket.accept()
        credentials = peer_credentials(served)
        served.close()
    assert credentials is not None
    assert (credentials.uid, credentials.gid) == (os.getuid(), os.getgid())
    assert credentials.pid in {os.getpid(), 0}
    listener.close()
    listener.close()
    assert list(Path(path).parent.iterdir()) == []


def test_the_mode_is_0600_before_anything_else_is_set(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also under a generous umask, and also when the socket is to be shared in the end."""
    modes = []
    chmod = os.chmod

    def spy(name: str, mode: int) -> None:
        modes.append(Path(name).stat().st_mode & 0o777)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", spy)
    before = os.umask(0)
    try:
        listener = open_unix(path, 0o660, str(os.getgid()))
        assert os.umask(0) == 0, "the umask of the process is as it was"
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert Path(path).stat().st_mode & 0o777 == 0o660
    listener.close()


def test_a_stale_socket_is_replaced(path: str) -> None:
    _leave_stale(path)
    assert is_stale(path)
    open_unix(path).close()
    assert not is_stale(path)


def test_a_live_runtime_is_refused_by_its_lock(listener: Listener, path: str) -> None:
    with pytest.raises(AlreadyRunningError, match=f"already running, pid {os.getpid()}"):
        open_unix(path)
    assert Path(path).exists()


def test_a_live_server_without_a_lock_is_refused(path: str) -> None:
    """It may be anything, or the published runtime, which takes no lock; its pid is told."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        left = rf"another program listens there \(pid {os.getpid()}\); it is left alone"
        with pytest.raises(ForeignListenerError, match=left):
            open_unix(path)
    assert Path(path).exists()
    assert holder_of(lock_path_of_socket(path)) is None


def test_a_live_server_with_a_full_backlog_is_not_taken_for_dead(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vastar_runtime.listeners._PROBE_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(path)
        other.listen(0)
        first.connect(path)
        with pytest.raises(ForeignListenerError, match="pid unknown"):
            open_unix(path)
    assert Path(path).exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a stale socket", "fifo"])
def test_what_is_no_socket_is_never_removed(path: str, kind: str) -> None:
    match kind:
        case "file":
            Path(path).write_text("precious")
        case "directory":
            Path(path).mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            _leave_stale(path + ".dead")
            Path(path).symlink_to(path + ".dead")
    before = os.lstat(path)
    with pytest.raises(RuntimeFileError, match="something that is no socket, which is left alone"):
        open_unix(path)
    assert os.lstat(path).st_ino == before.st_ino
    assert not Path(lock_path_of_socket(path)).exists()


def test_a_lock_path_that_is_a_link_is_refused_before_the_socket_is_touched(path: str) -> None:
    _leave_stale(path)
    Path(lock_path_of_socket(path)).symlink_to("/dev/null")
    with pytest.raises(RuntimeFileError, match="symbolic link"):
        open_unix(path)
    assert is_stale(path)


def test_a_file_that_another_put_there_meanwhile_is_left(path: str) -> None:
    listener = open_unix(path)
    Path(path).unlink()
    _leave_stale(path)
    listener.close()
    assert is_stale(path)


def test_paths_that_cannot_work_are_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFileError, match=r"at most 10[37] bytes"):
        open_unix(str(tmp_path / ("x" * 108)))
    with pytest.raises(RuntimeFileError, match="and no NUL"):
        open_unix("/tmp/a\0b")
    with pytest.raises(RuntimeFileError, match="does not exist; create it"):
        open_unix(str(tmp_path / "no" / "x.sock"))
    with pytest.raises(RuntimeFileError, match='no group "no-such-group"'):
        open_unix(str(tmp_path / "x.sock"), 0o660, "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_everybody_may_write_needs_its_sticky_bit(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(RuntimeFileError, match="everybody may replace files in"):
        open_unix(str(tmp_path / "x.sock"))
    tmp_path.chmod(0o1777)
    open_unix(str(tmp_path / "x.sock")).close()


_RACER = """
import sys
from vastar_runtime.listeners import open_unix
from vastar_runtime.runtime_files import AlreadyRunningError
print("ready", flush=True)
sys.stdin.readline()
try:
    listener = open_unix(sys.argv[1])
except AlreadyRunningError as error:
    print("refused", error.pid, flush=True)
else:
    print("serving", flush=True)
    sys.stdin.readline()
    listener.close()
"""


@pytest.mark.slow
def test_of_many_started_at_once_exactly_one_serves(path: str) -> None:
    """Real processes, a stale socket to fight over, several rounds."""
    for _ in range(3):
        _leave_stale(path)
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", _RACER, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        try:
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("\n")
                racer.stdin.flush()
            told = {racer.pid: racer.stdout.readline().split() for racer in racers if racer.stdout}
            serving = [pid for pid, words in told.items() if words == ["serving"]]
            assert len(serving) == 1
            others = [words for words in told.values() if words != ["serving"]]
            assert others == [["refused", str(serving[0])]] * 5
        finally:
            for racer in racers:
                racer.communicate("\n", timeout=20)
        assert list(Path(path).parent.iterdir()) == []


def test_tcp_listens_on_loopback_and_resolves_port_0() -> None:
    listener = open_tcp(TcpAddress("127.0.0.1", 0))
    assert isinstance(listener.address, TcpAddress)
    with socket.create_connection(("127.0.0.1", listener.address.port)) as caller:
        assert peer_credentials(caller) is None
    with pytest.raises(RuntimeFileError, match="address already in use"):
        open_tcp(listener.address)
    listener.close()


def test_a_runtime_on_tcp_alone_leaves_its_pid(tmp_path: Path) -> None:
    (listener,) = open_listeners(ServerConfig(use_tcp=True, tcp_port=0))
    assert isinstance(listener.address, TcpAddress)
    lock = lock_path_of_port(listener.address.port)
    assert holder_of(lock) == os.getpid()
    with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()}"):
        open_tcp(listener.address, lock=True)
    close_listeners([listener])
    assert not Path(lock).exists()


def test_one_that_leaves_says_so_and_keeps_its_lock(listener: Listener, path: str) -> None:
    lock = lock_path_of_socket(path)
    assert not is_leaving(lock)
    listener.leave()
    assert is_leaving(lock)
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(path)
    with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()}"):
        open_unix(path)
    unlocked = open_tcp(TcpAddress("127.0.0.1", 0))
    unlocked.leave()
    assert unlocked.socket.fileno() < 0


def test_all_addresses_open_or_none(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeFileError, match=rf"tcp:127\.0\.0\.1:{port}: address already"):
            open_listeners(ServerConfig(socket_path=path, tcp_also=(str(port),)))
    assert list(Path(path).parent.iterdir()) == []
    both = open_listeners(ServerConfig(socket_path=path, tcp_also=("0",)))
    assert both[0].address == UnixAddress(path)
    assert isinstance(both[1].address, TcpAddress)
    assert not Path(lock_path_of_port(both[1].address.port)).exists()
    close_listeners(both)


@pytest.mark.parametrize("address", ["unix:/run/x:y.sock", "tcp:127.0.0.1:5000", "tcp:[::1]:5000"])
def test_what_another_process_opened_is_told_by_its_text_and_left_for_it_to_tidy(
    address: str,
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        got = inherited(address, ours.detach())
        assert str(got.address) == address
        assert not got.socket.getblocking()
        got.leave()
        assert theirs.recv(1) == b""
        got.close()


def test_an_inherited_socket_serves_and_its_file_stays(listener: Listener, path: str) -> None:
    copy = inherited(str(listener.address), os.dup(listener.socket.fileno()))
    assert not is_readable(copy.socket)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        assert is_readable(copy.socket)
        copy.socket.accept()[0].close()
    copy.close()
    assert Path(path).exists()
