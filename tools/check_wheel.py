"""Build the wheel and hold it to what a user gets: it installs alone, starts, answers, and stops.

    python -m tools.check_wheel      (`python3 tools/dev.py wheel`)

The wheel stays in `dist/`, in place of older ones. What must be inside is computed from the tree,
what may be beside it is said here; then it is installed into an empty environment, with nothing but
its own dependencies, and `vastar start`, `status`, `call`, `stop` are run from a directory where no
clone can help. Standard library only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from configparser import ConfigParser
from pathlib import Path

__all__ = ["build", "faults_of_names", "faults_of_wheel", "main", "try_out"]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vastar_client", "vastar_runtime")
NOT_CODE = (
    "vastar_client/CONNECTOR_DEVELOPER_GUIDE.md",
    "vastar_client/py.typed",
    "vastar_runtime/OPERATING.md",
    "vastar_runtime/WRITING_PLUGINS.md",
    "vastar_runtime/packaging/Containerfile",
    "vastar_runtime/packaging/runtime.toml",
    "vastar_runtime/packaging/vastar.service",
    "vastar_runtime/py.typed",
)
ABOUT = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
CONSOLE_SCRIPT = "vastar_runtime.cli:main"
STEP_TIMEOUT_S = 300


def build(root: Path, into: Path) -> Path:
    """Build the wheel of the tree at `root` into the directory `into`; its path.

    Raises:
        SystemExit: it could not be built; pip has said why.
    """
    into.mkdir(exist_ok=True)
    for old in into.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--no-deps", "-w", str(into), str(root)], check=False).returncode:
        raise SystemExit("the wheel could not be built; pip's own words are above")
    (wheel,) = into.glob("*.whl")
    return wheel


def expected_names(root: Path) -> set[str]:
    """What of the tree belongs into a wheel."""
    code = {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    return code | set(NOT_CODE)


def faults_of_names(names: Iterable[str], expected: set[str]) -> list[str]:
    """What is in a wheel and should not be, and the reverse."""
    inside = set(names)
    about = {name for name in inside if name.partition("/")[0].endswith(".dist-info")}
    told = {name.partition("/")[2] for name in about}
    return [
        *(f"missing: {name}" for name in sorted(expected - inside)),
        *(f"does not belong there: {name}" for name in sorted(inside - about - expected)),
        *(f"missing: .dist-info/{name}" for name in sorted(set(ABOUT) - told)),
        *(f"does not belong there: .dist-info/{name}" for name in sorted(told - set(ABOUT))),
    ]


def faults_of_wheel(wheel: Path, root: Path) -> list[str]:
    """The same of a file, and whether it brings the command `vastar`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        faults = faults_of_names(names, expected_names(root))
        scripts = ConfigParser()
        for name in names:
            if name.endswith(".dist-info/entry_points.txt"):
                scripts.read_string(archive.read(name).decode())
    if scripts.get("console_scripts", "vastar", fallback="") != CONSOLE_SCRIPT:
        faults.append(f"no command vastar = {CONSOLE_SCRIPT}")
    return faults


def try_out(wheel: Path, folder: Path) -> list[str]:
    """Install `wheel` into an empty environment below `folder` and use it; what went wrong."""
    environment = folder / "environment"
    binaries = environment / "bin"
    variables = _variables(binaries)
    vastar = [str(binaries / "vastar")]
    socket_path = str(folder / "r.sock")
    where = ["--socket", socket_path]
    pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check"]
    steps: dict[str, Sequence[str]] = {
        "make an empty environment": [sys.executable, "-m", "venv", str(environment)],
        "install the wheel": [*pip, "install", "-q", str(wheel)],
        "its dependencies agree": [*pip, "check"],
        "vastar start": [*vastar, "start", *where, "--log-file", str(folder / "log")],
        "vastar status": [*vastar, "status", *where, "--verbose"],
        "vastar status --metrics": [*vastar, "status", *where, "--metrics"],
        "the client": [str(binaries / "python"), "-c", _CLIENT_CALLS, socket_path],
        "vastar stop": [*vastar, "stop", *where],
    }
    try:
        for title, command in steps.items():
            fault = _step(title, command, folder, variables)
            if fault:
                return [fault]
    finally:
        if Path(socket_path).exists():
            _step("vastar stop --now", [*vastar, "stop", "--now", *where], folder, variables)
    return []


_CLIENT_CALLS = """
import sys
from vastar_client import ConnectorException, RuntimeClient, RuntimeConfig
with RuntimeClient(RuntimeConfig(socket_path=sys.argv[1])) as client:
    try:
        client.get("http://127.0.0.1:1/", timeout_s=5)
    except ConnectorException as error:
        assert "connect" in str(error), error
    else:
        raise SystemExit("nobody listens there, and yet there was an answer")
"""


def _variables(binaries: Path) -> dict[str, str]:
    """The environment of somebody who knows nothing of this clone, but how to reach an index."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VASTAR_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, "PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}"}


def _step(title: str, command: Sequence[str], folder: Path, variables: dict[str, str]) -> str:
    """Run one; what went wrong, or nothing."""
    print(f"  {title}", flush=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{title}: {error}"
    if done.returncode:
        return f"{title}: status {done.returncode}\n{done.stdout}{done.stderr}".rstrip()
    return ""


def main() -> int:
    """Build, look inside, try out; 0 when all of it went well."""
    wheel = build(ROOT, ROOT / "dist")
    faults = faults_of_wheel(wheel, ROOT)
    folder = Path(tempfile.mkdtemp(prefix="vastar-wheel-"))
    try:
        faults += try_out(wheel, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for fault in faults:
        print(f"{wheel.name}: {fault}", file=sys.stderr)
    if not faults:
        print(f"{wheel.name}: {wheel.stat().st_size / 1000:,.0f} kB, installs alone, and works")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
