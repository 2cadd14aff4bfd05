"""`fbs/README.md` says what the code does: types, limits, classes, words, the conformance kit."""

import re
from unittest.mock import Mock

from tests.support.commands import ROOT
from tools.conformance import chosen_rules
from vastar_client.wire import ErrorClass, MessageType
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
    KEEP_ALIVE_INTERVAL_S,
    MAX_ANSWER_FRAME_BYTES,
    MAX_HEADER_PAIRS,
    MAX_IN_FLIGHT_REQUESTS,
    UNFINISHED_FRAME_TIMEOUT_S,
)
from vastar_runtime.connectors.control import ControlConnector
from vastar_runtime.connectors.sql import DATABASE_NAMES
from vastar_runtime.connectors.sql.jobs import OPERATIONS
from vastar_runtime.runtime_state import RuntimeState

TEXT = (ROOT / "fbs" / "README.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())


def test_every_message_type_and_error_class_has_its_row():
    types = [
        int(number) for number in re.findall(r"^\| (\d+) \| .* 1\.[01] \|$", TEXT, re.MULTILINE)
    ]
    assert types == sorted(MessageType)
    classes = re.findall(r"^\| (\d) ([A-Z]\w+) \|", TEXT, re.MULTILINE)
    named = [(str(int(one)), one.name.title().replace("_", "")) for one in ErrorClass]
    assert classes == named


def test_the_numbers_are_those_of_the_code():
    for number in (
        MAX_ANSWER_FRAME_BYTES,
        MAX_HEADER_PAIRS,
        MAX_IN_FLIGHT_REQUESTS,
        INITIAL_STREAM_WINDOW_BYTES,
        INITIAL_CONNECTION_WINDOW_BYTES,
    ):
        assert f"{number:,}" in FLAT
    assert f"nothing for {UNFINISHED_FRAME_TIMEOUT_S:g} s" in FLAT
    assert f"after {KEEP_ALIVE_INTERVAL_S:g} s without a frame" in FLAT
    assert f"frame limit of {MAX_ANSWER_FRAME_BYTES} bytes" in FLAT


def test_the_operations_of_the_control_connector_are_all_written_up():
    operations = ControlConnector(RuntimeState(0.0), Mock())._operations
    section = TEXT.split("### The runtime about itself")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(operations)
    row = next(line for line in TEXT.splitlines() if line.startswith("| `vastar` |"))
    assert all(f"`{operation}`" in row for operation in operations)


def test_the_operations_of_databases_are_all_written_up():
    section = TEXT.split("### A database call")[1].split("\n### ")[0]
    assert all(f"`{operation}`" in section for operation in OPERATIONS)
    assert all(f"`{name}`" in FLAT for name in DATABASE_NAMES)


def test_the_opening_words_are_those_that_the_rules_ask_for():
    rules = (ROOT / "tools" / "conformance" / "_base.py").read_text(encoding="utf-8")
    for words in ("Missing required field: url", "Invalid HTTP params: ", "Unknown connector: "):
        assert words in FLAT
        assert words in rules
    assert chosen_rules(base_only=True)
