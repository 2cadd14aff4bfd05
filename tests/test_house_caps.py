"""The rules of tests/conftest.py, shown by tests that break them in a run of their own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLANTED = """
import socket, subprocess, threading
import pytest, trio
from hypothesis import given, strategies as st

kept = []

@pytest.mark.cap_s(0.2)
async def test_real_clock():
    await trio.sleep_forever()

@pytest.mark.cap_s(0.2)
async def test_virtual_clock(autojump_clock):
    await trio.sleep_forever()

@pytest.mark.cap_s(0.2)
@given(st.just(1))
async def test_property(n):
    await trio.sleep_forever()

def test_process():
    # Lives until this run ends and its pipe closes, however slow the machine is.
    kept.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))

def test_thread():
    kept.append(threading.Thread(target=threading.main_thread().join, name="idler"))
    kept[-1].start()

def test_socket():
    socket.socket()

async def test_clean_async(autojump_clock, golden_frames):
    await trio.sleep(1_000_000)
    assert len(golden_frames) == 105

def test_clean_process():
    subprocess.run(["true"], check=True)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of one run of the planted tests, in an empty house under the same rules."""
    house = tmp_path_factory.mktemp("house")
    for name in ("tests/support", "tests/golden"):
        shutil.copytree(ROOT / name, house / name)
    for name in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, house / name)
    (house / "tests" / "test_planted.py").write_text(PLANTED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(
        command, cwd=house, capture_output=True, text=True, check=False, timeout=60
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("FAILED .*test_real_clock", "a test that never ends is ended by its cap"),
        ("FAILED .*test_virtual_clock", "the cap counts real seconds under a virtual clock"),
        ("FAILED .*test_property", "an asynchronous property is capped too"),
        ("TimeoutError: the test took longer than its cap of 0.2 s", "the cap says so"),
        (r"left behind: child process \d+: cat$", "a child process is named"),
        ("left behind: thread idler", "a thread is named"),
        ("ResourceWarning: unclosed <socket", "an unclosed socket is an error"),
        (r"^4 failed, 4 passed, 2 errors", "and the clean ones pass"),
    ],
)
def test_a_broken_rule_is_seen(outcome: str, line: str, why: str) -> None:
    assert re.search(line, outcome, re.MULTILINE), f"{why}; the run said:\n{outcome}"
