"""What may be said, and that nothing secret comes back from what may not."""

import pytest

from vastar_runtime.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://x.test", "-H", "s3cret"],
        ["http://x.test", "-H", ": s3cret"],
        ["http://x.test", "-d", "s3cret", "--json", "s3cret"],
        ["http://x.test", "--timeout-s", "0"],
        ["http://x.test", "--timeout-s", "nan"],
    ],
)
def test_wrong_options_are_refused_unquoted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["call", *arguments])
    assert ended.value.code == 2
    assert "s3cret" not in capsys.readouterr().err


def test_help_tells_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["call", "--help"])
    out = capsys.readouterr().out
    assert "11 another one" in out
    assert "--idempotency-key" in out
