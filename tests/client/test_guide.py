"""The guide for connector authors: its code runs, its commands exist, its numbers are right."""

import re
from pathlib import Path

import pytest

import vastar_client
from tests.support.example_world import POLICIES, example_world
from tests.support.snippets import Snippet, fences, missing_messages, run, sequences
from tools.llm_simulator import _cli as simulator_cli
from vastar_client import Disposition, ErrorClass, Reconnect, _streams
from vastar_client._decoding import MAX_LINE_CHARACTERS
from vastar_client._stream_answer import MAX_ERROR_BODY_BYTES, MAX_READ_BYTES
from vastar_client.wire import limits, windows
from vastar_runtime.cli._main import _parser
from vastar_runtime.config import load_config
from vastar_runtime.dispatch import ERROR_CLASSES
from vastar_runtime.outcomes import FailureKind
from vastar_runtime.pipeline.hops import REFUSAL_KINDS
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.verdicts import Scope

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "vastar_client" / "CONNECTOR_DEVELOPER_GUIDE.md"
PAGE = GUIDE.read_text(encoding="utf-8")
SEQUENCES = sequences(GUIDE)


@pytest.fixture(scope="module")
def runtime_socket(tmp_path_factory):
    with example_world(tmp_path_factory.mktemp("world")) as path:
        yield path


@pytest.mark.parametrize("snippets", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_code(snippets: list[Snippet], runtime_socket, tmp_path, monkeypatch):
    """Each block alone, or after those of its sequence: it prints what is shown."""
    for name in ("VASTAR_USE_TCP", "VASTAR_TCP_HOST", "VASTAR_TCP_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VASTAR_SOCKET_PATH", str(runtime_socket))
    monkeypatch.chdir(tmp_path)
    run(snippets)


def test_every_block_has_a_language_that_is_looked_at():
    assert {f.language for f in fences(GUIDE)} <= {"python", "text", "sh", "toml", "ini"}


@pytest.mark.parametrize(
    "fence", [f for f in fences(GUIDE) if f.language == "toml"], ids=lambda f: f"line {f.line}"
)
def test_configuration_files_are_accepted(fence, tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text(fence.text)
    assert load_config(file=str(file), environ={}).sources


SHELL = [
    line.partition(" #")[0].strip()
    for fence in fences(GUIDE)
    if fence.language in {"sh", "ini"}
    for line in fence.text.splitlines()
]


def test_commands_exist():
    """Every option of every command of ours in a shell block or unit is one that it takes."""
    runtime = re.compile(r"(?:^|[=/ ])(?:vastar|python -m vastar_runtime) ((?!_)[a-z-]+ ?.*)$")
    commands = [m[1] for line in SHELL if (m := runtime.search(line))]
    assert len(commands) > 3
    for command in commands:
        _parser().parse_args(command.split())
    simulators = [line for line in SHELL if "tools.llm_simulator" in line]
    assert simulators
    for line in simulators:
        simulator_cli._parser().parse_args(line.partition("tools.llm_simulator")[2].split())


@pytest.mark.parametrize("name", vastar_client.__all__)
def test_every_public_name_is_explained(name):
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE), f"{name} is nowhere in the guide"


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = PAGE.split(f"# {heading}\n")[1].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return table[2:]


def test_the_table_of_error_classes_is_whole():
    named = [row[0] for row in rows_of("Error classes")]
    assert named == [one.name for one in ErrorClass if one is not ErrorClass.SUCCESS]


def test_the_table_of_dispositions_is_whole():
    named = [row[0] for row in rows_of("Dispositions")]
    assert sorted(named) == sorted(one.name for one in Disposition)


def test_the_table_of_policies_that_refuse_is_whole():
    """All that refuse a call, each with its class; the quota of retries refuses none."""
    told = {name: row[1] for row in rows_of("Policies that refuse") for name in words(row[0])}
    kinds = {
        **REFUSAL_KINDS,
        "in_flight": FailureKind.OVERLOADED,
        "drain": FailureKind.DRAINING,
        "memory": FailureKind.OVERLOADED,
        "identity": FailureKind.INVALID_REQUEST,
        "plugin": FailureKind.OVERLOADED,
    }
    classes = {policy: ERROR_CLASSES[kind].name for policy, kind in kinds.items()}
    assert told == {**classes, "retry_quota": "as the failure"}
    sources = (ROOT / "vastar_runtime").rglob("*.py")
    written = {n for f in sources for n in re.findall(r'refused_by="(\w+):', f.read_text())}
    assert written - told.keys() == {"control"}, "connector vastar, for its own user alone"


def words(cell: str) -> list[str]:
    return re.findall(r"\w+", cell)


@pytest.mark.parametrize("scope", Scope)
def test_every_scope_is_named(scope):
    assert f"`{scope.value}`" in PAGE.split("## Limits and refusals\n")[1]


def test_what_is_said_of_retries_are_their_defaults():
    said = " ".join(PAGE.split("## Retries\n")[1].split("\n## ")[0].split())
    retry = RetrySettings()
    base_ms, throttled_s = 1000 * retry.backoff.base_s, retry.backoff.throttled_base_s
    for sentence in (
        f"up to {retry.attempts} attempts",
        f"at most {base_ms:g} ms, before the third at most {2 * base_ms:g} ms",
        f"these are {throttled_s:g} s and {2 * throttled_s:g} s",
        f"up to {retry.retry_after_jitter_ratio:.0%} more",
        f"asks for more than {retry.retry_after_max_s:g} s",
    ):
        assert sentence in said, sentence


def test_what_is_said_of_streams_are_their_numbers():
    said = " ".join(PAGE.split("## Streaming\n")[1].split("\n## ")[0].split())
    http, again = load_config(environ={}).config.http, Reconnect()
    for sentence in (
        f"{http.stream_header_timeout_s:g} s to the head (`http.stream_header_timeout_s`)",
        f"{http.stream_idle_timeout_s:g} s between two parts (`http.stream_idle_timeout_s`)",
        f"{http.stream_timeout_s:g} s in all (`http.stream_timeout_s`)",
        f"does not even say for {_streams.SILENCE_S:g} s",
        f"Up to {limits.INITIAL_STREAM_WINDOW_BYTES // 1024} KiB of a stream that you do not read",
        f"({windows.GROWN_STREAM_WINDOW_BYTES // 1024} KiB once you have begun to)",
        f"over {MAX_READ_BYTES:,} bytes is PERMANENT",
        f"over {MAX_LINE_CHARACTERS:,} characters is PERMANENT",
        f"up to {MAX_ERROR_BODY_BYTES // 1024} KiB of the body",
        f"Reconnect(max_attempts={again.max_attempts}, initial_backoff_ms=",
        f"initial_backoff_ms={again.initial_backoff_ms}, max_backoff_ms={again.max_backoff_ms:_})",
        f"after {again.max_attempts} connections in a row without an event",
    ):
        assert sentence in said, sentence


def test_the_limit_that_it_shows_is_the_one_that_its_code_meets():
    assert POLICIES in {fence.text for fence in fences(GUIDE)}


@pytest.mark.parametrize(
    "number",
    [limits.MAX_ANSWER_FRAME_BYTES, limits.MAX_IN_FLIGHT_REQUESTS],
)
def test_limits_are_the_codes(number):
    assert f"{number:,}" in PAGE


def test_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (GUIDE.parent / target).exists(), target


def test_anchors_exist():
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in slugs, anchor


def test_quoted_messages_are_said_somewhere():
    shown = "\n".join(fence.text for fence in fences(GUIDE) if fence.language == "text")
    assert missing_messages(PAGE, shown, ROOT) == []
