"""What the commands share: options, the store they work on, a progress bar."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hydra_detect.errors import CorruptError, HydraDetectError, StoreError
from hydra_detect.storage.owners import ACTOR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cyclopts import Token

STORE_VARIABLE = "HYDRA_DETECT_STORE"

PARTIAL, ERROR, DAMAGE, STOPPED = 1, 2, 3, 130
"""Exit codes beside 0: done, and not all is well; an error; damage was found; stopped by the user."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,8})", re.ASCII)
_LONG_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,99})", re.ASCII)


def code_of(error: HydraDetectError) -> int:
    """Return the exit code of an error."""
    return DAMAGE if isinstance(error, CorruptError) else ERROR


def _integer(_kind: object, tokens: Sequence[Token], *, form: re.Pattern[str] = _INTEGER) -> int:
    """Return a whole number: 2.6 is none, and must not become one by rounding."""
    text = tokens[0].value
    if not form.fullmatch(text):
        message = f"{text!a:.60} is no whole number."
        raise ValueError(message)
    return int(text)


def _long_integer(kind: object, tokens: Sequence[Token]) -> int:
    return _integer(kind, tokens, form=_LONG_INTEGER)


def _whole_number(kind: object, tokens: Sequence[Token]) -> int:
    number = _integer(kind, tokens)
    if number < 1:
        message = f"{number} is no whole number from 1."
        raise ValueError(message)
    return number


StoreOption = Annotated[Path | None, Parameter(help=f"folder of the store; else ${STORE_VARIABLE}")]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="print JSON for programs")]
EndpointOption = Annotated[str | None, Parameter(help="address of the Hub; else $HF_ENDPOINT, or the public one")]
ReasonOption = Annotated[str, Parameter(help=f"why, for the history; who is ${ACTOR_VARIABLE}, or user@host")]
Integer = Annotated[int, Parameter(converter=_integer)]
LongInteger = Annotated[int, Parameter(converter=_long_integer)]
WholeNumber = Annotated[int, Parameter(converter=_whole_number)]
Flag = Parameter(negative=())
Several = Annotated[list[str], Parameter(negative=(), consume_multiple=True)]


def store_folder(given: Path | None) -> Path:
    """Return the store that was named, here or in the environment.

    Raises:
        StoreError: If none was.

    """
    named = given or (Path(os.environ[STORE_VARIABLE]) if os.environ.get(STORE_VARIABLE) else None)
    if named is None:
        raise StoreError("find the store", "none was named", f"Give --store DIR, or set {STORE_VARIABLE}.")
    return named


@contextlib.contextmanager
def progress_bar(what: str, *, least: int = 1) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, in all) that draws a bar on a terminal, from `least` items on."""
    from tqdm import tqdm

    bars: list[tqdm[None]] = []

    def advance(done: int, total: int) -> None:
        if total < least:
            return
        if not bars:
            bars.append(tqdm(total=total, desc=what, leave=False, disable=None))
        bars[0].update(done - bars[0].n)

    try:
        yield advance
    finally:
        for bar in bars:
            bar.close()
