"""A bug to plant in the runtime: the smallest change that breaks one promise."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest

__all__ = ["Bug", "Plant", "around"]

Plant = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Bug:
    """A bug, and the invariants of which one has to find it."""

    plant: Plant
    found_by: tuple[str, ...]


def around(owner: type | ModuleType, name: str, make: Callable[[Any], Any]) -> Plant:
    """Replace a method, or a function of a module, by what `make` makes of it."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, make(getattr(owner, name)))

    return plant
