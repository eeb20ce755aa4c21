"""One way to damage the rich store for each thing that a check can find, and what becomes of it."""

from collections.abc import Callable
from typing import Any

import attrs
from store_damage import (
    FOX,
    OWL,
    STAGING,
    at,
    cut,
    cut_off,
    exchanged,
    flipped,
    gone,
    left_behind,
    linked,
    made,
    moved,
    newer_schema,
    other_settings,
    pointer,
    reworded,
    unfinished,
    unknown_value,
    version,
)
from store_fixtures import rewrite

from hydra_detect.storage import findings, layout
from hydra_detect.versions import VersionManager


@attrs.frozen
class Damage:
    """One way to damage the rich store.

    Args:
        do: Does it, given the manager.
        found: What a full check finds: (what, path) each.
        hidden: Of these, what a quick check does not look at.
        active: The version of `owl` that is active after a repair.
        versions: Its versions after a repair.
        left: What is still found after a repair: the kinds of what cannot be mended, or is left alone.
        reason: What the history of `owl` says of the repair; nothing where its state was true.

    """

    do: Callable[[VersionManager], Any]
    found: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...] = ()
    active: int | None = 2
    versions: tuple[int, ...] = (1, 2, 3, 4)
    left: tuple[str, ...] = ()
    reason: str = ""


def bad(*numbers, name=layout.TENSORS):
    """Return the findings of damaged versions of `owl`, each in one file."""
    return tuple((VERSION, version(number, name)) for number in numbers)


def lost(*generations):
    """Return the findings of damaged generations of `owl`."""
    return tuple((POINTER, pointer(generation)) for generation in generations)


def aside(*numbers):
    """Return what the history says of versions that were set aside."""
    return f"set aside as damaged: version{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


WEIGHTS, RECORD = layout.TENSORS, layout.RECORD
VERSION, POINTER, STATE, GAP = findings.VERSION, findings.POINTER, findings.STATE, findings.GAP
PLACE, FOREIGN, BACKBONE, REFUSED = findings.PLACE, findings.FOREIGN, findings.BACKBONE, findings.REFUSED
HEADS_OF_NOTHING = ((BACKBONE, f"{FOX}/versions/000001"), *((BACKBONE, version(number)) for number in (1, 2, 3, 4)))
CLAIMS = tuple((findings.CLAIM, f"{OWL}/claims/{number:06}") for number in (1, 2, 3, 4))
BACK = "version 2 is damaged or missing; version 3 is active again"
FELL = f"{aside(2)}; {BACK}"
NONE = "version 2 is damaged or missing; none is active: promote one"
UNPINNED = "no longer pinned: 4 (paper)"
LOST = f"{NONE}; no longer to be rolled back to: versions 1, 3; {UNPINNED}"
UNKNOWN = "what was active last is not known"
AS_BEFORE = f"damaged or missing: generation 4; {UNKNOWN}; as of generation 3, version 2 is active again"
STRAY = f"damaged or missing: generations 5 to 99999999; {UNKNOWN}; as of generation 4, version 2 is active again"
ALL_GONE = f"damaged or missing: generations 1 to 4; {UNKNOWN}; none is active: promote one"
NO_HISTORY = f"{UNKNOWN}; none is active: promote one"
BOTH = (
    f"{aside(2)}; damaged or missing: generation 4; {UNKNOWN}; "
    "version 2, active as of generation 3, is damaged or missing; version 3 is active again"
)
FEWER = (1, 3, 4)  # the versions after version 2 was set aside, whereupon version 3 is active again

