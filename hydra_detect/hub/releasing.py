"""One release, one commit: whether a number is taken, and taking it, is one compare-and-swap on the main branch.

A commit names the one that it builds on. If the branch has moved on, all is read again and tried again. If the answer
is lost, it is looked up whether the commit is there: so there is exactly one, or an error and none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.errors import ConflictError, HubError, listed
from hydra_detect.hub import cards, client, layout, refs
from hydra_detect.hub.documents import HEAD, Channels, Glance, Index, Release, Releases
from hydra_detect.hub.ignoring import check_takes_all
from hydra_detect.hub.snapshots import Snapshot
from hydra_detect.records import utc_now
from hydra_detect.storage import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.hub.client import Hub
    from hydra_detect.hub.refs import HubRef
    from hydra_detect.names import Digest

MOST_TRIES = 40
"""How often others may be first: of eight who publish into one pack at once the last has seven before it."""


@attrs.frozen(kw_only=True)
class Upload:
    """What is to be published.

    Args:
        target: The repository, and which head of a pack; its revision is not looked at.
        number: Of the release.
        contents: Its files by name, config.json among them, without the card.
        card: Its README.md.
        glance: What the index of a pack says of it; None for a repository of one.
        title: Of the commit.
        kind: Of a head, or of a backbone.

    """

    target: HubRef
    number: int
    contents: Mapping[str, bytes] = attrs.field(repr=False)
    card: bytes = attrs.field(repr=False)
    glance: Glance | None = None
    title: str
    kind: str = HEAD

    @property
    def config(self) -> Digest:
        """SHA-256 of its config.json: what tells it from every other release."""
        return files.sha256(self.contents[layout.CONFIG])

    @property
    def tag(self) -> str:
        """The tag of the release."""
        return refs.tag_of(self.target.head, self.number)

    def at(self, name: str) -> str:
        """Return the path of one of its files."""
        return layout.path_of(layout.folder_of(self.target.head), name)


def release(hub: Hub, upload: Upload) -> tuple[str, bool]:
    """Publish a release as one commit, and tag it; run again after an error, it goes on where it was.

    Returns:
        The commit, and whether it was made now: the same release may have been there before.

    Raises:
        ConflictError: If the number, a higher one or the repository belongs to something else, or a .gitignore there
            would leave files of it out.
        HubError: If this login may not, or there was no answer; `remedy` says what may have happened.

    """
    commit, is_new = _committed(hub, upload)
    hub.tag(upload.target.repo, upload.tag, commit)
    return commit, is_new


def _committed(hub: Hub, upload: Upload) -> tuple[str, bool]:
    repo, pauses, was_tried = upload.target.repo, iter(client.PAUSES), False
    for _ in range(MOST_TRIES):
        tagged = hub.tags(repo).get(upload.tag)  # first: what has a tag by now is in the commit looked at next
        snapshot = Snapshot(hub, repo, hub.commit_of(repo))
        releases = _releases(snapshot, upload)
        is_there = releases.get(upload.number) is not None
        if tagged and not is_there:
            found = f"the tag {upload.tag} stands at {tagged[:12]} already, and no release of that number is there"
            raise ConflictError(f"publish {upload.tag} in {repo}", found, "See who gave it; delete it, or go on.")
        if is_there:
            _check_signed(snapshot, upload)
        contents = _unmarked(snapshot, upload) if is_there else _contents(snapshot, upload, releases)
        if not contents:
            return _where(hub, upload, tagged), was_tried
        check_takes_all(snapshot, layout.folder_of(upload.target.head), f"publish {upload.tag} in {repo}")
        text = "" if is_there else _text(upload)  # by which the commit of a release is known
        try:
            made = hub.commit(repo, contents, parent=snapshot.commit, title=upload.title, text=text)
        except HubError as error:
            was_tried = was_tried or (not is_there and bool(error.facts.get("is_uncertain")))
            time.sleep(client.pause_after(error, pauses))
        else:
            if not is_there:
                return made, True
    found = f"others changed it {MOST_TRIES} times meanwhile"
    raise HubError(f"publish {upload.tag} in {repo}", found, "Run it again when it is quieter there.")


def _check_signed(snapshot: Snapshot, upload: Upload) -> None:
    """See that a release which is there is signed if it was to be: what is published is not changed any more."""
    if layout.SIGNATURE in upload.contents and snapshot.listed(upload.at(layout.SIGNATURE)) is None:
        found = "it is there already, and not signed"
        raise ConflictError(f"sign {upload.tag} in {upload.target.repo}", found, "Make a new version, and sign that.")


def _text(upload: Upload) -> str:
    return f"Release {upload.tag}, config {upload.config}"


def _releases(snapshot: Snapshot, upload: Upload) -> Releases:
    """Return the releases so far, if this one can be one of them.

    Raises:
        ConflictError: If it cannot, or the repository holds something else.

    """
    asked = f"publish {upload.tag} in {upload.target.repo}"
    _check_kind(snapshot, upload, asked)
    releases = snapshot.document(Releases, upload.at(layout.RELEASES))
    if releases is None:
        foreign = [name for name in upload.contents if snapshot.listed(upload.at(name)) is not None]
        if foreign:
            found = f"it holds {listed(foreign)}, and no {layout.RELEASES}: it was not made by hydra-detect"
            raise ConflictError(asked, found, "Publish into a repository of its own.")
        return Releases(kind=upload.kind)
    there = releases.get(upload.number)
    if there and there.config != upload.config:
        found = f"it has one already, made {there.created_at}, which is another"
        raise ConflictError(asked, found, "A release is published once: make a new version, and publish that.")
    if not there and releases.newest > upload.number:
        found = f"release {releases.newest} is there already"
        raise ConflictError(asked, found, "Releases only go up: make a new version, and publish that.")
    return releases


def _check_kind(snapshot: Snapshot, upload: Upload, asked: str) -> None:
    """See that a repository of one head, of a backbone, and a pack of many stay what they are."""
    target, top = upload.target, snapshot.document(Releases, layout.RELEASES)
    is_pack = snapshot.listed(layout.INDEX) is not None
    if is_pack and not target.head and upload.kind == HEAD:
        raise ConflictError(asked, "it is a pack of many heads", f"Say as which one: '{target.repo}/NAME'.")
    if target.head and top and top.kind == HEAD:
        raise ConflictError(asked, "it is a repository of one head", f"Publish as '{target.repo}', or elsewhere.")
    if not target.head and top and top.kind != upload.kind:
        raise ConflictError(asked, f"it is the repository of a {top.kind}", "Publish into a repository of its own.")


def _contents(snapshot: Snapshot, upload: Upload, releases: Releases) -> dict[str, bytes]:
    """Return every file of the commit by path: the release, and the documents that tell of it."""
    now = Release(config=upload.config, created_at=utc_now(), card=client.blob_of(upload.card))
    found = {upload.at(name): data for name, data in upload.contents.items()}
    found[upload.at(layout.RELEASES)] = codec.encode(releases.having(upload.number, now))
    if upload.kind == HEAD and snapshot.listed(upload.at(layout.CHANNELS)) is None:
        found[upload.at(layout.CHANNELS)] = codec.encode(Channels(production=upload.number))
    found |= _card(snapshot, upload, releases)
    return found | (_indexed(snapshot, upload.target, upload.glance) if upload.glance else {})


def _card(snapshot: Snapshot, upload: Upload, releases: Releases) -> dict[str, bytes]:
    """Return the card, unless somebody has edited the one that is there: what people wrote is not written over."""
    there, newest = snapshot.listed(upload.at(layout.CARD)), releases.get(releases.newest)
    is_edited = there is not None and (newest is None or there.blob != newest.card)
    return {} if is_edited else {upload.at(layout.CARD): upload.card}


def _indexed(snapshot: Snapshot, target: HubRef, glance: Glance) -> dict[str, bytes]:
    """Return the index of a pack with a head as it is now, and the card at its top, unless somebody has edited that."""
    index = snapshot.document(Index, layout.INDEX) or Index()
    before = index.heads.get(target.head)
    if before and not before.is_reference:  # a head of its own stays one, whatever else leans on it
        glance = attrs.evolve(glance, is_reference=False)
    there, heads = snapshot.listed(layout.CARD), {**index.heads, target.head: glance}
    top = snapshot.document(Releases, layout.RELEASES)  # of the backbone, where that lies in the same repository
    newest = top and top.get(top.newest)
    written = index.card or (newest.card if newest else client.blob_of(cards.of_pack(target.repo, index.heads)))
    is_ours = there is None or there.blob == written
    of_backbone = cards.of_whole(snapshot.read(layout.CARD), heads) if there and newest and is_ours else None
    if not is_ours or (there and newest and of_backbone is None):
        return {layout.INDEX: codec.encode(attrs.evolve(index, heads=heads))}
    card = of_backbone or cards.of_pack(target.repo, heads)
    index = attrs.evolve(index, heads=heads, card=client.blob_of(card))
    return {layout.INDEX: codec.encode(index), layout.CARD: card}


def _unmarked(snapshot: Snapshot, upload: Upload) -> dict[str, bytes]:
    """Return the index of a pack in which a head that was there for others to lean on is one of its own by now."""
    index = snapshot.document(Index, layout.INDEX) if upload.glance else None
    there = index and index.heads.get(upload.target.head)
    if not (index and there and upload.glance) or not there.is_reference or upload.glance.is_reference:
        return {}
    own = attrs.evolve(there, is_reference=False)
    return {layout.INDEX: codec.encode(attrs.evolve(index, heads={**index.heads, upload.target.head: own}))}


def _where(hub: Hub, upload: Upload, tagged: str | None) -> str:
    """Return the commit of a release that is there: that of its tag if it is that, else the one that says it made it.

    Raises:
        HubError: If neither can be found: its history was rewritten.

    """
    repo = upload.target.repo
    if tagged:
        there = Snapshot(hub, repo, tagged).listed(upload.at(layout.CONFIG))
        if there and there.blob == client.blob_of(upload.contents[layout.CONFIG]):
            return tagged
    made = next((commit for commit, text in hub.commits(repo) if _text(upload) in text), None)
    if made:
        return made
    found = f"{layout.RELEASES} has it, and no commit of its history says that it made it"
    raise HubError(f"publish {upload.tag} in {repo}", found, "See who rewrote its history.")
