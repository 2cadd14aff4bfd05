"""Read a TOML file into settings, one for each value; whatever cannot be one becomes a problem."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from vastar_runtime.config._credentials import CREDENTIALS
from vastar_runtime.config._expect import outline, show, suggest
from vastar_runtime.config._names import BadName, shown_name
from vastar_runtime.config._problems import Problem
from vastar_runtime.config._references import beside
from vastar_runtime.config._schema import Leaf, Names, Table, schema
from vastar_runtime.config._toml import dotted, quoted

__all__ = ["Found", "Setting", "read_file"]


@attrs.frozen
class Setting:
    """One value that some layer gives to one key.

    Attributes:
        key: dotted path, such as `server.drain_s`.
        value: as read; a text from a variable or flag may stand for a number or boolean.
        source: the file, variable or flag.
        is_typed: whether the layer can write numbers itself (a file), so that text is text.
    """

    key: str
    value: object = attrs.field(repr=False)
    source: str
    is_typed: bool = False


@attrs.frozen
class Found:
    """A setting, and which key of the tree it is for.

    Attributes:
        path: the names of its key.
    """

    setting: Setting
    path: tuple[str, ...]
    leaf: Leaf


def read_file(file: str, problems: list[Problem]) -> list[Found]:
    """Every value in a TOML file; what is wrong with the rest is added to `problems`."""
    try:
        with open(file, "rb") as stream:  # noqa: PTH123  # the name is shown as it was given
            document = tomllib.load(stream)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problems.append(Problem(file, "", f"cannot be read ({reason})", "name a readable file"))
    except UnicodeDecodeError:
        problems.append(Problem(file, "", "is not UTF-8 text", "write it as UTF-8"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(file, "", f"is not valid TOML: {error}", "mend that place"))
    else:
        return list(_Reader(file, problems).values(document, schema(), ()))
    return []


@attrs.frozen
class _Reader:
    """One walk through one file."""

    file: str
    problems: list[Problem]

    def values(
        self, table: Mapping[str, object], node: Table | Names, path: tuple[str, ...]
    ) -> Iterator[Found]:
        if isinstance(node, Names):
            yield from self._named(table, node, path)
            return
        for name, value in table.items():
            inner = node.nodes.get(name)
            if inner is None:
                self._refuse_unknown(name, node, path)
            elif isinstance(inner, Leaf):
                key = (*path, name)
                ours = _beside_file(inner, value, self.file)
                setting = Setting(dotted(key), ours, self.file, is_typed=True)
                yield Found(setting, key, inner)
            else:
                yield from self._inside(value, inner, (*path, name))

    def _named(
        self, table: Mapping[str, object], node: Names, path: tuple[str, ...]
    ) -> Iterator[Found]:
        spellings: dict[str, str] = {}
        for name, value in table.items():
            try:
                clean = node.clean(name)
            except BadName as error:
                clean = shown_name(name)
                self._refuse((*path, clean), error.wrong, error.right)
            else:
                if clean in spellings:
                    same = f"it is the same as {quoted(spellings[clean])}"
                    self._refuse((*path, name), same, "write all of it in one of the two")
                spellings[clean] = name
            yield from self._inside(value, node.inner, (*path, clean))

    def _inside(self, value: object, node: Table | Names, path: tuple[str, ...]) -> Iterator[Found]:
        if isinstance(value, dict):
            yield from self.values(value, node, path)
        else:
            # What somebody writes in place of a table of secrets may well be the secret.
            shown = "it" if CREDENTIALS in path else show(value)
            self._refuse(path, f"{shown} is not a table", f"write [{dotted(path)}]")

    def _refuse_unknown(self, name: str, table: Table, path: tuple[str, ...]) -> None:
        where = table.elsewhere.get(name)
        if where is not None:
            self._refuse((*path, name), "it means nothing here", f"write it in {where}")
            return
        known = list(table.nodes)
        right = suggest(name, known) or "; known here: " + ", ".join(known)
        self._refuse((*path, name), "unknown key", "remove it" + right)

    def _refuse(self, path: tuple[str, ...], wrong: str, right: str) -> None:
        self.problems.append(Problem(self.file, dotted(path), wrong, right))


def _beside_file(leaf: Leaf, value: object, file: str) -> object:
    """A relative path in a file is relative to that file, not to where the daemon was started."""
    marks = outline(leaf.type_)[1]
    folder = Path(file).absolute().parent
    if marks.get("reference"):
        return _references_beside(folder, value)
    if isinstance(value, str) and value and (marks.get("file") or marks.get("path")):
        return str(folder / value)
    return value


def _references_beside(folder: Path, value: object) -> object:
    """The same for the files that a text, or each of a table of texts, refers to."""
    if isinstance(value, dict):
        return {name: _references_beside(folder, text) for name, text in value.items()}
    return beside(value, folder) if isinstance(value, str) else value