VERSIONS = {
    "a flipped bit in the active version": Damage(
        flipped(version(2, WEIGHTS)), bad(2), (VERSION,), 3, FEWER, reason=FELL
    ),
    "a flipped bit in the version before": Damage(
        flipped(version(3, WEIGHTS)), bad(3), (VERSION,), 2, (1, 2, 4), reason=aside(3)
    ),
    "a flipped bit in the pinned version": Damage(
        flipped(version(4, WEIGHTS)), bad(4), (VERSION,), 2, (1, 2, 3), reason=f"{aside(4)}; {UNPINNED}"
    ),
    "the active version and the one before": Damage(
        flipped(version(2, WEIGHTS), version(3, WEIGHTS)), bad(2, 3), (VERSION,), 1, (1, 4),
        reason=f"{aside(2, 3)}; version 2 is damaged or missing; version 1 is active again",
    ),
    "all that could be gone back to": Damage(
        flipped(*(version(number, WEIGHTS) for number in (1, 2, 3))), bad(1, 2, 3), (VERSION,), None, (4,),
        reason=f"{aside(1, 2, 3)}; {NONE}",
    ),
    "a lost byte": Damage(cut(version(2, WEIGHTS)), bad(2), (), 3, FEWER, reason=FELL),
    "lost weights": Damage(gone(version(2, WEIGHTS)), bad(2), (), 3, FEWER, reason=FELL),
    "a linked file": Damage(linked(version(2, WEIGHTS)), bad(2), (), 3, FEWER, reason=FELL),
    "a damaged record": Damage(flipped(version(2, RECORD)), bad(2, name=RECORD), (), 3, FEWER, reason=FELL),
    "a damaged manifest": Damage(
        flipped(version(2, layout.MANIFEST)), ((VERSION, version(2)),), (), 3, FEWER, reason=FELL
    ),
    "a lost manifest": Damage(gone(version(2, layout.MANIFEST)), ((VERSION, version(2)),), (), 3, FEWER, reason=FELL),
    "an empty version": Damage(
        lambda manager: [gone(version(2))(manager), at(manager, version(2)).mkdir()],
        ((VERSION, version(2)),), (), 3, FEWER, reason=FELL,
    ),
    "a linked version": Damage(linked(version(2)), ((VERSION, version(2)),), (), 3, FEWER, reason=FELL),
    "a file in the place of a version": Damage(
        lambda manager: [gone(version(2))(manager), made(version(2))(manager)],
        ((VERSION, version(2)),), (), 3, FEWER, reason=FELL,
    ),
    "a version in the place of another": Damage(
        moved(version(4), version(2)),
        ((VERSION, version(2)), (STATE, pointer(4))), (), 3, (1, 3), reason=f"{FELL}; {UNPINNED}",
    ),
    "a lost version": Damage(gone(version(2)), ((STATE, pointer(4)),), (), 3, FEWER, reason=BACK),
    "a lost version before": Damage(
        gone(version(3)), ((STATE, pointer(4)),), (), 2, (1, 2, 4),
        reason="no longer to be rolled back to: version 3",
    ),
    "a lost pinned version": Damage(gone(version(4)), ((STATE, pointer(4)),), (), 2, (1, 2, 3), reason=UNPINNED),
    "all versions lost": Damage(
        gone(f"{OWL}/versions"), ((STATE, pointer(4)),) * 3, (), None, (), reason=LOST
    ),
    "an active version that was exchanged": Damage(
        exchanged, ((VERSION, version(2)),), (), 3, FEWER, reason=FELL
    ),
    "a file that nobody listed": Damage(made(version(2, "notes.txt")), ((findings.EXTRA, version(2, "notes.txt")),)),
    "a link that nobody listed": Damage(linked(version(2, "original")), ((findings.EXTRA, version(2, "original")),)),
    "a value that this version does not know": Damage(
        unknown_value, ((findings.CONTENT, version(5)),), versions=(1, 2, 3, 4, 5), left=(findings.CONTENT,)
    ),
}  # fmt: skip

