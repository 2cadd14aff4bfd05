"""The command line: `python -m vastar_runtime` or `vastar`."""

from vastar_runtime.cli._main import main

__all__ = ["main"]
