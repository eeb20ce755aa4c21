"""`data.yaml`: what a YOLO data set says of itself: the names of its classes, and where its pictures are.

Only plain values are read; keys that only training programs need are passed over. Law: `from_yaml(to_yaml(names,
pictures=list))` has these names and pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import yaml

from hydra_detect.formats.rows import as_kind, as_list, must_have, wrong
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ASKED = "read a data.yaml"


@attrs.frozen(kw_only=True)
class DataYaml:
    """What a `data.yaml` says.

    Args:
        class_names: The name of class 0, 1, ...
        home: The folder of the data set (`path`), relative to that of the file; None if it is not given.
        pictures: What stands under `train`, `val` and `test`, each once: folders of pictures, or lists of them that end
            in `.txt`.

    """

    class_names: tuple[str, ...]
    home: str | None = None
    pictures: tuple[str, ...] = ()


def from_yaml(text: str) -> DataYaml:
    """Read a `data.yaml`.

    `names` is a list, or a mapping from each number from 0 to a name; spaces around a name are none of it. Under
    `train`, `val` and `test` stands a text, a list of texts or nothing.

    Raises:
        InputError: If it is no YAML of plain values, or one of these is something else.

    """
    document = _values_of(text)
    names = _class_names(must_have(document, "names", asked=_ASKED, place="the file"))
    home = document.get("path")
    return DataYaml(
        class_names=names,
        home=None if home is None else as_kind(home, str, asked=_ASKED, place="'path'"),
        pictures=tuple(dict.fromkeys(entry for key in ("train", "val", "test") for entry in _texts(document, key))),
    )


def to_yaml(class_names: Sequence[str], *, pictures: str) -> str:
    """Return a `data.yaml`.

    Args:
        class_names: The name of class 0, 1, ...
        pictures: Stands under `train` and, as training programs want to find one, under `val`: a folder of pictures, or
            a list of them that ends in `.txt`.

    """
    values = {"train": pictures, "val": pictures, "names": list(class_names)}
    text: str = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    return text


def _class_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):
        if not all(type(number) is int for number in names) or sorted(names) != list(range(len(names))):
            raise wrong(_ASKED, f"'names' has the numbers {shown(list(names))} and not each from 0 on")
        names = [names[number] for number in range(len(names))]
    # YAML reads an unquoted 7 as a number, and means the same by it; of an unquoted "no" it leaves only False.
    texts = [str(name) if type(name) is int else name for name in as_list(names, asked=_ASKED, place="'names'")]
    return tuple(
        as_kind(name, str, asked=_ASKED, place=f"names[{number}]").strip() for number, name in enumerate(texts)
    )


def _texts(document: Mapping[str, Any], key: str) -> list[str]:
    value = document.get(key)
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [as_kind(entry, str, asked=_ASKED, place=f"'{key}'") for entry in entries]


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
