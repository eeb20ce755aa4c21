"""What the commands share: options, the store they work on, a progress bar."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hydra_detect.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORE_VARIABLE = "HYDRA_DETECT_STORE"
FAILED, USAGE = 1, 2

StoreOption = Annotated[Path | None, Parameter(help=f"folder of the store; else ${STORE_VARIABLE}")]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="print JSON for programs")]
ReasonOption = Annotated[str, Parameter(help="why, for the history")]
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
