"""The conformance kit: ours passes every rule, and a runtime that lies is found out."""

import json
import subprocess
import sys
from collections.abc import Iterable

import pytest
import trio

from tests.support import leaks
from tests.support.commands import ROOT, environment, serving
from tests.support.conforming import Frame, Lie, conforming
from tools.conformance import Verdict, chosen_rules, play_all, table
from tools.conformance._cli import main
from vastar_client.wire import ErrorClass, ExecuteResponse, HealthResponse, MessageType
from vastar_client.wire.codec import decode_message, encode_message
from vastar_client.wire.framing import frame_header

RULES = chosen_rules()
BASE = chosen_rules(base_only=True)
SCENARIOS = 34


async def test_ours_keeps_every_rule(autojump_clock):
    async with conforming() as (world, _):
        results = await play_all(RULES, world)
    assert [r for r in results if r.verdict is not Verdict.PASS] == [], table(results)
    assert [r.rule for r in results] == RULES


def test_every_rule_has_a_name_of_its_own_and_a_sentence():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule.text and len(rule.text) < 100 for rule in RULES)
    assert len([name for name in names if name.startswith("golden.")]) == SCENARIOS
    assert {rule.name for rule in BASE} < set(names)
    assert len(chosen_rules(quick=True)) == len(RULES) - 2
    assert [rule.name for rule in chosen_rules(patterns=["ids.*", "cancel.of-a-call"])] == [
        "ids.echoed",
        "ids.of-failures",
        "ids.twice",
        "cancel.of-a-call",
    ]


# --- lies ---------------------------------------------------------------------------------------


def framed(message_type: int, data: bytes) -> bytes:
    return frame_header(message_type, len(data)) + data


def plainly(frame: Frame) -> bytes:
    return framed(*frame)


def changed(kind: MessageType, change: object) -> Lie:
    """Messages of that type with fields changed by a function from message to fields."""

    def lie(frame: Frame) -> Iterable[bytes]:
        if frame[0] != kind:
            return [plainly(frame)]
        message = decode_message(kind, frame[1])
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        fields.update(change(message))  # type: ignore[operator]
        return [framed(kind, b"".join(map(bytes, encode_message(type(message)(**fields)))))]

    return lie


def doubled(kind: MessageType) -> Lie:
    return lambda frame: [plainly(frame)] * (2 if frame[0] == kind else 1)


def lost(kind: MessageType) -> Lie:
    return lambda frame: [] if frame[0] == kind else [plainly(frame)]


def hasty(frame: Frame) -> Iterable[bytes | None]:
    """Closes behind every refusal."""
    out: list[bytes | None] = [plainly(frame)]
    if frame[0] == 1:
        answer = decode_message(MessageType.EXECUTE_RESPONSE, frame[1])
        assert isinstance(answer, ExecuteResponse)
        if answer.error_class is ErrorClass.INVALID_REQUEST:
            out.append(None)
    return out


def chatty(frame: Frame) -> Iterable[bytes]:
    """A health frame behind every answer, asked for or not."""
    return [plainly(frame), framed(MessageType.HEALTH_RESPONSE, encoded_health())]


def encoded_health() -> bytes:
    return b"".join(map(bytes, encode_message(HealthResponse(healthy=True))))


RESPONSE, CHUNK, END = (
    MessageType.EXECUTE_RESPONSE,
    MessageType.STREAM_CHUNK,
    MessageType.STREAM_END,
)

