"""A release as it lies on a Hub, taken for a stranger's: nothing of it is believed before it is checked.

In this order: the listing of its commit, for names and sizes; the config, whose every key is known; then each file
that the config names, by the digest of the listing, by that of the config, and as what it has to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from hydra_detect import codec
from hydra_detect.arriving import ArrivingBackbone, ArrivingHead
from hydra_detect.codec import Record
from hydra_detect.data.splits import Split
from hydra_detect.errors import CorruptError, HubError, HydraDetectError, NotFoundError, listed, near_matches
from hydra_detect.hub import documents, layout, signing
from hydra_detect.hub.documents import BackboneConfig, HeadConfig, Index, Place
from hydra_detect.hub.refs import HubRef
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import Metrics
from hydra_detect.names import shown
from hydra_detect.storage import artifacts, files
from hydra_detect.storage import layout as stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.hub.snapshots import Snapshot
    from hydra_detect.names import Digest
    from hydra_detect.tensors import RawTensor

_NAMED = {layout.TENSORS, layout.BESIDE}

C = TypeVar("C", HeadConfig, BackboneConfig)
R = TypeVar("R", bound=Record)


@attrs.frozen(kw_only=True)
class Beside(Record):
    """What lies beside the weights of a release: what samples they have seen, and what was measured."""

    split: Split | None = None
    evaluation: Metrics | None = None
    calibration: Calibration | None = None

    def files(self) -> dict[str, bytes]:
        """Return them as they lie beside a version in a store."""
        records = {stored.SPLIT: self.split, stored.EVALUATION: self.evaluation, stored.CALIBRATION: self.calibration}
        return {name: codec.encode(one, limit=codec.MAX_LIST_BYTES) for name, one in records.items() if one is not None}


@attrs.frozen(kw_only=True)
class Opened(Generic[C]):
    """A release of which listing and config are checked.

    Args:
        place: Where it lies.
        config: What it is.
        digest: SHA-256 of its config.json.
        text: Its config.json.
        snapshot: The commit that it is read from.

    """

    place: Place
    config: C
    digest: Digest
    text: bytes = attrs.field(repr=False)
    snapshot: Snapshot = attrs.field(repr=False)

    def read(self, name: str) -> bytes:
        """Return a file of the release, proven to be the one that listing and config name.

        Raises:
            CorruptError: If it is another, or too large.
            HubError: If access was refused, or there was no answer.

        """
        path = layout.path_of(self.place.folder, name)
        data, there = self.snapshot.read(path), self.snapshot.listed(path)
        size, digest = self.config.files[name]
        found_digest = there.sha256 if there and there.sha256 else files.sha256(data).hex  # of which it is proven to be
        if (len(data), found_digest) != (size, digest.hex):
            found = f"its SHA-256 is not the {digest.short}... that its config says"
            raise CorruptError(f"read {name} of {self.place}", found, documents.REMEDY)
        return data


def opened(snapshot: Snapshot, head: str, kind: type[C]) -> Opened[C]:
    """Read the config of a release, and see that all it names is there, and of a size that is allowed.

    Args:
        snapshot: The commit.
        head: Which head of a pack; "" for the top.
        kind: `HeadConfig` or `BackboneConfig`.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it names files that no release has, or one that is not there.
        RecordError: If a key is unknown, missing or of the wrong kind, or its schema is newer.
        HubError: If it is of another kind, access was refused, or there was no answer.

    """
    place = Place(repo=snapshot.repo, commit=snapshot.commit, head=head)
    asked, path = f"read the config of {place}", layout.path_of(place.folder, layout.CONFIG)
    if snapshot.listed(path) is None:
        raise _nothing(snapshot, place, asked)
    text = snapshot.read(path)
    config = _config(text, kind, asked, f"{path} of {snapshot}")
    strange = set(config.files) - _NAMED
    if strange or layout.TENSORS not in config.files:
        found = f"it lists {listed(map(shown, strange))}" if strange else f"it lists no {layout.TENSORS}"
        raise CorruptError(asked, f"{found}, unlike any release", documents.REMEDY)
    for name, (size, _digest) in config.files.items():
        there = snapshot.listed(layout.path_of(place.folder, name))
        if there is None or there.size != size or size > layout.LIMITS[name]:
            found = f"of {name} it says {size} bytes, and its commit {there.size if there else 'nothing'}"
            raise CorruptError(asked, f"{found}; {layout.LIMITS[name]} are allowed", documents.REMEDY)
    return Opened(place=place, config=config, digest=files.sha256(text), text=text, snapshot=snapshot)


def _nothing(snapshot: Snapshot, place: Place, asked: str) -> HydraDetectError:
    """Return the error for a place where no release is; of a pack, with what it has."""
    index = snapshot.document(Index, layout.INDEX)
    if index is None:
        found = f"it has no {layout.path_of(place.folder, layout.CONFIG)}"
        return NotFoundError(asked, found, "A repository of hydra-detect has one, and a pack one for each head.")
    if place.head:
        return NotFoundError(asked, f"the pack has no head {place.head!r}", near_matches(place.head, index.heads))
    example = f"{place.repo}/{min(index.heads, default='NAME')}"
    return NotFoundError(asked, f"it is a pack of {len(index.heads)} heads", f"Say which one, as in {example!r}.")


def identified(snapshot: Snapshot, head: str) -> Opened[HeadConfig] | Opened[BackboneConfig]:
    """Return a release of either kind, as `opened`."""
    path = layout.path_of(layout.folder_of(head), layout.CONFIG)
    is_backbone = snapshot.listed(path) and _kind(snapshot.read(path), f"{path} of {snapshot}") == documents.BACKBONE
    return opened(snapshot, head, BackboneConfig) if is_backbone else opened(snapshot, head, HeadConfig)


def _kind(text: bytes, what: str) -> object:
    with documents.strangers_own():
        document = codec.loads(text, what)
    return document.get("kind") if isinstance(document, dict) else None


def _config(text: bytes, kind: type[C], asked: str, what: str) -> C:
    """Return a config, or say that it is one of another kind: somebody else's, or a backbone's for a head's."""
    found, wanted = _kind(text, what), documents.HEAD if kind is HeadConfig else documents.BACKBONE
    if found != wanted:
        takers = {documents.HEAD: "It is a head: use pull.", documents.BACKBONE: "It is a backbone: use pull_backbone."}
        remedy = takers.get(str(found), "Name a repository that hydra-detect made.")
        raise HubError(asked, f"its config.json is {f'of kind {shown(found)}' if found else 'none of ours'}", remedy)
    return documents.read(kind, text, what, limit=layout.LIMITS[layout.CONFIG])


