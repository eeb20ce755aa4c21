"""`push` and `push_backbone`: from a store to a Hub, as one commit with a tag.

What leaves is what the store holds, seen to be whole. It says where its backbone and its reference lie, by commit, and
which they are, by digest. File names of samples and paths of this machine stay here.
"""

from __future__ import annotations

import contextlib
import re
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
from hydra_detect.names import HeadRef
from hydra_detect.storage import backbones, heads, manifests, references
from hydra_detect.storage import layout as stored
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from hydra_detect.names import Digest
    from hydra_detect.records import BackboneRecord, HeadRecord, VersionRecord

_WHO = re.compile(r", made \S+ by [^;]*")
"""What the notes of a version that came in a bundle say of who made it: user@host."""


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

    @property
    def place(self) -> Place:
        """Where it lies, for ever: what needs it says that."""
        return Place(repo=self.ref.repo, commit=self.commit, head=self.ref.head)

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
    release of a repository is in production there; later ones are put there by `promote_release`. The card of a release
    that is there already stays as it is.

    Args:
        store: The store, or its path.
        head: Name of the head.
        repo: "org/repo" for a repository of this head alone, "org/pack/name" for one of many.
        version: Number of the version; None for the active one.
        private: Whether the repository is to be seen by its owners alone: it is made so, or has to be so already.
        message: Title of the commit.
        about: What the card is to say that no record does: licence, data, description, a picture.
        needs: Where the backbone lies, and what a compact head leans on: "org/backbone", "org/hydra-cells@v1". Left
            out, where they were pushed to or pulled from: in the same repository, or where that was first.
        sign_with: File with the private key to sign it with (extra signing): an elliptic curve's, as PEM.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NameInvalidError: If a name is not allowed.
        NotFoundError: If the store has no such head or version, or it is not known where its backbone or reference
            lies: push those first.
        CorruptError: If the version is damaged, or a document there.
        RecordError: If its record is larger than a release may be, or a document there has a key that there is not.
        StoreError: If the system refuses to read the store.
        ConflictError: If the number or its tag belongs to another release, the repository to something else, the
            release is there and not signed, a repository that is to be private is there and is not, or a .gitignore
            there would leave files of it out.
        InputError: If the key is none, or the endpoint is neither https nor on this machine.
        ExtraMissingError: If it is to be signed, and model-signing is not installed.
        HubError: If this login may not, or there was no answer.

    """
    store, target, hub = Store.open(store), _target(repo), Hub(endpoint)
    found = heads.whole(store.head(head), heads.find(store, HeadRef(head, version)).number)
    need = _Needs(store, hub, target.repo, given=_opened(hub, needs))
    upload = _head_upload(need, found, target, about or About(), message, sign_with=sign_with)
    return _pushed(store, hub, upload, found.record, private=private)


def push_to_pack(
    store: Store,
    version: VersionRecord,
    repo: str,
    *,
    is_reference: bool,
    places: Mapping[Digest, Place],
    message: str = "",
    about: About | None = None,
    sign_with: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Publish one version of many that belong together; one that only others lean on is marked as that.

    Args:
        store: As for `push`.
        version: The version.
        repo: Of the pack.
        is_reference: Whether it is there for others to lean on alone.
        places: Where those of them lie that were published before it, each by its `origins.identity`.
        message: As for `push`.
        about: As for `push`.
        sign_with: As for `push`.
        endpoint: As for `push`.

    Raises:
        HydraDetectError: As for `push`.

    """
    target, hub = _target(f"{repo}/{version.head}"), Hub(endpoint)
    whole = heads.whole(store.head(version.head), version.number)
    need = _Needs(store, hub, repo, places=places)
    upload = _head_upload(need, whole, target, about or About(), message, sign_with=sign_with)
    if upload.glance and is_reference:
        upload = attrs.evolve(upload, glance=attrs.evolve(upload.glance, is_reference=True))
    return _pushed(store, hub, upload, whole.record, private=False)


def _head_upload(
    need: _Needs,
    version: VersionRecord,
    target: HubRef,
    about: About,
    message: str,
    *,
    sign_with: str | os.PathLike[str] | None,
) -> Upload:
    config, contents, beside = _release_of(need, version, target)
    text = codec.encode(config, limit=layout.LIMITS[layout.CONFIG])
    return Upload(
        target=target,
        number=config.release,
        contents={**_signed({layout.CONFIG: text, **contents}, sign_with), **about.files()},
        card=cards.of_head(config, beside, target, about),
        glance=_glance(config) if target.head else None,
        title=message or f"{config.name}: release v{config.release}",
    )


