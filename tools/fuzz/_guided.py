"""One target under atheris, in a process of its own: libFuzzer ends it when it is done.

`python -m tools.fuzz._guided TARGET [libFuzzer's options] [FOLDERS]`; `coverage` starts it. What
the target watches is imported here and nowhere before, so that atheris can add its counters.
"""

import importlib
import sys
from typing import Any

from tools.fuzz.targets import TARGETS

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Fuzz until the options say stop; it ends the process."""
    target = TARGETS[arguments[0]]
    atheris: Any = importlib.import_module("atheris")  # the extra `fuzz`: not everywhere
    with atheris.instrument_imports(include=list(target.watched)):
        check = target.load()

    def one(data: bytes) -> None:
        check(data)

    atheris.Setup([sys.argv[0], *arguments[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
