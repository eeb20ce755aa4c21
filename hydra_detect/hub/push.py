"""`push` and `push_backbone`: from a store to a Hub, as one commit with a tag.

What leaves is what the store holds, seen to be whole. It says where its backbone and its reference lie, by commit, and
which they are, by digest. File names of samples and paths of this machine stay here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.arriving import name_in
from hydra_detect.data.splits import Split
from hydra_detect.errors import InputError, NotFoundError
from hydra_detect.hub import cards, documents, layout, origins, receiving, signing
from hydra_detect.hub.cards import About
from hydra_detect.hub.client import Hub
from hydra_detect.hub.documents import BackboneConfig, Glance, HeadConfig, Place
from hydra_detect.hub.receiving import Beside
from hydra_detect.hub.refs import HubRef
from hydra_detect.hub.releasing import Upload, release
from hydra_detect.hub.snapshots import Snapshot
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import Metrics
from hydra_detect.names import Digest, HeadRef
from hydra_detect.storage import backbones, files, heads, manifests, references
from hydra_detect.storage import layout as stored
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from hydra_detect.records import VersionRecord


@attrs.frozen(kw_only=True)
class Pushed:
    """A release that is on a Hub.

    Args:
        ref: What to pull: "org/hydra-whistle@v3".
        commit: The commit that made it.
        url: Its page.
        is_new: Whether it was made now; the same release may have been there before.

    """

    ref: HubRef
    commit: str
    url: str
    is_new: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"ref": str(self.ref), "commit": self.commit, "url": self.url, "is_new": self.is_new}

    def __str__(self) -> str:
        """Return one line: what to pull, and where it is."""
        return f"{self.ref} is {'' if self.is_new else 'there already, '}at {self.url}, commit {self.commit[:12]}"


def push(  # noqa: PLR0913  each is a question of its own that a user may have
    store: str | os.PathLike[str] | Store,
    head: str,
    repo: str,
    *,
    version: int | None = None,
    private: bool = False,
    message: str = "",
    about: About | None = None,
    needs: Iterable[str] = (),
    sign_with: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Publish one version of a head: one commit with all of it, and a tag; version 3 becomes release v3.

    A release is published once. The same again is found to be there; another one under its number is an error, and of
    two who publish at the same moment one is told that. Run again after an error, it goes on where it was. The first
    release of a repository is in production there; later ones are put there by `promote_release`.

    Args:
        store: The store, or its path.
        head: Name of the head.
        repo: "org/repo" for a repository of this head alone, "org/pack/name" for one of many.
        version: Number of the version; None for the active one.
        private: Whether a repository that is made for it is to be seen by its owners alone.
        message: Title of the commit.
        about: What the card is to say that no record does: licence, data, description, a picture.
        needs: Where the backbone lies, and what a compact head leans on: "org/backbone", "org/hydra-cells@v1". Left
            out, where they were pushed to or pulled from.
        sign_with: File with the private key to sign it with (extra signing): an elliptic curve's, as PEM.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NameInvalidError: If a name is not allowed.
        NotFoundError: If the store has no such head or version, or it is not known where its backbone or reference
            lies: push those first.
        CorruptError: If the version is damaged.
        ConflictError: If the number belongs to another release, or the repository to something else.
        InputError: If the key is none, or the endpoint is neither https nor on this machine.
        ExtraMissingError: If it is to be signed, and model-signing is not installed.
        HubError: If this login may not, or there was no answer.

    """
    store, target, hub = Store.open(store), _target(repo), Hub(endpoint)
    found = heads.whole(store.head(head), heads.find(store, HeadRef(head, version)).number)
    config, contents, beside = _release_of(store, hub, found, needs)
    backbone = name_in(store, found.record.backbone, likely=found.record.backbone_name)
    about = (about or About()).drawn(store, found.ref, backbone)
    text = codec.encode(config, limit=layout.LIMITS[layout.CONFIG])
    glance = Glance(
        release=config.release,
        class_names=config.record.class_names,
        backbone=config.record.backbone.digest,
        nbytes=config.files[layout.TENSORS][0],
    )
    upload = Upload(
        target=target,
        number=config.release,
        config=files.sha256(text),
        contents={**_signed({layout.CONFIG: text, **contents}, sign_with), **about.files()},
        card=cards.of_head(config, beside, target, about),
        glance=glance if target.head else None,
        title=message or f"{config.name}: release v{config.release}",
    )
    return _pushed(store, hub, upload, private=private, digest=config.record.tensors)