def _glance(config: HeadConfig) -> Glance:
    return Glance(
        release=config.release,
        class_names=config.record.class_names,
        backbone=config.record.backbone.digest,
        backbone_repo=config.backbone.repo,
        nbytes=config.files[layout.TENSORS][0],
    )


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
        NameInvalidError: If a name is not allowed.
        NotFoundError: If the store has no such backbone.
        CorruptError: If it is damaged, or a document there.
        RecordError: If a document there has a key that there is not.
        StoreError: If the system refuses to read the store.
        ConflictError: If the repository belongs to something else, the backbone is there and not signed, or as for
            `push` it is not private or has a .gitignore.
        InputError: If `repo` names a head in a pack, the key is none, or the endpoint is neither https nor here.
        ExtraMissingError: If it is to be signed, and model-signing is not installed.
        HubError: If this login may not, or there was no answer.

    """
    store, target, hub = Store.open(store), _target(repo), Hub(endpoint)
    if target.head:
        raise InputError(f"push backbone {backbone!r} to {repo}", "that is a head in a pack", "Name a repository.")
    found = backbones.find(store, backbone)
    item = store.backbone(backbone)
    contents = {layout.TENSORS: item.read(found.manifest, stored.TENSORS)}
    record = found.record
    listing = manifests.listing_of(contents)
    config = BackboneConfig(name=backbone, published_as=str(target), record=record, files=listing)
    text = codec.encode(config, limit=layout.LIMITS[layout.CONFIG])
    upload = Upload(
        target=target,
        number=config.release,
        contents={**_signed({layout.CONFIG: text, **contents}, sign_with), **(about or About()).files()},
        card=cards.of_backbone(config, target, about or About()),
        title=message or f"{backbone}: release v{config.release}",
        kind=documents.BACKBONE,
    )
    return _pushed(store, hub, upload, record, private=private)


def _target(repo: str) -> HubRef:
    ref = HubRef.parse(repo)
    if ref.revision:
        found = "a release has the number of its version, and its tag is made from that"
        raise InputError(f"publish to {ref}", found, f"Name '{attrs.evolve(ref, revision='')}' alone.")
    return ref


def _pushed(store: Store, hub: Hub, upload: Upload, record: BackboneRecord | HeadRecord, *, private: bool) -> Pushed:
    target = upload.target
    hub.create(target.repo, private=private)
    commit, is_new = release(hub, upload)
    url = f"{hub.endpoint}/{target.repo}/tree/{commit}/{layout.folder_of(target.head)}".rstrip("/")
    made = Pushed(ref=attrs.evolve(target, revision=f"v{upload.number}"), commit=commit, url=url, is_new=is_new)
    origins.remember(store, hub.endpoint, record, made.place)
    if upload.kind == documents.BACKBONE:
        origins.remember_backbone(store, hub.endpoint, made.place)
    return made


def _signed(contents: dict[str, bytes], key: str | os.PathLike[str] | None) -> dict[str, bytes]:
    """Return the files of a release, with the signature over them if there is a key."""
    return contents if key is None else {**contents, layout.SIGNATURE: signing.sign(contents, key)}


def _release_of(need: _Needs, version: VersionRecord, target: HubRef) -> tuple[HeadConfig, dict[str, bytes], Beside]:
    """Return the config of a version as a release, its other files, and what lies beside it."""
    store, record, asked, leant = need.store, version.record, f"publish {version.ref}", None
    backbones.check_holds(store, record.backbone, asked)
    if record.compact:
        own = references.find(store, record, asked)
        leant = need.place_of(own.record, f"the reference {own.ref}")
    stored_backbone = backbones.find(store, name_in(store, record.backbone, likely=record.backbone_name))
    place = need.place_of(stored_backbone.record, f"backbone {stored_backbone.name!r}")
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
        published_as=str(target),
        record=attrs.evolve(record, notes=_WHO.sub("", record.notes)),
        backbone=place,
        reference=leant,
        files=manifests.listing_of(contents),
    )
    return config, contents, beside


def _opened(hub: Hub, needs: Iterable[str]) -> list[receiving.Opened[Any]]:
    """Return what lies where somebody says."""
    if isinstance(needs, str):
        raise InputError("publish a head", f"needs is the text {needs!r:.80}", f"Write needs=[{needs!r:.80}].")
    found: list[receiving.Opened[Any]] = []
    for text in needs:
        ref = HubRef.parse(text)
        found.append(receiving.identified(Snapshot(hub, ref.repo, hub.commit_of(ref.repo, ref.tag)), ref.head))
    return found


@attrs.frozen
class _Needs:
    """Where that lies which a release needs: as it was said or published just now, or as it is remembered and still so.

    Args:
        store: Where it is remembered.
        hub: Where it has to lie.
        repo: Repository of the release, which is looked at first: what is published as a whole is to be taken as one.
        given: What lies where somebody said.
        places: Where that lies which was published just now, by its identity: a store that cannot be written forgets.

    """

    store: Store
    hub: Hub
    repo: str
    given: Sequence[receiving.Opened[Any]] = ()
    places: Mapping[Digest, Place] = attrs.field(factory=dict)

    def place_of(self, record: BackboneRecord | HeadRecord, what: str) -> Place:
        """Return where something lies.

        Raises:
            NotFoundError: If that is not known.

        """
        wanted = origins.identity(record)
        for there in self.given:
            if origins.identity(there.config.record) == wanted:
                return there.place
        places = [self.places[wanted]] if wanted in self.places else []
        places += origins.places(self.store, self.hub.endpoint, record)
        for place in sorted(places, key=lambda one: one.repo != self.repo):
            with contextlib.suppress(NotFoundError):  # it was there once
                there = receiving.identified(Snapshot(self.hub, place.repo, place.commit), place.head)
                if origins.identity(there.config.record) == wanted:
                    return place
        found = f"it is not known where on {self.hub.endpoint} that lies"
        remedy = "Push it first (push, push_backbone), or say where it lies: needs=['org/repo']."
        raise NotFoundError(f"publish what needs {what}", found, remedy)


def _read(store: Store, version: VersionRecord, name: str, kind: type[Any]) -> Any:
    if name not in version.files:
        return None
    data = store.head(version.head).read(version, name)
    return codec.decode(kind, data, f"{name} of {version.ref}", limit=codec.MAX_LIST_BYTES)


def _anonymous(split: Split | None) -> Split | None:
    """Return a split whose samples are called by the digests of their pictures: names may say who somebody is."""
    if split is None:
        return None
    names = {one.id: f"{one.picture.short}-{place}" for place, one in enumerate(split.samples)}
    groups = {group: f"group-{place}" for place, group in enumerate(dict.fromkeys(one.group for one in split.samples))}
    rows = []
    for one in split.samples:
        group = names[one.id] if one.group == one.id else groups[one.group]
        rows.append(attrs.evolve(one, id=names[one.id], group=group))
    return attrs.evolve(split, samples=tuple(rows))
