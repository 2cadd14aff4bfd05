"""One line an event, the call's identity in each, no secrets, and no waiting on a reader."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.log_lines import log_to
from vastar_runtime import logs

Read = Callable[[], list[dict[str, object]]]


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[int]:
    with log_to(tmp_path / "log") as fd:
        yield fd


@pytest.fixture
def read(log_file: int) -> Read:
    logs.configure("info", "json", log_file)
    return lambda: [json.loads(line) for line in os.pread(log_file, 1 << 20, 0).splitlines()]


def test_a_line_says_when_what_and_where(read: Read) -> None:
    logs.get_logger("session").info("opened", connection=3)
    (line,) = read()
    assert line.pop("timestamp").startswith("20")  # type: ignore[attr-defined]  # it is a str
    assert line == {"event": "opened", "level": "info", "component": "session", "connection": 3}


def test_what_is_below_the_level_is_not_written(read: Read) -> None:
    logs.get_logger("x").debug("no")
    assert read() == []


def test_a_logger_used_before_follows_a_new_configuration(read: Read, log_file: int) -> None:
    log = logs.get_logger("x")
    log.debug("no")
    logs.configure("debug", "json", log_file)
    log.debug("yes")
    assert [line["event"] for line in read()] == ["yes"]


async def test_the_identity_of_a_call_is_in_its_lines_and_its_children_only(read: Read) -> None:
    log = logs.get_logger("x")

    async def child(name: str) -> None:
        with logs.call_context(step=name):
            await trio.lowlevel.checkpoint()
            log.info(name)

    with logs.call_context(trace_id="t1", tenant="acme", workspace="w"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "a")
            nursery.start_soon(child, "b")
        log.info("inside")
    log.info("outside")
    lines = {str(line["event"]): line for line in read()}
    for name in ("a", "b"):
        assert lines[name]["trace_id"] == "t1"
        assert lines[name]["step"] == name
    assert lines["inside"]["tenant"] == "acme"
    assert "step" not in lines["inside"]
    assert "trace_id" not in lines["outside"]


_SECRET = st.text(alphabet="XYZQJ", min_size=6, max_size=30)
_PLACES: list[Callable[[str], dict[str, object]]] = [
    lambda s: {"authorization": s},
    lambda s: {"api_key": {"value": s}},
    lambda s: {"headers": [("Authorization", s), ("Accept", "x")]},
    lambda s: {"headers": {"X-Api-Key": s}},
    lambda s: {"detail": {"deep": [{"set-cookie": s}]}},
    lambda s: {"url": f"https://user:{s}@host.test/?page=1"},
    lambda s: {"url": f"https://host.test/?api_key={s}"},
    lambda s: {"message": f"failed with Authorization: Bearer {s}"},
    lambda s: {"body": s.encode()},
    lambda s: {"body": memoryview(s.encode())},
    lambda s: {"error": ValueError(f"proxy http://u:{s}@p.test refused")},
    lambda s: {"items": [f"token={s}"]},
]


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_planted_secret_is_written(style: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    with log_to(path) as fd:
        logs.configure("info", style, fd)  # type: ignore[arg-type]  # parametrized
        log = logs.get_logger("x")

        @given(secret=_SECRET, place=st.sampled_from(_PLACES), in_exception=st.booleans())
        def check(
            secret: str, place: Callable[[str], dict[str, object]], in_exception: bool
        ) -> None:
            start = os.lseek(fd, 0, os.SEEK_END)
            if in_exception:
                error = RuntimeError(f"GET https://u:{secret}@h.test/ token={secret}")
                log.error("failed", exc_info=error, **place(secret))
            else:
                log.info("done", **place(secret))
            written = os.pread(fd, 1 << 16, start).decode()
            assert secret not in written
            assert "failed" in written or "done" in written

        check()


@given(
    st.dictionaries(
        st.text().filter(lambda key: key not in {"event", "exc_info"}),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        ),
    )
)
def test_whatever_is_logged_becomes_one_line(fields: dict[str, object]) -> None:
    event = logs.redact_event(None, "info", {"event": "x", **fields})
    line = logs._render_json(None, "info", event)
    assert b"\n" not in line
    json.loads(line)


def test_a_peer_cannot_forge_console_lines(log_file: int) -> None:
    logs.configure("info", "console", log_file)
    logs.get_logger("x").info("a\nb", origin="h\nfake line \x1b[2J")
    written = os.pread(log_file, 4096, 0)
    assert written.count(b"\n") == 1
    assert b"\x1b" not in written


def test_rich_stays_out_of_the_daemon_even_when_it_is_installed(tmp_path: Path) -> None:
    """A package of that name lies on the path; a fresh interpreter must not import it."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise SystemExit('rich was imported')")
    code = (
        "import sys, vastar_runtime.logs as logs\n"
        "logs.configure('info', 'console'); logs.get_logger('x').info('hello')\n"
        "assert 'rich' not in sys.modules\n"
        "import importlib.util; assert importlib.util.find_spec('rich')\n"
    )
    root = Path(logs.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stderr


def test_structlog_is_imported_here_and_nowhere_else() -> None:
    root = Path(logs.__file__).parent
    users = [p for p in root.rglob("*.py") if "import structlog" in p.read_text()]
    assert users == [Path(logs.__file__)]


@pytest.mark.parametrize("text", ["http://127.0.0.1:80", "http://u:pw@host/?token=pw", "a" * 9000])
def test_what_was_looked_through_before_is_treated_the_same_again(text: str) -> None:
    """Clean texts are remembered, for speed: that must never show, nor may a secret be kept."""
    first, again = (
        logs.redact_event(None, "info", {"event": "x", "origin": text}) for _ in range(2)
    )
    assert first == again
    assert "pw" not in str(first)
    assert not any("pw" in kept for kept in logs._harmless)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3 * logs._MAX_HARMLESS):
        logs.redact_event(None, "info", {"event": "x", "origin": f"http://host-{number}"})
    assert len(logs._harmless) <= logs._MAX_HARMLESS
