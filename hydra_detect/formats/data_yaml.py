"""`data.yaml`: what a YOLO data set says of itself: the names of its classes, and where its pictures are.

Only plain values are read; keys that only training programs need are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from hydra_detect.formats.rows import as_kind, as_list, must_have, wrong
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_ASKED = "read a data.yaml"


def class_names_from_yaml(text: str) -> tuple[str, ...]:
    """Read `names`: a list, or a mapping from each number from 0 to a name; spaces around a name are none of it.

    Raises:
        InputError: If it is no YAML of plain values, or the names are none.

    """
    names = must_have(_values_of(text), "names", asked=_ASKED, place="the file")
    if isinstance(names, dict):
        if not all(type(number) is int for number in names) or sorted(names) != list(range(len(names))):
            raise wrong(_ASKED, f"'names' has the numbers {shown(list(names))} and not each from 0 on")
        names = [names[number] for number in range(len(names))]
    # YAML reads an unquoted 7 as a number, and means the same by it; of an unquoted "no" it leaves only False.
    texts = [str(name) if type(name) is int else name for name in as_list(names, asked=_ASKED, place="'names'")]
    return tuple(
        as_kind(name, str, asked=_ASKED, place=f"names[{number}]").strip() for number, name in enumerate(texts)
    )


def pictures_from_yaml(text: str) -> list[str]:
    """Read what stands under `train`, `val` and `test`: folders of pictures, or lists of them.

    Raises:
        InputError: If it is no YAML of plain values, or something else stands there.

    """
    document = _values_of(text)
    found = []
    for key in ("train", "val", "test"):
        value = document.get(key) if isinstance(document, dict) else None
        entries = value if isinstance(value, list) else [] if value is None else [value]
        found += [as_kind(entry, str, asked=_ASKED, place=f"'{key}'") for entry in entries]
    return found


def to_yaml(class_names: Sequence[str], *, pictures: str) -> str:
    """Return a `data.yaml`.

    Args:
        class_names: The name of class 0, 1, ...
        pictures: Stands under `train`: a folder of pictures, or a list of them that ends in `.txt`.

    """
    values = {"train": pictures, "names": list(class_names)}
    text: str = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    return text


class _Loader(yaml.SafeLoader):
    """Refuses aliases: nine levels of them make a billion values of a hundred characters."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            message = f"write out what *{self.peek_event().anchor} stands for"
            raise yaml.YAMLError(message)
        return super().compose_node(parent, index)


# What PyYAML raises on values that are not what their tag says, such as "!!timestamp soon", has no common base.
_MALFORMED = (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError)


def _values_of(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader, with less
    except _MALFORMED as error:
        raise wrong(_ASKED, f"it is no YAML of plain values ({' '.join(str(error).split())[:120]})") from None
