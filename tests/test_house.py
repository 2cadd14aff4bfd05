"""The rules of the house, held over the whole tree."""

import subprocess
import sys

import pytest

CLIENT_MUST_NOT_LOAD = ("vastar_runtime", "httpcore", "structlog", "httptools", "numpy")


@pytest.mark.parametrize("module", ["vastar_client", "vastar_client.wire"])
def test_the_client_loads_nothing_of_the_runtime(module: str) -> None:
    """In a fresh interpreter, so that what other tests loaded does not count."""
    source = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not loaded & set(CLIENT_MUST_NOT_LOAD)
