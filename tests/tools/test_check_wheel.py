"""The wheel holds what users need and nothing else, and works where there is no clone."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tools import check_wheel, dev
from vastar_runtime.config import load_config

PACKAGING = check_wheel.ROOT / "vastar_runtime" / "packaging"
ABOUT = [f"vastar-1.dist-info/{name}" for name in check_wheel.ABOUT]
EXPECTED = {"vastar_client/a.py", "vastar_client/py.typed"}


def wheel_of(path: Path, *names: str, script: str = "vastar_runtime.cli:main") -> Path:
    with zipfile.ZipFile(path / "w.whl", "w") as archive:
        for name in names:
            text = f"[console_scripts]\nvastar = {script}\n" if "entry_points" in name else ""
            archive.writestr(name, text)
    return path / "w.whl"


@pytest.mark.parametrize(
    ("added", "left_out", "faults"),
    [
        ([], [], []),
        (["tests/test_a.py"], [], ["does not belong there: tests/test_a.py"]),
        (["vastar_client/b.so"], [], ["does not belong there: vastar_client/b.so"]),
        ([], ["vastar_client/py.typed"], ["missing: vastar_client/py.typed"]),
        ([], ["vastar-1.dist-info/licenses/LICENSE"], ["missing: .dist-info/licenses/LICENSE"]),
        (["vastar-1.dist-info/x"], [], ["does not belong there: .dist-info/x"]),
    ],
)
def test_what_is_inside_and_what_is_not(
    added: list[str], left_out: list[str], faults: list[str]
) -> None:
    names = [name for name in (*EXPECTED, *ABOUT, *added) if name not in left_out]
    assert check_wheel.faults_of_names(names, EXPECTED) == faults


def test_a_wheel_without_its_command_is_told(tmp_path: Path) -> None:
    names = sorted(check_wheel.expected_names(check_wheel.ROOT))
    good = wheel_of(tmp_path, *names, *ABOUT)
    assert check_wheel.faults_of_wheel(good, check_wheel.ROOT) == []
    bad = wheel_of(tmp_path, *names, *ABOUT, script="elsewhere:main")
    (fault,) = check_wheel.faults_of_wheel(bad, check_wheel.ROOT)
    assert "no command vastar" in fault


def test_what_the_tree_has_belongs_into_the_wheel() -> None:
    expected = check_wheel.expected_names(check_wheel.ROOT)
    assert {"vastar_client/__init__.py", "vastar_runtime/cli/_main.py"} <= expected
    for name in expected:
        assert (check_wheel.ROOT / name).is_file(), name


def test_what_is_no_code_in_the_packages_is_known() -> None:
    """Else it goes into the wheel, and the wheel is refused."""
    made = {"__pycache__", ".mypy_cache", ".ruff_cache"}
    found = {
        path.relative_to(check_wheel.ROOT).as_posix()
        for package in check_wheel.PACKAGES
        for path in (check_wheel.ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".py" and made.isdisjoint(path.parts)
    }
    assert found == set(check_wheel.NOT_CODE)


def test_a_step_tells_what_went_wrong(tmp_path: Path) -> None:
    assert check_wheel._step("fine", ["true"], tmp_path, {}) == ""
    failed = check_wheel._step("bad", ["sh", "-c", "echo why >&2; exit 3"], tmp_path, {})
    assert failed == "bad: status 3\nwhy"
    assert check_wheel._step("absent", [str(tmp_path / "no")], tmp_path, {}).startswith("absent: ")


def test_the_developers_command_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: str) -> int:
        ran.append(command)
        return 0

    monkeypatch.setattr(dev, "run", run)
    monkeypatch.setattr(dev, "ensure_environment", lambda: None)
    assert dev.main(["wheel"]) == 0
    assert ran == [[str(dev.PYTHON), "-m", "tools.check_wheel"]]


@pytest.mark.slow
def test_the_wheel_installs_alone_and_works(tmp_path: Path) -> None:
    wheel = check_wheel.build(check_wheel.ROOT, tmp_path / "dist")
    assert check_wheel.faults_of_wheel(wheel, check_wheel.ROOT) == []
    assert check_wheel.try_out(wheel, tmp_path) == []


# --- what is shipped beside the code --------------------------------------------------------


def test_the_shipped_configuration_is_one() -> None:
    config = load_config(file=str(PACKAGING / "runtime.toml"), environ={}).config
    assert config.server.socket_path == "/run/vastar/runtime.sock"
    assert config.server.socket_group == "vastar-callers"


def test_the_unit_gives_the_drain_its_time() -> None:
    server = load_config(file=str(PACKAGING / "runtime.toml"), environ={}).config.server
    unit = (PACKAGING / "vastar.service").read_text()
    (limit_s,) = (line.partition("=")[2] for line in unit.splitlines() if "TimeoutStopSec" in line)
    assert int(limit_s) > max(server.drain_s, server.stream_drain_s)
    assert f"RuntimeDirectory={Path(server.socket_path).parent.name}\n" in unit


def test_the_unit_leaves_what_a_group_of_the_socket_needs() -> None:
    """The sets are systemd's own (`systemd-analyze syscall-filter`), as far as chown is in them."""
    chown = {"chown", "fchown", "fchownat", "lchown"}
    sets = {"@system-service": chown, "@privileged": chown | {"chroot", "bpf"}, "@chown": chown}
    allowed: set[str] = set()
    for line in (PACKAGING / "vastar.service").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            for item in value.removeprefix("~").split():
                allowed = allowed - sets[item] if value[0] == "~" else allowed | sets[item]
    assert allowed == chown


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "vastar.service"
    text = (PACKAGING / "vastar.service").read_text()
    unit.write_text(text.replace("/opt/vastar/bin/vastar", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:]
