"""The passwords of data sources, from the places that the configuration names."""

import time
from collections.abc import Callable, Mapping

from vastar_runtime.config import (
    ConfigError,
    Problem,
    Reference,
    RuntimeConfig,
    all_databases,
    dotted,
    split_references,
)
from vastar_runtime.credentials.secrets import SecretFile, SecretText, UnusableSecret

__all__ = ["database_passwords"]


def database_passwords(
    config: RuntimeConfig, environ: Mapping[str, str]
) -> dict[tuple[str, str], Callable[[], str]]:
    """What gives the password of each source that has one, by tenant and name.

    Each gives what is there when it is called: a file that changes is read again.

    Raises:
        ConfigError: one cannot be read.
    """
    passwords: dict[tuple[str, str], Callable[[], str]] = {}
    problems: list[Problem] = []
    for path, database in all_databases(config):
        if database.password is None:
            continue
        try:
            parts = split_references(database.password)
            files = {
                part.name: SecretFile(part.name)
                for part in parts
                if isinstance(part, Reference) and part.kind == "file"
            }
            text = SecretText(parts, files, environ)
        except UnusableSecret as error:
            key = dotted((*path, "password"))
            problems.append(Problem("configuration", key, error.wrong, error.right))
        else:
            passwords[path[1], path[-1]] = _getter(text)
    if problems:
        raise ConfigError(problems)
    return passwords


def _getter(text: SecretText) -> Callable[[], str]:
    return lambda: text.get(time.monotonic())
