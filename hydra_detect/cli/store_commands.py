"""The commands about a whole store: is it sound, and what takes the disk."""

from __future__ import annotations

from typing import Annotated, get_args

from cyclopts import App, Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import DAMAGE, ERROR, PARTIAL, JsonOption, StoreOption, progress_bar, store_folder
from hydra_detect.errors import InputError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage.findings import Depth
from hydra_detect.versions import VersionManager

app = App(name="store", help="Check and measure a whole store.")

Flag = Annotated[bool, Parameter(negative=())]


@app.command
def verify(
    *,
    store: StoreOption = None,
    quick: Flag = False,
    full: Flag = False,
    deep: Flag = False,
    repair: Flag = False,
    json: JsonOption = False,
) -> int:
    """Check a store.

    Exit code 0 if it is sound, 1 if something was mended and it is now, 3 if damage is left, 2 if it is not clear,
    because something could not be read.

    Parameters
    ----------
    quick
        Structure, sizes and pointers only.
    full
        Also the SHA-256 of every file; this is the default.
    deep
        Also what is inside: tensors, records, and that each network can be built. Loads torch.
    repair
        Set damage aside, go back to what is sound, clear leftovers away.

    """
    given = {"quick": quick, "full": full, "deep": deep}
    chosen: list[Depth] = [depth for depth in get_args(Depth) if given[depth]]
    if len(chosen) > 1:
        raise InputError("check the store", f"--{' and --'.join(chosen)} were given", "Give one of them.")
    manager = VersionManager(store_folder(store))
    with progress_bar("bytes") as progress:
        report = (manager.repair if repair else manager.verify)(
            depth=chosen[0] if chosen else "full", progress=progress
        )
    output.say(output.as_json(report.to_dict()) if json else str(report))
    if not report.is_sound:
        return DAMAGE if report.verdict == "damaged" else ERROR
    return PARTIAL if report.mended else 0


@app.command
def usage(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """Say what takes the disk."""
    found = HeadRegistry(store_folder(store)).usage()
    output.say(output.as_json(found.to_dict()) if json else output.usage_table(found))
    return 0
