"""A rule of the protocol as a value: a function that plays one scene, and what it may raise.

A rule's name comes from its function (`framing_byte_by_byte` is `framing.byte-by-byte`), its
sentence from the first line of the docstring. It returns where the implementation keeps it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from tools.conformance._world import World

__all__ = ["RULES", "BrokenRuleError", "NotSupportedError", "Rule", "must", "rule"]

Scene = Callable[[World], Awaitable[None]]

DEFAULT_LIMIT_S: Final = 10.0


class BrokenRuleError(Exception):
    """The implementation does something else; the text says what."""


class NotSupportedError(Exception):
    """The implementation shows that it does not know this extension; the text says how."""


@attrs.frozen
class Rule:
    """A rule and its scene.

    Attributes:
        name: `group.what`.
        text: what holds, in a sentence.
        scene: plays it.
        base: it is of the published protocol.
        limit_s: time for the scene.
        is_slow: the scene waits for tens of seconds, as the rule is about such a time.
        is_last: it runs by itself, when all others are over.
        is_fatal: the implementation is gone after it; it is played only where that is asked for.
    """

    name: str
    text: str
    scene: Scene
    base: bool = False
    limit_s: float = DEFAULT_LIMIT_S
    is_slow: bool = False
    is_last: bool = False
    is_fatal: bool = False


RULES: Final[list[Rule]] = []
"""All rules, in the order of their definition."""


def rule(
    *,
    base: bool = False,
    limit_s: float = DEFAULT_LIMIT_S,
    is_slow: bool = False,
    is_last: bool = False,
    is_fatal: bool = False,
) -> Callable[[Scene], Scene]:
    """Make a rule of the scene below."""

    def register(scene: Scene) -> Scene:
        group, _, what = scene.__name__.partition("_")
        text = (scene.__doc__ or "").partition("\n")[0].rstrip(".")
        name = f"{group}.{what.replace('_', '-')}"
        RULES.append(Rule(name, text, scene, base, limit_s, is_slow, is_last, is_fatal))
        return scene

    return register


def must(holds: object, words: str) -> None:
    """Go on where `holds`.

    Raises:
        BrokenRuleError: it does not; `words` say what is the case instead.
    """
    if not holds:
        raise BrokenRuleError(words)
