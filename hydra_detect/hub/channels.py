"""Which release of a repository is in production: a file in its tree, changed by one commit, never a moved tag."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.errors import ConflictError, HubError, NameInvalidError, NotFoundError, listed_numbers
from hydra_detect.hub import client, layout, refs
from hydra_detect.hub.client import Hub
from hydra_detect.hub.documents import Channels, Releases
from hydra_detect.hub.ignoring import check_takes_all
from hydra_detect.hub.refs import HubRef
from hydra_detect.hub.snapshots import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TRIES = 10
_MOST_PREVIOUS = 1_000


def promote_release(ref: str | HubRef, *, endpoint: str | None = None) -> Channels:
    """Put a release into production: what is pulled where no revision is named.

    Args:
        ref: "org/hydra-whistle@v3", "org/pack/whistle@v3".
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Returns:
        What is in production now, and what was before.

    Raises:
        NameInvalidError: If the reference names no release.
        NotFoundError: If there is no such repository or release, or its tag is gone.
        ConflictError: If somebody else changes it at the same time, or a .gitignore there would leave it out.
        CorruptError: If a document there is damaged.
        RecordError: If a document there has a key that there is not.
        InputError: If the endpoint is neither https nor on this machine.
        HubError: If this login may not, or there was no answer.

    """
    wanted, asked, hub = HubRef.parse(ref), f"put {ref} into production", Hub(endpoint)
    number = wanted.release
    if number is None:
        raise NameInvalidError(asked, "it names no release", f"Write it as '{attrs.evolve(wanted, revision='v3')}'.")

    def step(releases: Releases, before: Channels | None) -> Channels:
        if releases.get(number) is None:
            there = listed_numbers(map(int, releases.releases)) or "none"
            raise NotFoundError(asked, f"there is no release {number}", f"There are: {there}.")
        if wanted.tag not in hub.tags(wanted.repo):
            raise NotFoundError(
                asked, f"the release has lost its tag {wanted.tag}", "Push it again, which gives it that."
            )
        if before is None:
            return Channels(production=number)
        if before.production == number:
            return before
        return Channels(production=number, previous=(before.production, *before.previous)[:_MOST_PREVIOUS])

    return _changed(hub, wanted, step, asked)


def rollback_release(ref: str | HubRef, *, endpoint: str | None = None) -> Channels:
    """Put that release into production again which was before.

    Args:
        ref: "org/hydra-whistle", "org/pack/whistle".
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Returns:
        What is in production now, and what was before.

    Raises:
        NameInvalidError: If it is no reference, or names a revision.
        NotFoundError: If there is no such repository, or nothing was in production before.
        ConflictError: If somebody else changes it at the same time, or a .gitignore there would leave it out.
        CorruptError: If a document there is damaged.
        RecordError: If a document there has a key that there is not.
        InputError: If the endpoint is neither https nor on this machine.
        HubError: If this login may not, or there was no answer.

    """
    wanted, asked = HubRef.parse(ref), f"roll back {ref}"
    if wanted.revision:
        remedy = (
            f"Name '{attrs.evolve(wanted, revision='')}' alone; promote_release puts a release there by its number."
        )
        raise NameInvalidError(asked, "a rollback goes to what was in production before, and to no other", remedy)

    def step(_releases: Releases, before: Channels | None) -> Channels:
        if before is None or not before.previous:
            raise NotFoundError(asked, "nothing was in production before", "Name a release, with promote_release.")
        return Channels(production=before.previous[0], previous=before.previous[1:])

    return _changed(Hub(endpoint), wanted, step, asked)


def _changed(hub: Hub, wanted: HubRef, step: Callable[[Releases, Channels | None], Channels], asked: str) -> Channels:
    """Write what a step makes of the channels, seen once; whatever else became of them meanwhile is left alone.

    Raises:
        ConflictError: If somebody else changed them, or a .gitignore there would leave them out.

    """
    folder, pauses, seen, after = layout.folder_of(wanted.head), iter(client.PAUSES), None, None
    path = layout.path_of(folder, layout.CHANNELS)
    for _ in range(MOST_TRIES):
        snapshot = Snapshot(hub, wanted.repo, hub.commit_of(wanted.repo))
        before = snapshot.document(Channels, path)
        if after is None:
            releases = snapshot.document(Releases, layout.path_of(folder, layout.RELEASES)) or Releases()
            seen, after = before, step(releases, before)
        if before == after:  # it was so, or the answer was lost and the commit is there
            return after
        if before != seen:
            raise ConflictError(asked, "somebody else changed what is in production meanwhile", "Look, then repeat it.")
        check_takes_all(snapshot, folder, asked)
        title = f"{refs.tag_of(wanted.head, after.production)} in production"
        try:
            hub.commit(wanted.repo, {path: codec.encode(after)}, parent=snapshot.commit, title=title, text="")
        except HubError as error:
            time.sleep(client.pause_after(error, pauses))
        else:
            return after
    raise ConflictError(asked, f"others changed it {MOST_TRIES} times meanwhile", "Run it again when it is quieter.")