POINTERS = {
    "a damaged newest generation": Damage(flipped(pointer(4), place=30), lost(4), reason=AS_BEFORE),
    "the two newest generations": Damage(
        flipped(pointer(4), pointer(3), place=30), lost(3, 4), (), 3,
        reason=f"damaged or missing: generations 3 to 4; {UNKNOWN}; as of generation 2, version 3 is active again",
    ),
    "a damaged older generation": Damage(
        flipped(pointer(1), place=30), lost(1), reason="damaged or missing: generation 1"
    ),
    "every generation": Damage(
        flipped(*map(pointer, range(1, 5)), place=30), lost(1, 2, 3, 4), (), None, reason=ALL_GONE
    ),
    "an empty generation": Damage(lambda manager: rewrite(at(manager, pointer(4)), b""), lost(4), reason=AS_BEFORE),
    "a generation of another number": Damage(
        lambda manager: rewrite(at(manager, pointer(4)), at(manager, pointer(3)).read_bytes()),
        lost(4), reason=AS_BEFORE,
    ),
    "a linked generation": Damage(linked(pointer(4)), lost(4), reason=AS_BEFORE),
    "a folder in the place of a generation": Damage(
        lambda manager: [gone(pointer(4))(manager), at(manager, pointer(4)).mkdir()], lost(4), reason=AS_BEFORE
    ),
    "a stray generation": Damage(
        made(pointer(99_999_999)), (*lost(99_999_999), (GAP, pointer(5))), reason=STRAY
    ),
    "a stray generation of the last number": Damage(
        made(pointer(999_999_999)), (*lost(999_999_999), (GAP, pointer(5)))
    ),
    "a lost history": Damage(
        gone(f"{OWL}/pointer"), ((GAP, f"{OWL}/pointer"),), (), None, reason=NO_HISTORY
    ),
    "an empty history": Damage(
        gone(*map(pointer, range(1, 5))), ((GAP, f"{OWL}/pointer"),), (), None, reason=NO_HISTORY
    ),
    "a lost generation": Damage(gone(pointer(2)), ((GAP, pointer(2)),), reason="damaged or missing: generation 2"),
    "lost generations": Damage(
        gone(pointer(2), pointer(3)), ((GAP, pointer(2)),), reason="damaged or missing: generations 2 to 3"
    ),
    "a lost first generation": Damage(
        gone(pointer(1)), ((GAP, pointer(1)),), reason="damaged or missing: generation 1"
    ),
    "two gaps": Damage(
        gone(pointer(1), pointer(3)), ((GAP, pointer(1)), (GAP, pointer(3))),
        reason="damaged or missing: generation 1, generation 3",
    ),
    "a lost and a damaged generation": Damage(
        lambda manager: [gone(pointer(2))(manager), flipped(pointer(4), place=30)(manager)],
        (*lost(4), (GAP, pointer(2))), (), 2, reason=AS_BEFORE.replace("generation 4", "generation 2, generation 4"),
    ),
    "a damaged generation and a damaged version": Damage(
        flipped(pointer(4), version(2, RECORD), place=30), (*bad(2, name=RECORD), *lost(4)), (), 3, FEWER, reason=BOTH
    ),
}  # fmt: skip