LIES = {
    "ids are cut to 53 bits": (
        changed(RESPONSE, lambda m: {"request_id": m.request_id % 2**53}),
        {"ids.echoed", "ids.of-failures"},
    ),
    "answers come twice": (doubled(RESPONSE), {"answers.unasked", "ids.twice"}),
    "everything is Transient": (
        changed(RESPONSE, lambda m: {"error_class": ErrorClass.TRANSIENT} if m.error_class else {}),
        {"errors.opening-words", "framing.bad-table", "time.deadline", "cancel.of-a-call"},
    ),
    "errors have no words": (
        changed(RESPONSE, lambda _: {"error_message": None}),
        {"errors.opening-words", "errors.refused-connection"},
    ),
    "a success is empty": (changed(RESPONSE, lambda _: {"payload": None}), {"framing.whole"}),
    "a refusal closes": (hasty, {"framing.bad-table", "types.unknown", "errors.opening-words"}),
    "health is told unasked": (chatty, {"answers.unasked", "ids.echoed"}),
    "nothing says where a call got to": (
        changed(RESPONSE, lambda _: {"disposition": 0}),
        {"errors.disposition", "time.past-deadline"},
    ),
    "chunks are counted from 1": (
        changed(CHUNK, lambda m: {"sequence": m.sequence + 1}),
        {"streams.order", "streams.window"},
    ),
    "chunks are lost": (lost(CHUNK), {"streams.order", "streams.window"}),
    "a stream ends twice": (doubled(END), {"streams.order", "cancel.of-a-stream"}),
    "a stream does not end": (lost(END), {"streams.order", "streams.failure"}),
    "the length of a stream is a guess": (
        changed(END, lambda m: {"total_bytes": m.total_bytes + 1}),
        {"streams.order", "streams.statuses"},
    ),
    "no keepalive": (lost(MessageType.KEEP_ALIVE), {"streams.keepalive"}),
    "no credit for uploads": (lost(MessageType.CREDIT_UPDATE), {"uploads.in-pieces"}),
    "surplus calls are not told when": (
        changed(RESPONSE, lambda _: {"retry_after_ms": 0}),
        {"calls.surplus"},
    ),
    "health is never told": (lost(MessageType.HEALTH_RESPONSE), {"health.answered"}),
    "health is bad": (
        changed(MessageType.HEALTH_RESPONSE, lambda _: {"healthy": False}),
        {"health.answered"},
    ),
    "calls never end": (
        changed(MessageType.HEALTH_RESPONSE, lambda _: {"active_requests": 1}),
        {"health.at-rest"},
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_found_out(name, autojump_clock):
    lie, least = LIES[name]
    rules = [rule for rule in RULES if rule.name in least]
    assert len(rules) == len(least)
    async with conforming(lie) as (world, _):
        results = await play_all(rules, world)
    assert {r.rule.name for r in results if r.verdict is Verdict.FAIL} == least, table(results)
    assert all(result.reason for result in results)


async def test_who_knows_the_published_protocol_alone_is_not_blamed(autojump_clock):
    """Extensions are NOT SUPPORTED where they are refused as the published runtime does it."""
    refusal = ExecuteResponse(
        0, ErrorClass.INVALID_REQUEST, "Invalid FlatBuffers message: no such type"
    )

    def published(frame: Frame) -> Iterable[bytes]:
        if frame[0] == 1:
            return [plainly(frame)]
        return [framed(RESPONSE, b"".join(map(bytes, encode_message(refusal))))]

    async with conforming(published) as (world, _):
        results = await play_all([*BASE, *chosen_rules(patterns=["health.*"])], world)
    verdicts = {result.rule.name: result.verdict for result in results}
    assert {verdicts[rule.name] for rule in BASE} == {Verdict.PASS}
    assert verdicts["health.answered"] is Verdict.NOT_SUPPORTED
    assert "1 PASS" not in table(results)


# --- as a program -------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.conformance", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_runtime_over_its_socket_keeps_the_published_protocol(tmp_path):
    path = str(tmp_path / "runtime.sock")
    with serving("--socket", path) as process, leaks.keep(process.pid):
        done = run("--socket", path, "--base")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{len(BASE)} rules: {len(BASE)} PASS, 0 FAIL, 0 NOT SUPPORTED\n")


@pytest.mark.slow
@pytest.mark.cap_s(120)
def test_a_runtime_over_tcp_keeps_every_rule(tmp_path):
    with serving("--socket", str(tmp_path / "x.sock"), "--tcp", "127.0.0.1:0") as process:
        address = process.ready.split("127.0.0.1:")[1].split()[0].rstrip(",;)")  # type: ignore[attr-defined]
        done = run("--tcp", f"127.0.0.1:{address}", "--json")
    results = json.loads(done.stdout)
    assert [r for r in results if r["verdict"] != "PASS"] == []
    assert len(results) == len(RULES)
    assert done.returncode == 0


def test_a_runtime_that_is_asked_to_leave_keeps_the_rules_of_leaving(tmp_path):
    assert "control.drain" not in {rule.name for rule in RULES}
    path = str(tmp_path / "runtime.sock")
    with serving("--socket", path, "--drain-s", "60"):
        done = run("--socket", path, "--rule", "control.*", "--drain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS           control.drain" in done.stdout
    assert done.stdout.endswith("3 rules: 3 PASS, 0 FAIL, 0 NOT SUPPORTED\n")


def test_the_exit_code_says_that_a_rule_is_broken(tmp_path, capsys, monkeypatch):
    """Somebody who closes every connection at once."""
    path = str(tmp_path / "closes.sock")

    async def scene() -> int:
        with trio.socket.socket(trio.socket.AF_UNIX) as listening:
            await listening.bind(path)
            listening.listen()
            listener = trio.SocketListener(listening)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, trio.aclose_forcefully, [listener])
                arguments = ["--socket", path, "--rule", "ids.*", "--rule", "framing.zero-length"]
                code = await trio.to_thread.run_sync(main, arguments)
                nursery.cancel_scope.cancel()
        return code

    assert trio.run(scene) == 1
    said = capsys.readouterr().out
    assert "FAIL           ids.echoed" in said
    assert "the end where an ExecuteResponse was due" in said
    assert said.endswith("4 rules: 1 PASS, 3 FAIL, 0 NOT SUPPORTED\n")


def test_what_is_refused(capsys):
    assert main(["--list"]) == 0
    assert "base  golden.python.get " in capsys.readouterr().out
    assert main(["--socket", "/no/such/folder/x.sock"]) == 3
    assert "/no/such/folder/x.sock: " in capsys.readouterr().err
    for wrong in ([], ["--socket", "x", "--tcp", "y:1"], ["--tcp", "y"], ["--rule", "nonsense"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
