"""The generated code is what the schema gives, and the schema keeps its own rules."""

import re
from pathlib import Path

import pytest

from tools import check_generated
from vastar_client.wire import _generated, enums

TEXT = check_generated.SCHEMA.read_text(encoding="utf-8")

PUBLISHED = {  # protocol 1.0, which published SDKs speak: nothing here may ever change
    "KeyValue": ["key: string", "value: string"],
    "ExecuteRequest": [
        "request_id: ulong",
        "tenant_id: string",
        "workspace_id: string",
        "trace_id: string",
        "connector_name: string",
        "operation: string",
        "deadline_at_ms: ulong",
        "payload: [ubyte]",
        "headers: [KeyValue]",
    ],
    "ExecuteResponse": [
        "request_id: ulong",
        "error_class: ErrorClass = Success",
        "error_message: string",
        "payload: [ubyte]",
        "duration_us: ulong",
    ],
    "HealthCheckResponse": [
        "healthy: bool",
        "message: string",
        "active_requests: uint",
        "available_credits: uint",
    ],
    "CreditUpdate": ["credit_delta: int", "total_credits: uint"],
}


def test_the_checked_in_code_is_what_the_schema_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_generated.main([]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("change", [b"x", b"\n", b""])
def test_any_byte_of_difference_is_seen(
    change: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An extra tail and a missing one, too."""
    content = check_generated.GENERATED.read_bytes()
    generated = tmp_path / "_generated.py"
    generated.write_bytes(content + change if change else content[:-1])
    monkeypatch.setattr(check_generated, "GENERATED", generated)
    monkeypatch.setattr(check_generated, "ROOT", tmp_path)
    monkeypatch.setattr(check_generated, "SCHEMA", tmp_path / "vastar_ipc.fbs")
    check_generated.SCHEMA.write_text(TEXT)
    assert check_generated.main([]) == 1
    assert "tools/dev.py generate" in capsys.readouterr().out
    assert check_generated.main(["--write"]) == 0
    assert check_generated.main([]) == 0
    assert generated.read_bytes() == content


def test_a_schema_that_the_compiler_refuses_shows_its_words(tmp_path: Path) -> None:
    schema = tmp_path / "bad.fbs"
    schema.write_text("table T { x: nothing (id: 0); }")
    with pytest.raises(SystemExit, match=r"flatc refused bad\.fbs(.|\n)*nothing"):
        check_generated.generate(schema)


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ("  /// What. Since 1.1.\n  x: int;", "explicit (id: N)"),
        ("  /// What. Since 1.1.\n  x: int (required);", "explicit (id: N)"),
        ("  /// What.\n  x: int (id: 0);", "Since N.N."),
        ("  x: int (id: 0);", "Since N.N."),
        ("  /// What. Since 1.1.\n  x: int (id: 1);", "not 0 to 0 in order"),
    ],
)
def test_a_field_without_its_id_or_its_comment_is_named(field: str, complaint: str) -> None:
    (fault,) = check_generated.schema_faults(f"table T {{\n{field}\n}}\n")
    assert fault.startswith("T: ")
    assert complaint in fault


def test_the_schema_keeps_its_rules() -> None:
    assert check_generated.schema_faults(TEXT) == []


@pytest.mark.parametrize("table", PUBLISHED)
def test_the_published_fields_are_what_they_were(table: str) -> None:
    body = re.search(rf"^table {table} \{{$(.*?)^\}}$", TEXT, re.MULTILINE | re.DOTALL)
    assert body is not None
    fields = re.findall(r"^  (\w+: .*?) \(id: (\d+)[^)]*\);$", body[1], re.MULTILINE)
    published = [(field, str(slot)) for slot, field in enumerate(PUBLISHED[table])]
    assert fields[: len(published)] == published


@pytest.mark.parametrize(
    "name", ["MessageType", "ErrorClass", "Disposition", "PayloadFormat", "ResponseFormat"]
)
def test_the_enumerations_of_the_wire_package_are_the_schema_s(name: str) -> None:
    generated = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", key).upper(): value
        for key, value in vars(getattr(_generated, name)).items()
        if not key.startswith("_")
    }
    assert {member.name: member.value for member in getattr(enums, name)} == generated
