"""The repository keeps its shape, and each way of losing it is seen."""

import subprocess
from pathlib import Path

import pytest

from tools import check_shape

LATER = "TO" + "DO"
HOST = "py" + "pi.org"
LONG_FUNCTION = "def f():\n" + "    pass\n" * 70
GOOD_PROJECT = '[tool.ruff.lint]\nignore = [\n    "D105",  # they mean what they mean\n]\n'
MANY = '\n    "X",  # reasons' * 20


def faults(tmp_path: Path, files: dict[str, str | bytes], **known: dict[str, str]) -> list[str]:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return check_shape.faults_of_tree(tmp_path, list(files), known.get("untested", {}))


def test_this_tree_keeps_its_shape() -> None:
    assert check_shape.faults_of_tree(check_shape.ROOT) == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tools/a.py", "x = 1\n" * 401, "tools/a.py: 401 lines, at most 400"),
        ("tools/a.py", LONG_FUNCTION, "tools/a.py:1: f has 71 lines"),
        ("tools/a.py", "async " + LONG_FUNCTION, "f has 71 lines"),
        ("tools/a.py", "x = 1  # noqa\n", "tools/a.py:1: write `# noqa: CODE"),
        ("tools/a.py", "x = 1  # noqa: E501\n", "write `# noqa: CODE"),
        ("tools/a.py", "x = 1  # NOQA:E501,F401\n", "write `# noqa: CODE"),
        ("tools/a.py", "# ruff: noqa: E501\n", "write `# noqa: CODE"),
        ("tools/a.py", "x = 1  # type: ignore\n", "write `# type: ignore[code]"),
        ("tools/a.py", "x = 1  # type: ignore[arg-type]\n", "write `# type: ignore[code]"),
        ("tests/a.py", "x = 1  # noqa\n", "write `# noqa: CODE"),
        ("tests/a.py", "x = 1  # type: ignore\n", "write `# type: ignore[code]"),
        ("tools/a.py", "# noqa: E501 - the reason\n# noqa: F401\n", "tools/a.py:2: write"),
        ("tools/a.py", f"# {LATER}: later\n", "tools/a.py:1: do it now"),
        ("notes.md", f"ok\n\n{LATER} later\n", "notes.md:3: do it now"),
        ("a.sh", "cd /" + "work/main\n", "a.sh:1: a path of one machine"),
        ("a.toml", 'x = "/' + 'root/.cache"\n', "a path of one machine"),
        ("a.cfg", f"index = https://{HOST}/simple\n", "registry's host"),
        ("a.dat", b"\x00\x01", "a.dat: not a text file"),
        ("a.dat", b"\xff\xfe", "a.dat: not a text file"),
        ("vastar_runtime/x/_y.py", "", "write tests/runtime/x/test_y or tests/runtime/test_x.py"),
        ("vastar_client/y.py", "", "write tests/client/test_y.py"),
        ("pyproject.toml", GOOD_PROJECT.replace("  # they mean what they mean", ""), "no reason"),
        (
            "pyproject.toml",
            GOOD_PROJECT.replace("\n]", MANY + "\n]"),
            "21 rules",
        ),
    ],
)
def test_a_planted_violation_is_named(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    found = faults(tmp_path, {name: content})
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tools/a.py", "x = 1\n" * 400),
        (
            "tools/a.py",
            LONG_FUNCTION.replace("    pass\n", '    """Doc.\n\n    More.\n    """\n', 1),
        ),
        ("tools/a.py", "x = 1  # noqa: E501, F401 - the table is wider than a line\n"),
        ("tools/a.py", "x = 1  # type: ignore[arg-type]  # the stub is wrong there\n"),
        ("tools/a.py", "# noqa: E501 - as all of them\n# noqa: E501\n"),
        ("tests/a.py", "x = 1  # noqa: E501\n"),
        ("tests/a.py", "x = 1  # type: ignore[misc]\n"),
        ("tools/a.py", "x = '# noqa and # type: ignore in a string'\n"),
        ("a.md", "https://example.test/work/1 and ./root/x and {tmp}/work/x are no machine's\n"),
        ("vastar_runtime/x/__init__.py", ""),
        ("vastar_client/wire/_generated.py", "x = 1  # noqa\n" * 401),
        ("pyproject.toml", GOOD_PROJECT),
    ],
)
def test_what_the_rules_allow_passes(tmp_path: Path, name: str, content: str) -> None:
    assert faults(tmp_path, {name: content}) == []


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("vastar_client/y.py", "tests/client/test_y.py"),
        ("vastar_client/_y.py", "tests/client/test_y_properties.py"),
        ("vastar_runtime/x/_y.py", "tests/runtime/x/test_y.py"),
        ("vastar_runtime/x/_y.py", "tests/runtime/test_x.py"),
    ],
)
def test_a_module_with_its_tests_passes(tmp_path: Path, module: str, test: str) -> None:
    assert faults(tmp_path, {module: "", test: ""}) == []


def test_the_tests_of_a_package_do_not_cover_its_public_modules(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, {"vastar_runtime/x/y.py": "", "tests/runtime/test_x.py": ""})
    assert "write tests/runtime/x/test_y.py" in fault


def test_the_list_of_untested_modules_may_only_shrink(tmp_path: Path) -> None:
    module = {"vastar_client/y.py": "the reason"}
    assert faults(tmp_path, {"vastar_client/y.py": ""}, untested=module) == []
    (gone,) = faults(tmp_path, {}, untested=module)
    assert "is gone: take it out" in gone
    both = {"vastar_client/y.py": "", "tests/client/test_y.py": ""}
    (tested,) = faults(tmp_path, both, untested=module)
    assert "has its tests now: take it out" in tested


def test_every_untested_module_has_its_reason() -> None:
    assert all(len(reason) > 10 for reason in check_shape.UNTESTED.values())


def test_only_tracked_files_count_where_there_is_git(tmp_path: Path) -> None:
    (tmp_path / "tracked.md").write_text("x")
    (tmp_path / "scratch.md").write_text("x")
    assert check_shape.tracked_files(tmp_path) == ["scratch.md", "tracked.md"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "tracked.md"], cwd=tmp_path, check=True)
    assert check_shape.tracked_files(tmp_path) == ["tracked.md"]