PLACES = {
    "versions that are a link": Damage(
        linked(f"{OWL}/versions"), ((PLACE, f"{OWL}/versions"),), (), None, (), reason=LOST
    ),
    "a pointer that is a link": Damage(
        linked(f"{OWL}/pointer"), ((PLACE, f"{OWL}/pointer"),), (), None, reason=NO_HISTORY
    ),
    "a head that was moved": Damage(linked(OWL), ((PLACE, OWL),), (), None, ()),
    "claims that are a link": Damage(linked(f"{OWL}/claims"), ((PLACE, f"{OWL}/claims"), *CLAIMS)),
    "a head that is a file": Damage(made("heads/wolf"), ((PLACE, "heads/wolf"),)),
    "a head that is a link": Damage(linked("heads/wolf"), ((PLACE, "heads/wolf"),)),
    "locks that are a link": Damage(linked("locks"), ((PLACE, "locks"),)),
    "a lock that is a link": Damage(linked("locks/heads.owl.lock"), ((PLACE, "locks/heads.owl.lock"),)),
    "a staging folder that is a link": Damage(linked("tmp"), ((PLACE, "tmp"),)),
    "a head's staging folder that is a link": Damage(linked(STAGING), ((PLACE, STAGING),)),
    "a quarantine that is a link": Damage(linked("quarantine"), ((PLACE, "quarantine"),), left=(FOREIGN,)),
    "a head's quarantine that is a file": Damage(made(f"{OWL}/quarantine"), ((PLACE, f"{OWL}/quarantine"),)),
    "a lost claim": Damage(gone(f"{OWL}/claims/000003"), ((findings.CLAIM, f"{OWL}/claims/000003"),)),
    "lost claims": Damage(gone(f"{OWL}/claims"), CLAIMS),
    "a damaged index": Damage(made("registry.json", b"{"), ((findings.INDEX, "registry.json"),)),
    "an index that is a folder": Damage(made("registry.json/file"), ((findings.INDEX, "registry.json"),)),
    "an index that is a link": Damage(linked("registry.json"), ((findings.INDEX, "registry.json"),)),
    "a leftover": Damage(left_behind("tmp"), ((findings.LEFTOVER, "tmp/*"),)),
    "a leftover of a head": Damage(left_behind(STAGING), ((findings.LEFTOVER, f"{STAGING}/*"),)),
    "an unfinished pruning": Damage(unfinished, ((findings.UNFINISHED, version(1)),), (), 2, (2, 3, 4)),
    "a file in the store": Damage(made("README"), ((FOREIGN, "README"),), left=(FOREIGN,)),
    "a file in a head": Damage(made(f"{OWL}/README"), ((FOREIGN, f"{OWL}/README"),), left=(FOREIGN,)),
    "a folder among the versions": Damage(
        made(f"{OWL}/versions/7/file"), ((FOREIGN, f"{OWL}/versions/7"),), left=(FOREIGN,)
    ),
    "a file among the generations": Damage(
        made(f"{OWL}/pointer/5.json"), ((FOREIGN, f"{OWL}/pointer/5.json"),), left=(FOREIGN,)
    ),
    "a head of no name": Damage(made("heads/O W L/file"), ((FOREIGN, "heads/O W L"),), left=(FOREIGN,)),
    "a store that everybody may write": Damage(
        lambda manager: manager.store.root.chmod(0o777), ((FOREIGN, "."),), left=(FOREIGN,)
    ),
}  # fmt: skip

BACKBONES = {
    "a lost backbone": Damage(gone("backbones"), HEADS_OF_NOTHING, left=(BACKBONE,)),
    "a damaged backbone": Damage(
        flipped(f"backbones/demo/versions/000001/{WEIGHTS}"),
        ((VERSION, f"backbones/demo/versions/000001/{WEIGHTS}"), *HEADS_OF_NOTHING),
        (VERSION, BACKBONE), left=(BACKBONE,),
    ),
    "a backbone whose state is damaged": Damage(
        flipped("backbones/demo/pointer/00000001.json", place=30),
        ((POINTER, "backbones/demo/pointer/00000001.json"), *HEADS_OF_NOTHING),
    ),
    "a backbone that is a link": Damage(
        linked("backbones/demo"), ((PLACE, "backbones/demo"), *HEADS_OF_NOTHING), left=(BACKBONE,)
    ),
    "a backbone that was cut off": Damage(
        cut_off, ((findings.UNUSED, "backbones/second/versions"),), left=(findings.UNUSED,)
    ),
    "a head of other settings": Damage(
        other_settings, ((BACKBONE, version(5)),), (), 2, (1, 2, 3, 4, 5), left=(BACKBONE,)
    ),
}  # fmt: skip

NEWER = {
    "a manifest of a newer format": Damage(reworded(version(2, layout.MANIFEST), format=2), ((REFUSED, version(2)),)),
    "a record of a newer schema": Damage(newer_schema, ((REFUSED, version(5)),)),
    "a generation of a newer format": Damage(reworded(pointer(4), format=2), ((REFUSED, pointer(4)),)),
    "a change that is not known": Damage(reworded(pointer(4), {"what": "blessed"}), ((REFUSED, pointer(4)),)),
    "an older change that is not known": Damage(reworded(pointer(2), {"what": "blessed"}), ((REFUSED, pointer(2)),)),
    "a state of other kinds": Damage(reworded(pointer(4), active="two"), ((REFUSED, pointer(4)),)),
}
"""What is no damage: a later version of the library may have written it."""

DAMAGES = {**VERSIONS, **POINTERS, **PLACES, **BACKBONES}
