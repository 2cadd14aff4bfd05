"""Scripts depend on the numbers, people on the words."""

from vastar_runtime.cli.exit_codes import EXPLAINED, ExitCode


def test_the_numbers_never_change() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "ERROR": 1,
        "USAGE": 2,
        "NOT_RUNNING": 3,
        "ALREADY_RUNNING": 4,
        "TIMED_OUT": 5,
        "FORCED": 6,
        "TRANSIENT": 7,
        "PERMANENT": 8,
        "RATE_LIMITED": 9,
        "INVALID_REQUEST": 10,
        "HTTP_ERROR": 11,
        "INTERRUPTED": 130,
    }


def test_each_is_explained() -> None:
    assert set(EXPLAINED) == set(ExitCode)
