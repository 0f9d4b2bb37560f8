"""Named extension points: a registry key stands in recipes, never a Python class.

A registry holds built-ins, and finds those of other packages through entry points of the group
``autoprune.<kind>`` (for example ``autoprune.criteria``) the first time an unknown name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from autoprune.errors import UsageError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from key to extension, with did-you-mean and entry points.

    Args:
        kind: Singular noun for messages ("criterion").
        group: Entry-point group ("autoprune.criteria").
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._items: dict[str, T] = {}
        self._plugins_loaded = False

    def add(self, name: str, item: T) -> T:
        """Register ``item`` under ``name``.

        Raises:
            UsageError: The name is taken by something else.
        """
        if name in self._items and self._items[name] is not item:
            raise UsageError(f"the {self.kind} name {name!r} is registered twice; choose another name")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates."""
        return lambda item: self.add(name, item)

    def get(self, name: str) -> T:
        """Return the item called ``name``.

        Raises:
            UnknownNameError: Neither a built-in nor an installed plug-in has that name.
        """
        if name not in self._items:
            self._load_plugins()
        try:
            return self._items[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._items) from None

    def names(self) -> list[str]:
        """Return all names in order of registration, plug-ins last."""
        self._load_plugins()
        return list(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter([(name, self._items[name]) for name in self.names()])

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self.group):
            self.add(point.name, point.load())
