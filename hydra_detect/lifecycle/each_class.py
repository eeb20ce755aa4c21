"""One head per class of a data set: what each is called, and what it learns from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hydra_detect.data.splits import check_enough
from hydra_detect.errors import InputError, NameInvalidError
from hydra_detect.names import check_name

if TYPE_CHECKING:
    from hydra_detect.data.samples import Samples

_UNFIT = re.compile(r"[^a-z0-9]+")


def each_class(prefix: str, samples: Samples) -> dict[str, Samples]:
    """Return the samples of each class by the name of its head; pictures of the others are its background.

    A class of which nothing is labelled gets no head: data sets list some that they do not use. A head is called after
    its class in lower case, with what no name can hold replaced by "-": "red fox" of prefix "night" is "night-red-fox".

    Args:
        prefix: What the names begin with; "" for nothing.
        samples: Of several classes.

    Raises:
        NameInvalidError: If a class gives no name, or two give the same.
        InputError: If one has labels too few to learn from; it is named.

    """
    named: dict[str, str] = {}
    for label in [label for label, count in samples.box_counts.items() if count]:
        words = _UNFIT.sub("-", label.lower()).strip("-")
        name = check_name(f"{prefix}-{words}" if prefix else words)
        if name in named:
            found = f"the classes {named[name]!r} and {label!r} would both be called {name!r}"
            raise NameInvalidError("name a head after each class", found, "Rename one with a mapping of classes.")
        named[name] = label
    chosen = {name: samples.choose([label]) for name, label in named.items()}
    for name, own in chosen.items():
        try:
            check_enough(own)
        except InputError as error:
            remedy = f"{error.remedy} Or name the classes that are to have a head."
            raise InputError(f"train {name!r} on class {named[name]!r}", error.found, remedy) from None
    return chosen
