"""Which stage of a call a stack belongs to: the one table that has to follow the code.

The innermost frame that a rule knows decides. Frames of Trio, of the interpreter and of libraries
belong to whoever called them, but for making and ending tasks (spawn) and the event loop itself
(scheduler). What no rule knows is "other", and is shown: so a module that was moved is seen as a
row that grows, never lost.
"""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["STAGES", "by_stage", "parse_folded", "stage_of"]

STAGES: Final = (
    "read",
    "frame",
    "decode",
    "dispatch",
    "spawn",
    "policy",
    "connector",
    "pool",
    "send",
    "wait",
    "parse",
    "encode",
    "write",
    "log",
    "metrics",
    "scheduler",
    "other",
)
"""In the order of a call; the last two are nobody's."""

_RULES: Final = (
    ("trio._core._run:Runner.spawn_impl", "spawn"),
    ("trio._core._run:Runner.task_exited", "spawn"),
    ("trio._core._run:Nursery.", "spawn"),
    ("trio._core._run:NurseryManager.", "spawn"),
    ("vastar_client.wire.framing:", "frame"),
    ("vastar_client.wire._reading:", "decode"),
    ("vastar_client.wire._writing:", "encode"),
    ("vastar_client.wire.", "wire"),
    ("vastar_runtime.session", "dispatch"),
    ("vastar_runtime.dispatch:", "dispatch"),
    ("vastar_runtime.calls:", "dispatch"),
    ("vastar_runtime.outcomes:", "dispatch"),
    ("vastar_runtime.runtime_state:", "dispatch"),
    ("vastar_runtime.streams:", "dispatch"),
    ("vastar_runtime.pipeline.line:", "dispatch"),
    ("vastar_runtime.pipeline.", "policy"),
    ("vastar_runtime.policy", "policy"),
    ("vastar_runtime.sharing", "policy"),
    ("vastar_runtime.connectors.", "connector"),
    ("vastar_runtime.transport.channel:", "channel"),
    ("vastar_runtime.transport.tls_channel:", "channel"),
    ("vastar_runtime.transport.parser:", "parse"),
    ("vastar_runtime.transport.response:", "parse"),
    ("vastar_runtime.transport.messages:", "parse"),
    ("vastar_runtime.transport.framing:", "parse"),
    ("vastar_runtime.transport.http1:", "http1"),
    ("vastar_runtime.transport.", "pool"),
    ("vastar_runtime.outbox:", "write"),
    ("vastar_runtime.call_log:", "log"),
    ("vastar_runtime.log", "log"),
    ("vastar_runtime.redaction:", "log"),
    ("structlog.", "log"),
    ("vastar_runtime.metrics", "metrics"),
)
_RECEIVING: Final = ("receive", "pull", "read")


def parse_folded(text: str) -> dict[tuple[str, ...], int]:
    """Stacks, outermost frame first, with their weights."""
    found: dict[tuple[str, ...], int] = {}
    for line in text.splitlines():
        frames, _, weight = line.rpartition(" ")
        found[tuple(frames.split(";"))] = int(weight)
    return found


def by_stage(stacks: Mapping[tuple[str, ...], int]) -> dict[str, float]:
    """The share of each stage in the weight of all stacks."""
    total = sum(stacks.values()) or 1
    found = dict.fromkeys(STAGES, 0.0)
    for frames, weight in stacks.items():
        found[stage_of(frames)] += weight / total
    return found


def stage_of(frames: Sequence[str]) -> str:
    """The stage of one stack."""
    for at in range(len(frames) - 1, -1, -1):
        frame = frames[at]
        stage = next((stage for prefix, stage in _RULES if frame.startswith(prefix)), None)
        if stage == "wire":
            return _of_wire(frames[: at + 1])
        if stage == "channel":
            return _of_channel(frames[: at + 1])
        if stage == "http1":
            return "parse" if any(word in frame for word in _RECEIVING) else "send"
        if stage is not None:
            return stage
    return "scheduler" if "trio._core._run:run" in frames else "other"


def _of_wire(frames: Sequence[str]) -> str:
    """The codec, both ways: the outermost of its functions says which."""
    for frame in frames:
        if frame.startswith("vastar_client.wire."):
            name = frame.rpartition(":")[2].lower()
            is_out = "send" in name or "encode" in name or "write" in name
            return "encode" if is_out else "decode"
    raise AssertionError(frames)


def _of_channel(frames: Sequence[str]) -> str:
    """A socket: towards the caller or the upstream, in or out."""
    is_in = any(word in frames[-1] for word in _RECEIVING)
    for frame in reversed(frames):
        if frame.startswith("vastar_runtime.outbox:"):
            return "write"
        if frame.startswith("vastar_runtime.session"):
            return "read" if is_in else "write"
        if frame.startswith("vastar_runtime.transport.") and ".channel:" not in frame:
            return "wait" if is_in else "send"
    return "read" if is_in else "write"
