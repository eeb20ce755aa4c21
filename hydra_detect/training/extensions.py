"""Names for what users bring along: our own, those given in a call, and entry points of installed packages.

Nothing is registered in a global: what a name means can be seen from the call and from what is installed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import re
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import InputError, near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

LOSSES, AUGMENTATIONS = "hydra_detect.losses", "hydra_detect.augmentations"
"""Entry-point groups in which installed packages declare theirs."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


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


def installed(name: str, group: str) -> str:
    """Return which package declares a name, and its version; nothing if none does."""
    found = [entry.dist for entry in importlib.metadata.entry_points(group=group) if entry.name == name]
    return "".join(f"{dist.name} {dist.version}" for dist in found if dist is not None)


def form(value: Any) -> str:
    """Return of which form a value is that a user's code returned: its type, and of an array or tensor the rest."""
    kind = "None" if value is None else type(value).__name__
    if not hasattr(value, "shape"):
        return kind
    return f"{kind} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def text_digest(value: Any) -> str:
    """Return a digest of what a user brought along: its source text or name, and what it was made with.

    Of a function that is its text, its defaults and the values that it encloses, of a partial its arguments, of an
    object the text of its class and its attributes, of a method those of its object as well: one that counts its calls
    in an attribute is another afterwards. What it calls or reads from elsewhere is not seen.
    """
    return hashlib.sha256("\n".join(_texts(value)).encode()).hexdigest()


def _texts(value: Any) -> list[str]:
    if isinstance(value, functools.partial):
        return [*_texts(value.func), _shown(value.args), _shown(sorted(value.keywords.items()))]
    if inspect.ismethod(value):
        return [*_texts(value.__func__), *_texts(value.__self__)]
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        attributes = sorted(getattr(value, "__dict__", {}).items())
        return [*_texts(type(value)), _shown(value), _shown(attributes)]
    what = inspect.unwrap(value)
    try:
        text = inspect.getsource(what)
    except (OSError, TypeError):  # typed into an interpreter, or built in
        code = getattr(what, "__code__", None)
        text = _shown((code.co_code, code.co_consts, code.co_names)) if code else ""
    enclosed = [cell.cell_contents for cell in getattr(what, "__closure__", None) or ()]
    defaults = (getattr(what, "__defaults__", None), getattr(what, "__kwdefaults__", None))
    return [f"{what.__module__}.{what.__qualname__}", text, _shown(enclosed), _shown(defaults)]


def _shown(value: Any) -> str:
    """Return how a value shows itself, without the addresses by which two runs would differ."""
    return _ADDRESS.sub("", repr(value))
