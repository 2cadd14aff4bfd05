"""The command line: `python -m vastar_runtime` or `vastar`."""

from vastar_runtime.late_modules import late_modules

with late_modules():
    import shutil  # noqa: F401 - argparse wants it, and it two compressors

    from vastar_runtime.cli._main import main

__all__ = ["main"]
