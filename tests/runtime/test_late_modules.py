"""What the daemon does not use is not loaded, and what it uses late works or is refused before."""

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.commands import Caller, end, serving
from tests.support.http_tls import Authority
from tests.support.upstream import threaded_upstream
from vastar_client.wire import ErrorClass, ExecuteResponse
from vastar_runtime import late_modules as under_test
from vastar_runtime.late_modules import late_modules

USED_BY_SOME = {
    "ada_url",
    "difflib",
    "email",
    "h11",
    "httpcore",
    "idna",
    "prometheus_client",
    "socksio",
}
USED_BY_NONE = {
    "anyio",
    "asyncio",
    "flatbuffers",
    "hypothesis",
    "pytest",
    "rich.console",
    "trustme",
}
OF_TLS = {"ssl", "_ssl", "_hashlib", "hashlib", "hmac"}
NOT_WHEN_IDLE = USED_BY_SOME | USED_BY_NONE | OF_TLS


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported, and is not."""
    (tmp_path / "late_example.py").write_text("import sys\nsys.late_loads += 1\nvalue = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "late_loads", 0, raising=False)
    yield "late_example"
    sys.modules.pop("late_example", None)


def loads() -> int:
    return sys.late_loads  # type: ignore[attr-defined, no-any-return]


def test_a_late_module_is_loaded_once_when_it_is_asked(counting: str) -> None:
    with late_modules([counting]):
        first = __import__(counting)
        second = __import__(counting)
    assert first is second
    assert (loads(), counting in sys.modules) == (0, False)
    assert (first.value, first.value, second.value) == (7, 7, 7)
    assert loads() == 1
    assert "value" in vars(first)


def test_one_that_is_asked_while_others_are_imported_takes_its_place(counting: str) -> None:
    with late_modules([counting]):
        value = __import__(counting, fromlist=["value"]).value
        real = sys.modules[counting]
    assert (value, loads()) == (7, 1)
    assert sys.modules[counting] is real
    assert real.__spec__ is not None


def test_afterwards_imports_give_the_real_one(counting: str) -> None:
    with late_modules([counting]):
        stand_in = __import__(counting)
    real = __import__(counting)

    assert stand_in is not real
    assert (real.__name__, stand_in.value, loads()) == (counting, 7, 1)


def test_one_that_is_loaded_stays(counting: str) -> None:
    loaded = __import__(counting)

    with late_modules([counting]):
        again = __import__(counting)
    assert loaded is again is sys.modules[counting]


def test_a_name_that_it_does_not_have_is_told(counting: str) -> None:
    with late_modules([counting]):
        module = __import__(counting)
    with pytest.raises(AttributeError, match="'late_example' has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - asked for


def test_a_failed_import_leaves_no_stand_in(counting: str) -> None:
    with pytest.raises(ZeroDivisionError), late_modules([counting]):
        raise ZeroDivisionError
    assert counting not in sys.modules


@pytest.mark.parametrize("missing", ["late_nowhere", "late_half"])
def test_what_could_not_be_loaded_later_is_refused_now(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_half.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(under_test._BUILT_IN_PARTS, "late_half", "_late_half")
    with (
        pytest.raises(ImportError, match="this Python has no module"),
        late_modules([missing]),
    ):
        pass
    assert not isinstance(sys.modules.get(missing), ModuleType)


def loaded_by(socket_path: str, url: str | None = None) -> set[str]:
    """Every module that a `serve` loads from start to stop, maybe with one failing call."""
    variables = {"PYTHONPROFILEIMPORTTIME": "1"}  # tells them on standard error
    with serving("--socket", socket_path, variables=variables) as process:
        if url is not None:
            assert "connection refused" in failure(socket_path, url)
        code, told = end(process, signal.SIGTERM)
    assert code == 0
    names = {line.rpartition("|")[2].strip() for line in told.splitlines() if " | " in line}
    assert {"trio", "structlog", "vastar_runtime.server"} <= names
    return names


def failure(socket_path: str, url: str) -> str:
    """Why a call through the runtime fails."""
    caller = Caller(socket_path)
    caller.get(url)
    answer = caller.receive()
    caller.close()
    assert isinstance(answer, ExecuteResponse)
    assert answer.error_class is not ErrorClass.SUCCESS
    assert answer.error_message is not None
    return answer.error_message


@pytest.mark.slow
def test_an_idle_runtime_has_loaded_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    names = loaded_by(str(tmp_path / "r.sock"))
    assert names & NOT_WHEN_IDLE == set()


@pytest.mark.slow
def test_plain_calls_load_no_tls_even_when_they_fail(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        url = f"http://127.0.0.1:{closed_again.getsockname()[1]}/"
    names = loaded_by(str(tmp_path / "r.sock"), url)
    assert names & NOT_WHEN_IDLE == set()


@pytest.mark.slow
def test_the_first_call_over_tls_loads_it(tmp_path: Path) -> None:
    context = Authority.make(tmp_path).server("localhost")
    path = str(tmp_path / "r.sock")
    with threaded_upstream(context) as upstream, serving("--socket", path) as process:
        for _ in range(2):
            why = failure(path, f"https://localhost:{upstream.port}/")
            assert "certificate verify failed" in why
        assert end(process, signal.SIGTERM)[0] == 0
