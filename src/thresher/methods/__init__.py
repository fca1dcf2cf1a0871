"""Methods, found by looking: a new file in this folder is a new method.

A method's file holds one class with a ``name`` and ``Options`` (see ``base.Method``). Users call it
by that name or by the name of its file.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import cast

from thresher.errors import unknown_name
from thresher.methods.base import Method


@functools.cache
def all_methods() -> dict[str, type[Method]]:
    """Every method by its name, in the order of the files."""
    return {method.name: method for method in _by_file().values()}


def resolve_name(name: str) -> str:
    """The name of a method given by its name or by that of its file.

    Raises:
        UserError: no method is called so; the message names the nearest.
    """
    by_file = {stem: method.name for stem, method in _by_file().items()}
    if name in all_methods():
        return name
    if name in by_file:
        return by_file[name]
    raise unknown_name("method", name, [*all_methods(), *by_file])


@functools.cache
def _by_file() -> dict[str, type[Method]]:
    found: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if member.__module__ == module.__name__ and "name" in vars(member):
                found[info.name] = cast(type[Method], member)
    return found
