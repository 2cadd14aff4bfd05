"""Label values that are fit to print, whatever they were: short, in one line, and still distinct.

Tenants and origins are chosen by callers. Two of them must never become one series, for a scraper
refuses a text that has a series twice: so a value that has to be cut or cleaned ends in a hash of
the whole.
"""

import hashlib
from typing import Final

__all__ = ["MAX_LABEL_CHARS", "OTHER", "fit"]

MAX_LABEL_CHARS: Final = 120
"""A host name of usual length with scheme and port; a name of DNS may have 253."""
OTHER: Final = "other"
"""What is counted under no name of its own."""

_HASH_BYTES: Final = 5


def fit(value: str) -> str:
    """`value` itself where it is short and printable, else a shorter one that stands for it."""
    if len(value) <= MAX_LABEL_CHARS and value.isprintable():
        return value
    whole = value.encode("utf-8", "surrogatepass")
    mark = hashlib.blake2s(whole, digest_size=_HASH_BYTES).hexdigest()
    kept = value[: MAX_LABEL_CHARS - len(mark) - 1]
    return f"{''.join(char if char.isprintable() else '?' for char in kept)}~{mark}"