def push_backbone(
    store: str | os.PathLike[str] | Store,
    backbone: str,
    repo: str,
    *,
    private: bool = False,
    message: str = "",
    about: About | None = None,
    sign_with: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Publish a backbone, as release v1 of a repository: it has one content for ever.

    Args:
        store: The store, or its path.
        backbone: Its name.
        repo: "org/repo".
        private: As for `push`.
        message: As for `push`.
        about: As for `push`.
        sign_with: As for `push`.
        endpoint: As for `push`.

    Raises:
        NameInvalidError: If a name is not allowed, or `repo` names a head in a pack.
        NotFoundError: If the store has no such backbone.
        CorruptError: If it is damaged.
        ConflictError: If the repository belongs to something else.
        HubError: If this login may not, or there was no answer.

    """
    store, target, hub = Store.open(store), _target(repo), Hub(endpoint)
    if target.head:
        raise InputError(f"push backbone {backbone!r} to {repo}", "that is a head in a pack", "Name a repository.")
    found = backbones.find(store, backbone)
    item = store.backbone(backbone)
    contents = {layout.TENSORS: item.read(found.manifest, stored.TENSORS)}
    record = found.record
    config = BackboneConfig(name=backbone, record=record, files=manifests.listing_of(contents))
    text = codec.encode(config, limit=layout.LIMITS[layout.CONFIG])
    upload = Upload(
        target=target,
        number=config.release,
        config=files.sha256(text),
        contents={**_signed({layout.CONFIG: text, **contents}, sign_with), **(about or About()).files()},
        card=cards.of_backbone(config, target, about or About()),
        title=message or f"{backbone}: release v{config.release}",
        kind=documents.BACKBONE,
    )
    return _pushed(store, hub, upload, private=private, digest=record.tensors)


def _target(repo: str) -> HubRef:
    ref = HubRef.parse(repo)
    if ref.revision:
        found = "a release has the number of its version, and its tag is made from that"
        raise InputError(f"publish to {ref}", found, f"Name '{attrs.evolve(ref, revision='')}' alone.")
    return ref


def _pushed(store: Store, hub: Hub, upload: Upload, *, private: bool, digest: Digest) -> Pushed:
    target = upload.target
    hub.create(target.repo, private=private)
    commit, is_new = release(hub, upload)
    origins.remember(store, hub.endpoint, digest, Place(repo=target.repo, commit=commit, head=target.head))
    ref = attrs.evolve(target, revision=f"v{upload.number}")
    url = f"{hub.endpoint}/{target.repo}"
    return Pushed(
        ref=ref, commit=commit, url=f"{url}/tree/{commit}/{layout.folder_of(target.head)}".rstrip("/"), is_new=is_new
    )


def _signed(contents: dict[str, bytes], key: str | os.PathLike[str] | None) -> dict[str, bytes]:
    """Return the files of a release, with the signature over them if there is a key."""
    return contents if key is None else {**contents, layout.SIGNATURE: signing.sign(contents, key)}


def _release_of(
    store: Store, hub: Hub, version: VersionRecord, needs: Iterable[str]
) -> tuple[HeadConfig, dict[str, bytes], Beside]:
    """Return the config of a version as a release, its other files, and what lies beside it."""
    record, asked = version.record, f"publish {version.ref}"
    backbones.check_holds(store, record.backbone, asked)
    given, leant = _places(hub, needs), None
    if record.compact:
        own = references.find(store, record, asked)
        leant = _place_of(store, hub, own.record.tensors, given, f"the reference {own.ref}")
    name = name_in(store, record.backbone, likely=record.backbone_name)
    place = _place_of(store, hub, record.backbone.digest, given, f"backbone {name!r}")
    beside = Beside(
        split=_anonymous(_read(store, version, stored.SPLIT, Split)),
        evaluation=_read(store, version, stored.EVALUATION, Metrics),
        calibration=_read(store, version, stored.CALIBRATION, Calibration),
    )
    contents = {
        layout.TENSORS: store.head(version.head).read(version, stored.TENSORS),
        layout.BESIDE: codec.encode(beside, limit=layout.LIMITS[layout.BESIDE]),
    }
    config = HeadConfig(
        name=version.head,
        release=version.number,
        record=record,
        backbone=place,
        reference=leant,
        files=manifests.listing_of(contents),
    )
    return config, contents, beside


def _places(hub: Hub, needs: Iterable[str]) -> dict[Digest, Place]:
    """Return where weights lie, by their digest, as somebody said it and it was seen to be."""
    found = {}
    for text in needs:
        ref = HubRef.parse(text)
        snapshot = Snapshot(hub, ref.repo, hub.commit_of(ref.repo, ref.tag))
        there = receiving.identified(snapshot, ref.head)
        found[there.config.record.tensors] = there.place
    return found


def _place_of(store: Store, hub: Hub, digest: Digest, given: Mapping[Digest, Place], what: str) -> Place:
    """Return where weights lie: as it was said just now, or as it is remembered, and still so.

    Raises:
        NotFoundError: If neither is.

    """
    remembered = None if digest in given else origins.where(store, hub.endpoint, digest)
    if remembered:
        with contextlib.suppress(NotFoundError):  # it was there once
            there = receiving.identified(Snapshot(hub, remembered.repo, remembered.commit), remembered.head)
            if there.config.record.tensors == digest:
                return remembered
    if digest not in given:
        remedy = "Push it first (push, push_backbone), or say where it lies: needs=['org/repo']."
        raise NotFoundError(f"publish what needs {what}", f"it is not known where on {hub.endpoint} that lies", remedy)
    return given[digest]


def _read(store: Store, version: VersionRecord, name: str, kind: type[Any]) -> Any:
    if name not in version.files:
        return None
    data = store.head(version.head).read(version, name)
    return codec.decode(kind, data, f"{name} of {version.ref}", limit=codec.MAX_LIST_BYTES)


def _anonymous(split: Split | None) -> Split | None:
    """Return a split whose samples are called by the digests of their pictures: names may say who somebody is."""
    if split is None:
        return None
    called: dict[str, str] = {}
    rows = []
    for one in split.samples:
        name = called.setdefault(one.id, f"{one.picture.short}-{len(called)}")
        group = name if one.group == one.id else f"group-{files.sha256(one.group.encode()).short}"
        rows.append(attrs.evolve(one, id=name, group=group))
    return attrs.evolve(split, samples=tuple(rows))
