"""What a client does next: kinds of load with their weights, and the calls that are drawn of them.

A call is drawn whole before it begins, as a value, so that the asynchronous and the blocking client
make the same calls in their own ways.
"""

import random
from typing import Any, Final

import attrs

from tools.soak._words import Spec, filling

__all__ = ["Mix", "Planned"]

_SMALL: Final = 200
_LARGE_BYTES: Final = (20_000, 1_500_000)
_UPLOAD_BYTES: Final = (70_000, 600_000)
_PATIENT_S: Final = 10.0
_LEFT_S: Final = 60.0
"""The deadline of what is left: at a quiet point it must not be the deadline that ended it."""
_LONGEST_LEFT_S: Final = 2.0
"""So that a client that is killed always leaves some call hanging, which must end then."""
_TENANTS: Final = ("acme", "globex", "initech")
_WORKSPACES: Final = ("", "test")
_HOSTILE: Final = (
    *("ends-at-once", "ends-before-response", "ends-in-body", "ends-in-chunk", "ends-in-event"),
    *("resets-at-once", "resets-before-response", "resets-in-body", "stops-before-response"),
    *("stops-in-body", "drips-head", "drips-body", "lies-kept-alive-and-closed"),
    *(
        "lies-speaks-unasked",
        "lies-two-answers",
        "status-garbage",
        "header-flood",
        "chunk-negative",
    ),
    *("header-two-lengths", "interim-thousand", "coding-cut", "coding-bad-sum", "body-longer"),
)
"""Of the catalogue of `tools.faults`: at least one of each room, none that costs megabytes."""

_WEIGHTS: Final[dict[str, int]] = {
    "get": 24,
    "get large": 4,
    "post": 14,
    "post large": 4,
    "post keyed": 4,
    "upload": 4,
    "events": 6,
    "events left": 5,
    "bytes": 3,
    "bytes left": 2,
    "left": 4,
    "deadline": 6,
    "shaky get": 3,
    "shaky post": 3,
    "refused": 2,
    "silent": 2,
    "hostile": 4,
    "faulty get": 6,
    "faulty post": 6,
    "faulty events": 2,
    "health": 3,
    "sql": 4,
}
_STREAMED: Final = frozenset({"events", "events left", "bytes", "bytes left", "faulty events"})


@attrs.frozen
class Planned:
    """A call to make.

    Attributes:
        id: of the call; the upstream gets it in the path.
        kind: of the load.
        method, url, body, timeout_s, tenant, workspace, key: of the request.
        is_upload: the body is sent in pieces.
        is_streamed: the answer is read as it comes.
        amount: of what the upstream was asked for.
        leaves_after: seconds, or events or pieces of a stream, after which it is left; None: never.
    """

    id: str
    kind: str
    method: str
    url: str
    timeout_s: float
    tenant: str
    workspace: str
    body: bytes = b""
    key: str | None = None
    is_upload: bool = False
    is_streamed: bool = False
    amount: int = 0
    leaves_after: float | None = None
    is_counted: bool = True

    @property
    def is_once(self) -> bool:
        """Whether the upstream may act on it once at most."""
        return self.method == "POST" and self.key is None


class Mix:
    """Draws calls; the same ones for the same spec.

    Args:
        spec: of the client.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._chance = random.Random(f"{spec.seed}/{spec.name}")  # noqa: S311 - no secret
        self._made = 0
        weights = dict(_WEIGHTS)
        if not spec.has_database:
            del weights["sql"]
        self._kinds, self._weights = list(weights), list(weights.values())

    def pause_s(self) -> float:
        """How long one of the callers waits before its next call."""
        return self._chance.expovariate(self._spec.calls_per_s / self._spec.at_once)

    def next(self) -> Planned:
        """The next call."""
        chance = self._chance
        self._made += 1
        kind = chance.choices(self._kinds, self._weights)[0]
        plain = Planned(
            f"{self._spec.name}-{self._made}",
            kind,
            "GET",
            "",
            _PATIENT_S,
            chance.choice(_TENANTS),
            chance.choice(_WORKSPACES),
        )
        if kind in {"health", "sql"}:
            return attrs.evolve(plain, is_counted=False)
        if kind in {"refused", "silent", "hostile"}:
            return self._elsewhere(plain)
        what, amount, changes = self._details(kind)
        base = self._spec.faulty if kind.startswith("faulty") else self._spec.steady
        made = attrs.evolve(
            plain, url=f"{base}/{what}/{plain.id}/{amount}", amount=amount, **changes
        )
        if kind == "post keyed":
            made = attrs.evolve(made, key=f"key-{made.id}")
        if made.leaves_after is not None:
            made = attrs.evolve(made, timeout_s=_LEFT_S)
        return attrs.evolve(made, is_streamed=kind in _STREAMED)

    def _details(self, kind: str) -> tuple[str, int, dict[str, Any]]:
        """The path's first part, the amount, and what else is not as usual."""
        chance = self._chance
        large = chance.randint(*_LARGE_BYTES)
        small = chance.randint(0, _SMALL)
        posted: dict[str, Any] = {"method": "POST", "body": filling(chance.randint(1, _SMALL))}
        many = chance.randint(5, 60)
        if kind in {"post", "post keyed", "faulty post"}:
            return "ok", small, posted
        if kind == "shaky post":
            return chance.choice(["busy", "broken", "cut"]), small, posted
        of_kind: dict[str, tuple[str, int, dict[str, Any]]] = {
            "get": ("ok", small, {}),
            "faulty get": ("ok", chance.choice([small, large // 10]), {}),
            "get large": ("ok", large, {}),
            "post large": ("ok", small, posted | {"body": filling(large)}),
            "upload": (
                "ok",
                small,
                posted | {"body": filling(chance.randint(*_UPLOAD_BYTES)), "is_upload": True},
            ),
            "events": ("events", many, {}),
            "faulty events": ("events", many, {}),
            "events left": ("events", 2000, {"leaves_after": chance.randint(0, many)}),
            "bytes": ("ok", large, {}),
            "bytes left": ("ok", _LARGE_BYTES[1], {"leaves_after": chance.randint(0, 3)}),
            "left": ("hang", 0, {"leaves_after": chance.uniform(0, _LONGEST_LEFT_S)}),
            "deadline": (
                chance.choice(["hang", "slow"]),
                chance.randint(0, 1000),
                {"timeout_s": 10 ** chance.uniform(-3, 0)},
            ),
            "shaky get": (chance.choice(["busy", "broken", "cut"]), small, {}),
        }
        return of_kind[kind]

    def _elsewhere(self, plain: Planned) -> Planned:
        """A call to an upstream that is of no use."""
        chance, spec = self._chance, self._spec
        method = chance.choice(["GET", "POST"])
        url = f"{spec.refusing}/ok/{plain.id}/0"
        if plain.kind == "silent":
            url = f"{spec.silent}/ok/{plain.id}/0"
        elif plain.kind == "hostile":
            url = f"{spec.hostile}/{chance.choice(_HOSTILE)}"
        timeout_s = chance.uniform(0.05, 0.5)
        return attrs.evolve(plain, method=method, url=url, timeout_s=timeout_s, is_counted=False)
