"""Who is next: deficit round robin between tenants, then workspaces, then origins.

Each tenant has a queue of its own and they take turns, so that a tenant with a thousand calls in
line delays one with a single call by one turn, not by a thousand. Within a tenant its workspaces
take turns in the same way, and within a workspace its origins: else a call to a slow upstream at
the head would hold up those behind it that could go.

The shape is a tree of rings, three levels deep. A node lies in its parent's ring while something
below it can go; a *parked* node (its owner has all the places it may have) waits outside of the
ring until `unpark`. A visit gives a node its weight as credit (the quantum); each call costs one,
and when the credit is used up the next in the ring is visited. Every step is O(1): rings are
`OrderedDict`s (linked lists, so removal from the middle is free), and the depth is fixed. An empty
node is dropped, so what idles takes no memory.

It decides who is next and wakes nobody: that is a driver's.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import attrs

__all__ = ["DEPTH", "FairQueue", "Place"]

Item = TypeVar("Item")

DEPTH = 3
"""Tenant, workspace, origin."""


@attrs.define(eq=False, repr=False)
class _Node:
    parent: "_Node | None"
    name: str
    weight: int = 1
    credit: int = 0
    is_parked: bool = False
    waiting: int = 0
    children: "dict[str, _Node]" = attrs.field(factory=dict)
    ring: "OrderedDict[_Node, None]" = attrs.field(factory=OrderedDict)
    line: "OrderedDict[Place[Any], None]" = attrs.field(factory=OrderedDict)


@attrs.define(eq=False, repr=False)
class Place(Generic[Item]):
    """A place in line; `remove` takes it out.

    Attributes:
        item: what waits.
        is_in_line: the queue sets it.
    """

    item: Item
    is_in_line: bool = True
    _leaf: _Node | None = None


class FairQueue(Generic[Item]):
    """Items in line, by tenant, workspace and origin.

    Attributes:
        size: how many wait. Read on every release, so no method.
    """

    __slots__ = ("_root", "size")

    def __init__(self) -> None:
        self._root = _Node(None, "")
        self.size = 0

    def __iter__(self) -> Iterator[Item]:
        """All that wait, in no order. Change nothing meanwhile."""
        for top in self._root.children.values():
            for middle in top.children.values():
                for leaf in middle.children.values():
                    for place in leaf.line:
                        yield place.item

    def waiting_of(self, tenant: str) -> int:
        """How many wait of `tenant`."""
        node = self._root.children.get(tenant)
        return 0 if node is None else node.waiting

    @property
    def tenant_count(self) -> int:
        """How many tenants wait."""
        return len(self._root.children)

    def push(
        self, path: tuple[str, str, str], item: Item, *, max_waiting: int, tenant_weight: int = 1
    ) -> Place[Item] | None:
        """Put `item` at the end of its line; None where its tenant has as many as it may.

        Args:
            path: tenant, workspace and origin.
            item: what waits.
            max_waiting: how many may wait of this tenant.
            tenant_weight: turns of its tenant for each one of others, at least 1; the newest holds.
        """
        tenant, workspace, origin = path
        if self.waiting_of(tenant) >= max_waiting:
            return None
        top = self._root.children.get(tenant) or self._add(self._root, tenant)
        top.weight = tenant_weight
        middle = top.children.get(workspace) or self._add(top, workspace)
        leaf = middle.children.get(origin) or self._add(middle, origin)
        place: Place[Item] = Place(item, leaf=leaf)
        leaf.line[place] = None
        _count(leaf, 1)
        self.size += 1
        _join(leaf)
        return place

    def weigh(self, tenant: str, weight: int) -> None:
        """A tenant that is in line has so many turns from now on, whatever it came with."""
        self._root.children[tenant].weight = weight

    def remove(self, place: Place[Item]) -> bool:
        """Take `place` out of the line, wherever it is; whether it was still in it."""
        if not place.is_in_line:
            return False
        leaf = place._leaf  # noqa: SLF001 - made here
        assert leaf is not None
        place.is_in_line = False
        place._leaf = None  # noqa: SLF001 - made here
        del leaf.line[place]
        _count(leaf, -1)
        self.size -= 1
        self._prune(leaf)
        return True

    def peek(self) -> Place[Item] | None:
        """Who is next; None where nobody can go. Asking again gives the same."""
        node = self._root
        if not node.ring:
            return None
        while node.ring:
            node = next(iter(node.ring))
        return next(iter(node.line))

    def take(self, place: Place[Item]) -> Item:
        """Let the one that `peek` gave go: it leaves the line, and its owners have had a turn."""
        node = place._leaf  # noqa: SLF001 - made here
        assert node is not None
        while node.parent is not None:
            if not node.credit:
                node.credit = node.weight
            node.credit -= 1
            if not node.credit:
                node.parent.ring.move_to_end(node)
            node = node.parent
        self.remove(place)
        return place.item

    def park_tenant(self, tenant: str) -> None:
        """Nothing of `tenant`, which has somebody in line, can go until `unpark_tenant`."""
        _park(self._root.children[tenant])

    def park_origin(self, path: tuple[str, str, str]) -> None:
        """Nothing of `path`, which has somebody in line, can go until `unpark_origin`."""
        tenant, workspace, origin = path
        _park(self._root.children[tenant].children[workspace].children[origin])

    def unpark_tenant(self, tenant: str) -> None:
        """What waits of `tenant` can go again; does nothing where it could."""
        node = self._root.children.get(tenant)
        if node is not None and node.is_parked:
            _unpark(node)

    def unpark_origin(self, path: tuple[str, str, str]) -> None:
        """What waits of `path` can go again; does nothing where it could."""
        node = self._at(path)
        if node is not None and node.is_parked:
            _unpark(node)

    def is_parked_tenant(self, tenant: str) -> bool:
        """Whether somebody of `tenant` waits, and it is parked."""
        node = self._root.children.get(tenant)
        return node is not None and node.is_parked

    def is_parked_origin(self, path: tuple[str, str, str]) -> bool:
        """Whether somebody of `path` waits, and it is parked."""
        node = self._at(path)
        return node is not None and node.is_parked

    def unpark_all(self) -> None:
        """Everything can go again: for when limits were changed. As long as the queue is wide."""
        for top in list(self._root.children.values()):
            self.unpark_tenant(top.name)
            for middle in top.children.values():
                for leaf in middle.children.values():
                    if leaf.is_parked:
                        _unpark(leaf)

    def _at(self, path: tuple[str, str, str]) -> _Node | None:
        node: _Node | None = self._root
        for name in path:
            node = None if node is None else node.children.get(name)
        return node

    @staticmethod
    def _add(parent: _Node, name: str) -> _Node:
        node = parent.children[name] = _Node(parent, name)
        return node

    @staticmethod
    def _prune(node: _Node) -> None:
        """Drop what is empty, from `node` upwards."""
        while node.parent is not None:
            parent = node.parent
            if not node.waiting:
                parent.ring.pop(node, None)
                del parent.children[node.name]
            elif not _can_go(node):
                _leave(node)
            node = parent


def _can_go(node: _Node) -> bool:
    return not node.is_parked and bool(node.ring or node.line)


def _count(leaf: _Node, step: int) -> None:
    node: _Node | None = leaf
    while node is not None:
        node.waiting += step
        node = node.parent


def _join(node: _Node) -> None:
    """Put `node` and what is above it into their rings, at the end, where they can go."""
    while node.parent is not None and not node.is_parked and node not in node.parent.ring:
        node.parent.ring[node] = None
        node = node.parent


def _leave(node: _Node) -> None:
    """Take `node` out of its ring, and all above that have nothing left to go."""
    while node.parent is not None and node in node.parent.ring:
        del node.parent.ring[node]
        # Who leaves gives up what it had saved, as one whose queue ran empty does.
        node.credit = 0
        node = node.parent
        if node.ring:
            return


def _park(node: _Node) -> None:
    node.is_parked = True
    _leave(node)


def _unpark(node: _Node) -> None:
    node.is_parked = False
    if _can_go(node):
        _join(node)
