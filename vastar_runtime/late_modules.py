"""Modules that the daemon's libraries import and mostly never use: loaded when something asks.

A daemon of plain HTTP needs no TLS, and none needs asyncio, which structlog imports for a class
that nobody here makes. With the parser of URLs, which the first call loads, and some smaller ones
they are 9 of 39 MB, and 10 ms of the start.

Shape: while the command line and the daemon are imported, stand-ins in `sys.modules` take these
names. Whoever says `import ssl` meanwhile keeps one; the first attribute that is asked of it
imports the real module, once, and is its attribute. Afterwards the names are free again, so that
whatever is imported later gets the real ones. Nothing else has to know: `import ssl` stays `import
ssl`, for the type checker too. Only a module that asks for attributes while it is imported (`from
ssl import SSLContext`, a table of its constants, an annotation without quotes) undoes it: a test
watches that.

What a late import costs is paid by the first TLS connection of the process: 5 ms beside the 21 ms
of its trust store. That it can succeed is made sure of before: a module that is not there, or a
Python built without TLS, is found at the start and not in a call.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

__all__ = ["LATE_MODULES", "late_modules"]

LATE_MODULES: Final = (
    "ada_url",  # for the first URL; 2 MB of tables
    "asyncio",
    "bz2",  # of shutil, as lzma
    "difflib",  # of our own words about misspelt settings
    "hashlib",  # loads OpenSSL, as ssl does
    "hmac",  # of Trio's DTLS; the same
    "idna",  # for host names beyond ASCII
    "ipaddress",  # for addresses that somebody configured
    "lzma",
    "ssl",
    "tempfile",  # of a search that ctypes does not make here
    "unicodedata",  # of idna
)
_BUILT_IN_PARTS: Final = {"ssl": "_ssl"}
"""Extension modules that a Python may have been built without."""


class _StandIn(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system itself
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


@contextmanager
def late_modules(names: Sequence[str] = LATE_MODULES) -> Iterator[None]:
    """Have the modules `names`, where they are not loaded yet, stand in for what is imported here.

    Raises:
        ImportError: one of them could not be imported later.
    """
    stand_ins: dict[str, ModuleType] = {}
    for name in names:
        if name in sys.modules:
            continue
        for needed in filter(None, (name, _BUILT_IN_PARTS.get(name))):
            if find_spec(needed) is None:
                raise ImportError(f"this Python has no module {needed}", name=needed)
        stand_ins[name] = _StandIn(name)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
