"""Hold the repository's shape: sizes, tests beside modules, reasons beside exceptions.

The rules of one person's taste become everybody's by being checked. Only files that git tracks are
looked at (all files, where there is no git). Comments are found by tokenizing, so that a string
that contains the words is no offence. Standard library only, so that it runs before anything is
installed.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["UNTESTED", "faults_of_tree", "main", "tracked_files"]

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "vastar_client/wire/_generated.py"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
MAX_LINT_IGNORES = 20

UNTESTED: dict[str, str] = {
    # module -> why it has no test module of its own. This list may only shrink: an entry whose
    # module is gone or has got its tests is a fault.
    "vastar_client/wire/_reading.py": "half of the codec: test_codec*.py, under the coverage gate",
    "vastar_client/wire/_writing.py": "half of the codec: test_codec*.py, under the coverage gate",
    "vastar_client/wire/enums.py": "numbers only; test_check_generated holds them to the schema",
    "vastar_client/wire/errors.py": "two exception classes; the tests of their raisers use them",
    "vastar_client/wire/limits.py": "numbers only, whose relations are asserted at import",
}

# The brackets keep this file from offending itself.
_LATER = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")
_MACHINE_PATH = re.compile(r"(?<![\w.:/}])/(?:w[o]rk|r[o]ot)/[\w.]")
_REGISTRY = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|proxy\.golang\.org|crates\.io)\b"
)
_NOQA = re.compile(r"#\s*(?:ruff:\s*)?noqa\b(?P<rest>.*)", re.IGNORECASE)
_NOQA_GOOD = re.compile(r":\s*(?P<codes>[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)(?P<reason>\s+\S.{5,})?$")
_TYPE_IGNORE = re.compile(r"#\s*(?:type|mypy|pyright):\s*ignore(?P<rest>.*)")
_TYPE_IGNORE_GOOD = re.compile(r"\[[\w, -]+\](?P<reason>\s+#\s*\S.{5,})?$")


def tracked_files(root: Path) -> list[str]:
    """The paths that git tracks below `root`, with slashes; all files where there is no git."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"],  # noqa: S607 - the developer's own git, wherever it is
            cwd=root,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    names = done.stdout.decode().split("\0")
    return [name for name in names if name and (root / name).is_file()]


def _size_faults(path: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{path}: {lines} lines, at most {MAX_FILE_LINES}: split it by idea"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                text = node.body[0]
                length -= (text.end_lineno or text.lineno) - text.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield (
                    f"{path}:{node.lineno}: {node.name} has {length} lines without its docstring,"
                    f" at most {MAX_FUNCTION_LINES}"
                )


def _comment_faults(path: str, source: str) -> Iterator[str]:
    """Suppressions without a code or a reason.

    A reason holds for the later ones of the same code in the same file. In tests the code is
    enough: they break rules on purpose, and their names say which.
    """
    is_test = path.startswith("tests/")
    explained: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        place = f"{path}:{token.start[0]}"
        noqa = _NOQA.search(token.string)
        if noqa:
            good = _NOQA_GOOD.match(noqa["rest"])
            codes = set(re.findall(r"\b[A-Z]+\d+\b", good["codes"] if good else ""))
            if good and good["reason"]:
                explained |= codes
            elif not codes or not (is_test or codes <= explained):
                yield f"{place}: write `# noqa: CODE - the reason`"
        ignored = _TYPE_IGNORE.search(token.string)
        if ignored:
            good = _TYPE_IGNORE_GOOD.match(ignored["rest"])
            if good is None or not (is_test or good["reason"]):
                yield f"{place}: write `# type: ignore[code]  # the reason`"


def _text_faults(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{path}:{number}"
        if _LATER.search(line):
            yield f"{place}: do it now or describe it where plans are kept"
        if _MACHINE_PATH.search(line):
            yield f"{place}: a path of one machine"
        if _REGISTRY.search(line):
            yield f"{place}: a package registry's host; installers know their own"


def _test_faults(paths: Iterable[str], untested: dict[str, str]) -> Iterator[str]:
    """Each module `vastar_X/room/name.py` has `tests/X/room/test_name.py` or `test_name_*.py`.

    A private module may also be covered by the tests of its package: `tests/X/test_room.py`.
    """
    known = set(paths)
    for path in sorted(known):
        parts = path.split("/")
        name = parts[-1].removesuffix(".py")
        is_module = parts[0] in {"vastar_client", "vastar_runtime"} and path.endswith(".py")
        if not is_module or name.startswith("__") or name == "_version" or path == GENERATED:
            continue
        folders = ["tests", parts[0].removeprefix("vastar_"), *parts[1:-1]]
        wanted = ["/".join([*folders, f"test_{name.removeprefix('_')}"])]
        if name.startswith("_") and len(folders) > len(("tests", "client")):
            wanted.append("/".join([*folders[:-1], f"test_{folders[-1]}"]))
        tested = any(p.startswith((f"{w}.py", f"{w}_")) for w in wanted for p in known)
        if not tested and path not in untested:
            yield f"{path}: no test module of its own: write {' or '.join(wanted)}.py"
        if tested and path in untested:
            yield f"{path}: has its tests now: take it out of UNTESTED in tools/check_shape.py"
    for path in sorted(set(untested) - known):
        yield f"{path}: is gone: take it out of UNTESTED in tools/check_shape.py"


def _lint_faults(text: str) -> Iterator[str]:
    """The ignore list is short, and each of its lines has its reason."""
    ignores = tomllib.loads(text).get("tool", {}).get("ruff", {}).get("lint", {})
    count = len(ignores.get("ignore", []))
    if count > MAX_LINT_IGNORES:
        yield f"pyproject.toml: {count} rules ignored everywhere, at most {MAX_LINT_IGNORES}"
    block = re.search(r"^ignore = \[\n(.*?)^\]$", text, re.MULTILINE | re.DOTALL)
    for line in block[1].splitlines() if block else ():
        if not re.search(r'",\s+# \S.{5,}$', line):
            yield f"pyproject.toml: `{line.strip()}` has no reason beside it"


def faults_of_tree(
    root: Path, files: list[str] | None = None, untested: dict[str, str] | None = None
) -> list[str]:
    """The faults of the files below `root` as `path:line: sentence`.

    Args:
        root: the repository.
        files: paths to look at; by default those that git tracks.
        untested: modules that need no test module; by default `UNTESTED`.
    """
    paths = tracked_files(root) if files is None else files
    faults: list[str] = []
    for path in paths:
        raw = (root / path).read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            faults.append(f"{path}: not a text file: generate it, or keep it as text")
            continue
        faults.extend(_text_faults(path, text))
        if path.endswith(".py") and path != GENERATED:
            faults.extend(_size_faults(path, text))
            faults.extend(_comment_faults(path, text))
        if path == "pyproject.toml":
            faults.extend(_lint_faults(text))
    faults.extend(_test_faults(paths, UNTESTED if untested is None else untested))
    return faults


def main() -> int:
    """Print each fault of this repository; 0 when there is none."""
    faults = faults_of_tree(ROOT)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
