"""Names for what users bring along: our own, those given in a call, and entry points of installed packages.

Nothing is registered in a global: what a name means can be seen from the call and from what is installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import InputError, near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping


def names(own: Mapping[str, Any], group: str) -> list[str]:
    """Return our own names and those that installed packages declare in an entry-point group, sorted."""
    return sorted({*own, *(entry.name for entry in importlib.metadata.entry_points(group=group))})


def found(name: str, own: Mapping[str, Any], *, group: str, given: Mapping[str, Any] | None = None) -> Any:
    """Return what a name stands for.

    Raises:
        InputError: If it stands for nothing, or for two things.

    """
    asked = f"find {name!r:.60} among {group.removeprefix('hydra_detect.')}"
    given = given or {}
    everywhere = importlib.metadata.entry_points(group=group)
    installed = [entry for entry in everywhere if entry.name == name]
    places = ["ours"] * (name in own) + ["given"] * (name in given) + ["installed"] * len(installed)
    if len(places) > 1:
        raise InputError(asked, f"there are {len(places)}: {', '.join(places)}", "Give yours another name.")
    if not places:
        raise InputError(asked, "there is none", near_matches(name, {*own, *given, *everywhere.names}))
    return installed[0].load() if installed else own[name] if name in own else given[name]


def text_digest(value: Any) -> str:
    """Return a digest of the source text of what a user brought along, or of its name where there is no text.

    It is that of the function or class itself; what that calls or reads from elsewhere is not seen.
    """
    what = inspect.unwrap(value) if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    try:
        text = inspect.getsource(what)
    except (OSError, TypeError):  # typed into an interpreter, or built in
        text = ""
    named = f"{what.__module__}.{what.__qualname__}\n{text}"
    return hashlib.sha256(named.encode()).hexdigest()
