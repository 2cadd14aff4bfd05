"""Everything wrong at once, a line each."""

from vastar_runtime.config import ConfigError, Problem


def test_lines() -> None:
    error = ConfigError([Problem("f", "a.b", "w", "r"), Problem("f", "", "w", "r")])
    assert str(error) == "f: a.b: w; r\nf: w; r"
    assert len(error.problems) == 2
