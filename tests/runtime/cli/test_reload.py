"""`reload`, against a runtime in a process of its own."""

import json
from pathlib import Path

from tests.support.commands import serving, vastar
from vastar_runtime.cli import main


def test_it_tells_what_changed_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file, path = tmp_path / "vastar.toml", str(tmp_path / "runtime.sock")
    file.write_text("[defaults.retry]\nattempts = 2\n")
    with serving("--socket", path, "--config", str(file)):
        same = vastar("reload", "--socket", path)
        assert (same.returncode, same.stdout) == (
            0,
            f"reloaded: unix:{path}, nothing had changed\n",
        )
        file.write_text("[defaults.retry]\nattempts = 5\n[http]\ndns_threads = 3\n")
        changed = vastar("reload", "--socket", path)
        assert (changed.returncode, changed.stdout.splitlines()) == (
            0,
            [
                f"reloaded: unix:{path}",
                "  defaults.retry.attempts",
                "changed, but takes effect when the runtime is started anew:",
                "  http.dns_threads",
            ],
        )
        file.write_text("[defaults.retry]\nattempts = -1\nbase_s = 'x'\n")
        refused = vastar("reload", "--socket", path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "the new configuration is refused and the old one holds" in refused.stderr
        for key in ("defaults.retry.attempts", "defaults.retry.base_s"):
            assert key in refused.stderr
        told = json.loads(vastar("status", "--socket", path, "--json").stdout)
        assert told["running"] is True


def test_nobody_there(tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "none.sock")
    assert main(["reload", "--socket", path]) == 3
    told = capsys.readouterr().err
    assert f"no runtime listens on unix:{path}; start one with: vastar start --socket" in told
