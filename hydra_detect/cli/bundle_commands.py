"""The commands that give a head away and take one in. Neither loads torch."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  cyclopts reads annotations as it runs

from hydra_detect.cli import output
from hydra_detect.cli.options import JsonOption, StoreOption, store_folder


def bundle(head: str, path: Path, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Write a version of a head and its backbone as one zip file or folder, to be given away.

    Parameters
    ----------
    head
        NAME for the active version, NAME@VERSION for that one.
    path
        A new file that ends in .zip, or else a new folder.

    """
    from hydra_detect.bundles.export import export_bundle

    info = export_bundle(store_folder(store), head, path)
    output.say(output.as_json(info.to_dict()) if json else str(info))
    return 0


def unbundle(
    path: Path,
    /,
    *,
    head: str | None = None,
    backbone: str | None = None,
    reference: str | None = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Check a bundle, and put it into a store as a new version of a head, which is not promoted by that.

    Parameters
    ----------
    path
        The zip file or folder.
    head
        Name for the head here; else the one it had.
    backbone
        Name for its backbone here; else that of the same one in the store, or the one it had.
    reference
        Name for what a compact head leans on, if that is not here yet; else the one it had.

    """
    from hydra_detect.bundles.bundle import load_bundle
    from hydra_detect.names import check_name
    from hydra_detect.storage.store import Store

    for name, kind in ((head, "head"), (backbone, "backbone"), (reference, "head")):
        if name is not None:
            check_name(name, kind)
    loaded = load_bundle(path)  # this too before a store is made for it
    version = loaded.add_to(Store.create(store_folder(store)), head=head, backbone=backbone, reference=reference)
    facts = {"head": version.head, "version": version.number, "backbone": version.record.backbone_name}
    facts |= {"manifest": str(version.manifest), "digest": str(loaded.digest), "was": str(loaded.origin.ref)}
    leant = version.record.compact.reference_ref if version.record.compact else None
    facts |= {"reference": leant}
    there = f"{version} is there{f' and leans on {leant}' if leant else ''}"
    text = f"{there}; 'hydra-detect promote {version.head} {version.number}' makes it the active one"
    output.say(output.as_json(facts) if json else text)
    return 0


COMMANDS = (bundle, unbundle)
