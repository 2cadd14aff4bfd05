"""Play the rules against an implementation, several at once, and say what came of each."""

import fnmatch
import json
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

import attrs
import trio

from tools.conformance import _base, _calls, _extensions, _streams
from tools.conformance._golden import golden_rules
from tools.conformance._rules import RULES, BrokenRuleError, NotSupportedError, Rule
from tools.conformance._world import World

__all__ = ["Result", "Verdict", "as_json", "chosen_rules", "play_all", "table"]

_SIDE_BY_SIDE: Final = 8
_DEFINE_RULES: Final = (_base, _calls, _extensions, _streams)


class Verdict(Enum):
    """What came of a rule."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    NOT_SUPPORTED = "NOT SUPPORTED"


@attrs.frozen
class Result:
    """A rule, and what came of it; `reason` says why it is no PASS."""

    rule: Rule
    verdict: Verdict
    reason: str = ""


def chosen_rules(
    *,
    base_only: bool = False,
    quick: bool = False,
    fatal: bool = False,
    patterns: Sequence[str] = (),
) -> list[Rule]:
    """The rules, golden scenarios first.

    Args:
        base_only: those of the published protocol alone.
        quick: without those that wait for tens of seconds.
        fatal: also those that end the implementation; they come last.
        patterns: of names, as in file names; none: all.
    """
    return [
        rule
        for rule in (*golden_rules(), *RULES)
        if (rule.base or not base_only)
        and not (quick and rule.is_slow)
        and (fatal or not rule.is_fatal)
        and (not patterns or any(fnmatch.fnmatch(rule.name, one) for one in patterns))
    ]


async def play_all(
    rules: Sequence[Rule], world: World, told: Callable[[Result], None] | None = None
) -> list[Result]:
    """Play them all; the results in the order of `rules`.

    Args:
        rules: what to play.
        world: against whom.
        told: called with each result as it is there.
    """
    results: dict[str, Result] = {}
    room = trio.CapacityLimiter(_SIDE_BY_SIDE)

    async def play(rule: Rule) -> None:
        async with room:
            results[rule.name] = result = await _played(rule, world)
        if told is not None:
            told(result)

    async with trio.open_nursery() as nursery:
        # The slow ones only wait: they begin first.
        for rule in sorted(rules, key=lambda rule: not rule.is_slow):
            if not rule.is_last:
                nursery.start_soon(play, rule)
    for rule in sorted(rules, key=lambda rule: rule.is_fatal):
        if rule.is_last:
            await play(rule)
    return [results[rule.name] for rule in rules]


async def _played(rule: Rule, world: World) -> Result:
    try:
        with trio.fail_after(rule.limit_s):
            await rule.scene(world)
    except NotSupportedError as error:
        return Result(rule, Verdict.NOT_SUPPORTED, str(error))
    except BrokenRuleError as error:
        return Result(rule, Verdict.FAIL, str(error))
    except trio.TooSlowError:
        return Result(rule, Verdict.FAIL, f"not what was due within {rule.limit_s:g} s")
    except OSError as error:
        return Result(rule, Verdict.FAIL, f"cannot connect: {error}")
    return Result(rule, Verdict.PASS)


def table(results: Sequence[Result]) -> str:
    """The results for people: a line each, a reason where there is one, and the sum."""
    width = max((len(result.rule.name) for result in results), default=0)
    lines = []
    for result in results:
        lines.append(f"{result.verdict.value:13}  {result.rule.name:{width}}  {result.rule.text}")
        if result.reason:
            lines.append(f"{'':13}  {'':{width}}  - {result.reason}")
    counts = [
        f"{sum(result.verdict is verdict for result in results)} {verdict.value}"
        for verdict in Verdict
    ]
    return "\n".join([*lines, f"{len(results)} rules: {', '.join(counts)}"])


def as_json(results: Sequence[Result]) -> str:
    """The same for programs: a list of objects."""
    return json.dumps(
        [
            {
                "rule": result.rule.name,
                "text": result.rule.text,
                "base": result.rule.base,
                "verdict": result.verdict.value,
                "reason": result.reason,
            }
            for result in results
        ],
        indent=1,
    )
