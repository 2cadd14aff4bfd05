"""Plug-ins as packages beside the daemon: the page's template, and all kinds of bad ones.

A package here is what `pip install` leaves behind: modules, and a `.dist-info` directory with
`entry_points.txt`, in a directory on the path of the daemon.
"""

import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.commands import ROOT, end, environment, serving
from tests.support.planted import MARK
from tests.support.snippets import fences
from vastar_client import ConnectorException, Disposition, ErrorClass, RuntimeClient, RuntimeConfig

PAGE = ROOT / "vastar_runtime" / "WRITING_PLUGINS.md"
BAD = """
import sys, threading, time
from vastar_runtime.connectors.interface import PluginAnswer

class Raises:
    def execute(self, call):
        raise RuntimeError(call.payload)

class Exits:
    def execute(self, call):
        sys.exit(3)

class Unmade:
    def __init__(self):
        raise LookupError("no key")

class Garbage:
    def execute(self, call):
        return {"payload": call.payload}

class Blocks:
    def execute(self, call):
        while not call.is_over():
            time.sleep(0.01)
        time.sleep(float(call.payload))
        return PluginAnswer(b"{}")

class Spins:
    def execute(self, call):
        while not call.is_over():
            sum(range(1000))
        return PluginAnswer(b"{}")

class Leaks:
    def execute(self, call):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        return PluginAnswer(b'{"leaked": 1}')

class Coroutine:
    async def execute(self, call):
        return PluginAnswer(b"{}")
"""
NAMES = ("raises", "exits", "unmade", "garbage", "blocks", "spins", "leaks", "coroutine")


def install(directory: Path, name: str, modules: dict[str, str], offered: dict[str, str]) -> None:
    """Leave behind what an installer would."""
    for module, text in modules.items():
        (directory / module).write_text(text)
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{connector} = {place}" for connector, place in offered.items()]
    (info / "entry_points.txt").write_text("\n".join(("[vastar.connectors]", *lines, "")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of packages: the template's, and one with all the bad connectors."""
    site = tmp_path_factory.mktemp("site")
    module, project, test, *_ = fences(PAGE)
    offered = tomllib.loads(project.text)["project"]["entry-points"]["vastar.connectors"]
    install(site, "vastar_shout", {"shout.py": module.text, "test_shout.py": test.text}, offered)
    bad = {name: f"bad:{name.capitalize()}" for name in NAMES}
    modules = {"bad.py": BAD, "unimportable.py": "raise ImportError('no such library')"}
    install(site, "bad", modules, {**bad, "unimportable": "unimportable:X"})
    return site


def test_the_template_passes_the_contract(site):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shout.py"],
        cwd=site,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout


@pytest.fixture(scope="module")
def client(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeClient]:
    """Of one daemon that has loaded all of them."""
    directory = tmp_path_factory.mktemp("plugins")
    load = ", ".join(f'"{name}"' for name in (*NAMES, "shout", "unimportable"))
    file = directory / "vastar.toml"
    file.write_text(f"[plugins]\nload = [{load}]\nthreads = 2\n")
    socket = directory / "runtime.sock"
    arguments = ("--config", str(file), "--socket", str(socket), "--log-format", "json")
    served = serving(*arguments, variables={"PYTHONPATH": f"{ROOT}:{site}"})
    with served as process, leaks.keep(process.pid):
        config = RuntimeConfig(tenant_id="acme", socket_path=str(socket), use_environment=False)
        with RuntimeClient(config) as client:
            yield client
        status, logged = end(process, signal.SIGTERM)
    assert status == 0, logged[-2000:]
    for named in ("unimportable", "unmade", "raises", "exits", "garbage", "blocks"):
        assert f'"plugin":"{named}"' in logged, named


def call(client: RuntimeClient, connector: str, payload: object = b"{}", **more: float):
    return client.execute(connector, "shout", payload, **more)


def is_well(client: RuntimeClient) -> None:
    """A neighbour answers, and soon."""
    assert call(client, "shout", {"text": "hi"}).json() == {"text": "HI"}


def test_the_template_is_called_through_the_socket(client):
    is_well(client)
    with pytest.raises(ConnectorException, match="give an object with a text") as caught:
        call(client, "shout", {"words": "hi"})
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST


@pytest.mark.parametrize(
    ("connector", "words"),
    [
        ("raises", "raised RuntimeError"),
        ("exits", "raised SystemExit"),
        ("garbage", "gave no PluginAnswer"),
        ("unmade", r"cannot be loaded \(LookupError\)"),
        ("unimportable", r"cannot be loaded \(ImportError\)"),
        ("coroutine", "has no plain method"),
    ],
)
def test_what_is_wrong_with_one_is_its_callers_alone(client, connector, words):
    for _ in range(3):
        with pytest.raises(ConnectorException, match=words) as caught:
            call(client, connector, f'{{"key": "{MARK}"}}'.encode())
        assert caught.value.error_class is ErrorClass.PERMANENT
        assert MARK not in str(caught.value)
    is_well(client)


def test_one_that_leaks_threads_is_answered(client):
    for _ in range(20):
        assert call(client, "leaks").json() == {"leaked": 1}
    is_well(client)


def test_one_that_spins_does_not_stop_the_others(client):
    with pytest.raises(ConnectorException) as caught:
        call(client, "spins", timeout_s=0.3)
    assert caught.value.error_class is ErrorClass.TIMEOUT
    is_well(client)


def test_one_that_blocks_runs_out_of_its_own_threads(client):
    for _ in range(2):
        with pytest.raises(ConnectorException) as caught:
            call(client, "blocks", b"20", timeout_s=0.2)
        assert caught.value.error_class is ErrorClass.TIMEOUT
    with pytest.raises(ConnectorException) as caught:
        call(client, "blocks", b"20", timeout_s=0.2)
    assert caught.value.refused_by == "plugin:threads"
    assert caught.value.disposition is Disposition.NOT_SENT
    is_well(client)


def test_one_that_is_not_there_is_told_at_the_start(site, tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text('[plugins]\nload = ["nosuch"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "vastar_runtime", "check-config", "--config", str(file)],
        env=environment(PYTHONPATH=f"{ROOT}:{site}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no installed package offers connector nosuch; offered: blocks, coro" in done.stderr
