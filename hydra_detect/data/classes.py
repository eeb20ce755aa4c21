"""Classes: which of a data set's classes are wanted, and under which names.

What is chosen is a list of names, or a mapping from each new name to the names that it stands for; on a command line
`WBC` or `cell=RBC,WBC`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra_detect.errors import InputError, near_matches
from hydra_detect.names import shown

Classes = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Wanted classes: names, or each new name with the name or names that it stands for."""

_ASKED = "choose classes"
_MOST_CHARACTERS = 200  # as many as the record of a head takes


def check_class_names(_instance: Any, _attribute: Any, names: Iterable[str]) -> None:
    """Refuse names that a head could not carry (an attrs validator)."""
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) == len(name):
            found = f"{shown(name)} is empty, unprintable, or begins or ends with a space"
            raise InputError("name the classes", found, "Give each class a short printable name.")
        if len(name) > _MOST_CHARACTERS:
            found = f"{shown(name)} is longer than {_MOST_CHARACTERS} characters"
            raise InputError("name the classes", found, "Give each class a short printable name.")
        if name in seen:
            raise InputError("name the classes", f"{name!r} stands twice", "Name each class once.")
        seen.add(name)


def parse_classes(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read classes from a command line.

    Args:
        texts: Each a name (`WBC`), or a new name and the names that it stands for (`cell=RBC,WBC`).

    Returns:
        The names that each new name stands for, as `Samples.choose` takes them.

    Raises:
        InputError: If a name is empty or a new name stands twice.

    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        new, equals, old = (part.strip() for part in text.partition("="))
        names = tuple(name.strip() for name in old.split(",")) if equals else (new,)
        if not new or not all(names):
            raise InputError(_ASKED, f"{shown(text)} lacks a name", "Write NAME, or NEW=NAME,NAME to merge some.")
        if new in found:
            raise InputError(_ASKED, f"{new!r} stands twice", "Name each class once; NEW=NAME,NAME merges some.")
        found[new] = names
    return found


def chosen(classes: Classes, known: Sequence[str]) -> dict[str, str]:
    """Return the new name of each wanted class.

    Args:
        classes: What is wanted.
        known: The classes that there are.

    Returns:
        Old name to new name, in the order in which the new ones were given.

    Raises:
        InputError: If a name is not known, or wanted twice.

    """
    if isinstance(classes, str):
        raise InputError(_ASKED, "one text was given for a list of names", f"Write [{classes!r}].")
    wanted = classes if isinstance(classes, Mapping) else {name: name for name in classes}
    if not wanted or len(wanted) < len(classes):
        raise InputError(_ASKED, f"{shown(classes)} names none, or one twice", "Name each wanted class once.")
    new_names: dict[str, str] = {}
    for new, old in wanted.items():
        for name in [old] if isinstance(old, str) else old:
            if name not in known:
                raise InputError(_ASKED, f"there is no class {shown(name)}", near_matches(name, known), name=name)
            if name in new_names:
                found = f"{name!r} would become both {new_names[name]!r} and {new!r}"
                raise InputError(_ASKED, found, "A box has one class: name each class once.")
            new_names[name] = new
    return new_names