def backbone(release: Opened[BackboneConfig]) -> tuple[ArrivingBackbone, str]:
    """Return a backbone with its weights, and who signed it, as `_checked`."""
    contents, signer = _checked(release)
    own = release.config
    return ArrivingBackbone(name=own.name, record=own.record, tensors=_weights(release, contents)), signer


def head(release: Opened[HeadConfig], *, name: str = "") -> tuple[ArrivingHead, str]:
    """Return a head with its weights and what lies beside it, and who signed it, as `_checked`.

    Args:
        release: What it is.
        name: What to call it; "" for what it is called there.

    """
    contents, signer = _checked(release)
    beside = {}
    if layout.BESIDE in contents:
        what = f"{layout.BESIDE} of {release.place}"
        beside = documents.read(Beside, contents[layout.BESIDE], what, limit=layout.LIMITS[layout.BESIDE]).files()
    own = release.config
    return ArrivingHead(
        name=name or own.name, record=own.record, tensors=_weights(release, contents), files=beside
    ), signer


def _checked(release: Opened[HeadConfig] | Opened[BackboneConfig]) -> tuple[dict[str, bytes], str]:
    """Return the files of a release, each proven, and whose key signed them: "" where no key is pinned.

    Raises:
        CorruptError: If a file is another than config and listing say.
        HubError: If the namespace is held to a key, and they are not signed with it.
        ExtraMissingError: If it is, and the library that could tell is not installed.

    """
    contents = {layout.CONFIG: release.text, **{name: release.read(name) for name in sorted(release.config.files)}}
    key = signing.pinned_key(release.place.repo)
    if key is None:
        return contents, ""
    path = layout.path_of(release.place.folder, layout.SIGNATURE)
    signature = None if release.snapshot.listed(path) is None else release.snapshot.read(path)
    signing.check(contents, signature, key, f"pull {release.place}")
    where = str(HubRef(release.place.repo, release.place.head))
    if release.config.published_as != where:
        found = f"it was signed as {release.config.published_as}, and lies at {where}"
        raise HubError(f"pull {release.place}", found, documents.REMEDY)
    return contents, key.stem


def _weights(
    release: Opened[HeadConfig] | Opened[BackboneConfig], contents: Mapping[str, bytes]
) -> dict[str, RawTensor]:
    """Return the weights of a release: safetensors, finite, and those that its record names."""
    what = f"the weights of {release.place}"
    with documents.strangers_own():
        return artifacts.decode_weights(contents[layout.TENSORS], release.config.record.tensors, what)
