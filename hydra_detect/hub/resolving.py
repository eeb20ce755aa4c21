"""What a reference means: at which commit it is just now, and whether that is what it was published and pulled as."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from hydra_detect.errors import ConflictError, NotFoundError
from hydra_detect.hub import layout, origins, refs, signing
from hydra_detect.hub.documents import BackboneConfig, Channels, HeadConfig, Place, Releases
from hydra_detect.hub.snapshots import Snapshot

if TYPE_CHECKING:
    from hydra_detect.hub.client import Hub
    from hydra_detect.hub.receiving import Opened
    from hydra_detect.hub.refs import HubRef
    from hydra_detect.storage.store import Store


def located(hub: Hub, wanted: HubRef) -> tuple[HubRef, Place]:
    """Return what is asked for, the release in production if no revision is, and the commit that it is just now."""
    if not wanted.revision:
        snapshot = Snapshot(hub, wanted.repo, hub.commit_of(wanted.repo))
        folder = layout.folder_of(wanted.head)
        channels = snapshot.document(Channels, layout.path_of(folder, layout.CHANNELS))
        if channels is None:
            return wanted, Place(repo=wanted.repo, commit=snapshot.commit, head=wanted.head)
        wanted = attrs.evolve(wanted, revision=f"v{channels.production}")
    return wanted, Place(repo=wanted.repo, commit=hub.commit_of(wanted.repo, wanted.tag), head=wanted.head)


def check_tag(asked: HubRef, release: Opened[HeadConfig] | Opened[BackboneConfig], what: str) -> None:
    """See that the tag of a release, if one is asked for, stands at that release.

    Raises:
        ConflictError: If not.

    """
    if asked.release is None:
        return
    number = release.config.release
    listed = release.snapshot.document(Releases, layout.path_of(release.place.folder, layout.RELEASES)) or Releases()
    own = listed.get(asked.release)
    if number != asked.release or own is None or own.config != release.digest:
        found = f"what the tag {asked.tag} stands at is not what {layout.RELEASES} lists as that release"
        if number != asked.release:
            found = f"the tag {asked.tag} stands at release {number}"
        raise ConflictError(what, found, "Somebody moved it: ask whoever published it, or name the commit.")


def is_the_release(hub: Hub, place: Place) -> bool:
    """Whether a commit is the one that the tag of a backbone's only release stands at.

    What a commit says of itself is no answer: anybody may propose one.
    """
    with contextlib.suppress(NotFoundError):
        return hub.commit_of(place.repo, refs.tag_of(place.head, 1)) == place.commit
    return False


def check_age(store: Store, hub: Hub, wanted: HubRef, asked: HubRef, number: int, *, allow_older: bool) -> None:
    """See that nobody is led back to an older release than he had, be it one that he still has.

    Whoever names an older one gets it, and whoever asks for what is in production, which may have been rolled back;
    from a namespace that is held to a key, only if that is allowed, too: who replays an old signed release has no other
    way.

    Args:
        store: Where it is remembered what was pulled.
        hub: The Hub.
        wanted: What was asked for.
        asked: What that means: the release in production, if no revision was named.
        number: Of the release that it leads to.
        allow_older: Whether an older one is allowed.

    Raises:
        ConflictError: If it is older.

    """
    is_held = signing.pinned_key(wanted.repo) is not None
    newest = origins.newest_release(store, hub.endpoint, asked, is_held=is_held)
    is_on_purpose = allow_older or (not is_held and (wanted.is_fixed or not wanted.revision))
    if number < newest and not is_on_purpose:
        found = f"that is release {number} now, and {newest} was pulled before"
        named = "" if is_held else f" name it ('{attrs.evolve(wanted, revision=f'v{number}')}'), or"
        remedy = f"To go back on purpose,{named} pull it with allow_older=True (--allow-older)."
        raise ConflictError(f"pull {wanted}", found, remedy)
