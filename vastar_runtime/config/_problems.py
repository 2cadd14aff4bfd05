"""What is wrong with a configuration, as values: all of it at once, never only the first."""

from collections.abc import Iterable

import attrs

__all__ = ["ConfigError", "Problem"]


@attrs.frozen
class Problem:
    """One thing wrong.

    Attributes:
        source: the file, variable or flag that said it.
        key: the dotted path in the configuration; empty when the source as a whole is at fault.
        wrong: what was found, without secrets.
        right: what would be right.
    """

    source: str
    key: str
    wrong: str
    right: str

    def __str__(self) -> str:
        place = f"{self.source}: {self.key}" if self.key else self.source
        return f"{place}: {self.wrong}; {self.right}"


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` lists why, `str` has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
