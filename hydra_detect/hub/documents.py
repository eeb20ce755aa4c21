"""What stands in the JSON files of a repository. Whoever wrote them is a stranger: a key that there is not is an error.

A release is `config.json`, which holds its record and the digest of each other file; `releases.json` holds the digest
of each config. So whether a number is taken, and taking it, is one commit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from attrs import validators as check

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.errors import CheckpointError, CorruptError, RecordError, near_matches
from hydra_detect.hub import layout, refs
from hydra_detect.names import Digest, check_name, shown
from hydra_detect.records import BackboneRecord, HeadRecord
from hydra_detect.storage import layout as stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD, BACKBONE = "hydra-head", "hydra-backbone"

_MOST_NOTES = 2_000
_MOST_ANCHORS, _MOST_BOXES, _MOST_POINTS, _MOST_PIXELS = 64, 20_000, 128, 10_000
_A_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_NUMBER = [check.ge(1), check.le(stored.HIGHEST)]

REMEDY = "Ask whoever published it; nothing was kept."

R = TypeVar("R", bound=Record)


def _is_repo(_instance: Any, _attribute: Any, value: str) -> None:
    refs.check_repo(value)


def _is_commit(_instance: Any, _attribute: Any, value: str) -> None:
    refs.check_commit(value)


def _is_name(_instance: Any, _attribute: Any, value: str) -> None:
    check_name(value)


def _is_target(_instance: Any, _attribute: Any, value: str) -> None:
    refs.HubRef.parse(value)


@attrs.frozen(kw_only=True)
class Place(Record):
    """Where something lies on a Hub, for ever: a repository, a commit, and in a pack the name of the head."""

    repo: str = attrs.field(validator=_is_repo)
    commit: str = attrs.field(validator=_is_commit)
    head: str = attrs.field(default="", validator=lambda _i, _a, value: value and check_name(value) and None)

    @property
    def folder(self) -> str:
        """The folder of its files."""
        return layout.folder_of(self.head)

    def __str__(self) -> str:
        """Return it as it can be pulled."""
        return str(refs.HubRef(self.repo, self.head, self.commit))


@attrs.frozen(kw_only=True)
class HeadConfig(Record):
    """The config.json of a head.

    Args:
        name: What the head is called.
        release: Its number: that of the version which it was.
        published_as: Where it was published: "org/repo" or "org/pack/name", so that a signature binds that, too.
        record: Its facts.
        backbone: Where the backbone lies that it was made on; which one that is, the record says.
        reference: Of a compact head, where the full head lies that it leans on.
        files: Size in bytes and SHA-256 of each other file of the release.
        kind: Always "hydra-head".

    """

    name: str = attrs.field(validator=_is_name)
    release: int = attrs.field(validator=_NUMBER)
    published_as: str = attrs.field(validator=_is_target)
    record: HeadRecord
    backbone: Place
    reference: Place | None = None
    files: Mapping[str, tuple[int, Digest]]
    kind: str = attrs.field(default=HEAD, validator=check.in_((HEAD,)))

    def __attrs_post_init__(self) -> None:
        """Refuse a compact head that does not say where its reference lies, and what is larger than any head is."""
        if (self.reference is None) != (self.record.compact is None):
            found = "it leans on another head and does not say where that lies, or the other way round"
            raise RecordError(f"describe head {self.name!r}", found, "Publish it again.")
        if len(self.record.notes) > _MOST_NOTES:
            found = f"its notes have {len(self.record.notes)} characters"
            raise RecordError(f"describe head {self.name!r}", found, f"Write {_MOST_NOTES} at most.")
        _check_sizes(self.name, self.record)


def _check_sizes(name: str, record: HeadRecord) -> None:
    """Refuse what would cost more than any head does: a stranger chose these numbers."""
    settings = record.settings
    limits = [
        ("anchors at a place", settings.anchors_per_location, _MOST_ANCHORS),
        ("proposals before suppression", settings.rpn_pre_nms_top_n, _MOST_BOXES),
        ("proposals", settings.rpn_post_nms_top_n, _MOST_BOXES),
        ("detections", settings.detections_per_image, _MOST_BOXES),
        ("points across a crop", settings.roi_size * settings.roi_sampling_ratio, _MOST_POINTS),
        ("pixels a side", record.backbone.preprocessing.max_size, _MOST_PIXELS),
    ]
    for what, value, most in limits:
        _check_size(f"head {name!r}", what, value, most)


def _check_size(named: str, what: str, value: int, most: int) -> None:
    if value > most:
        raise RecordError(f"describe {named}", f"it has {value} {what}", f"Publish it with {most} at most.")


@attrs.frozen(kw_only=True)
class BackboneConfig(Record):
    """The config.json of a backbone, which is published once."""

    name: str = attrs.field(validator=lambda _i, _a, value: check_name(value, "backbone") and None)
    published_as: str = attrs.field(validator=_is_target)
    record: BackboneRecord
    files: Mapping[str, tuple[int, Digest]]
    release: int = attrs.field(default=1, validator=_NUMBER)
    kind: str = attrs.field(default=BACKBONE, validator=check.in_((BACKBONE,)))

    def __attrs_post_init__(self) -> None:
        """Refuse larger pictures than any network looks at."""
        sizes = self.record.contract.preprocessing
        _check_size(f"backbone {self.name!r}", "pixels a side", sizes.max_size, _MOST_PIXELS)


@attrs.frozen(kw_only=True)
class Release(Record):
    """One release in releases.json: digest of its config.json, git's digest of its card, when it was made."""

    config: Digest
    created_at: str = attrs.field(validator=check.max_len(100))
    card: str = attrs.field(default="", validator=check.max_len(40))


@attrs.frozen(kw_only=True)
class Releases(Record):
    """The releases.json of a repository, or of a head in a pack: by number, every release so far, and of what."""

    kind: str = attrs.field(default=HEAD, validator=check.in_((HEAD, BACKBONE)))
    releases: Mapping[str, Release] = attrs.field(factory=dict)

    @releases.validator
    def _check(self, _attribute: object, value: Mapping[str, Release]) -> None:
        odd = [name for name in value if not _A_NUMBER.fullmatch(name)]
        if odd:
            found = f"{shown(odd[0])} is no number of one"
            raise RecordError("list releases", found, "Publish into another repository.")

    @property
    def newest(self) -> int:
        """The highest number; 0 before the first."""
        return max(map(int, self.releases), default=0)

    def get(self, number: int) -> Release | None:
        """Return a release by number."""
        return self.releases.get(str(number))

    def having(self, number: int, release: Release) -> Releases:
        """Return the list with one more release."""
        return attrs.evolve(self, releases={**self.releases, str(number): release})


@attrs.frozen(kw_only=True)
class Channels(Record):
    """The channels.json: the release in production, and those before it, the last one first."""

    production: int = attrs.field(validator=_NUMBER)
    previous: tuple[int, ...] = attrs.field(
        default=(), converter=fields.integers, validator=[check.max_len(1_000), fields.each(*_NUMBER)]
    )


@attrs.frozen(kw_only=True)
class Glance(Record):
    """One head of a pack at a glance; `is_reference` where it is there only for others to lean on."""

    release: int = attrs.field(validator=_NUMBER)
    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    backbone: Digest
    backbone_repo: str = attrs.field(validator=_is_repo)
    is_reference: bool = False
    nbytes: int = attrs.field(validator=check.ge(0))


@attrs.frozen(kw_only=True)
class Index(Record):
    """The index.json of a pack: its heads by name, each with its newest release.

    Args:
        heads: By name.
        card: Git's digest of the card at the top as it was written last: another one there was edited.

    """

    heads: Mapping[str, Glance] = attrs.field(factory=dict)
    card: str = attrs.field(default="", validator=check.max_len(40))

    @heads.validator
    def _check(self, _attribute: object, value: Mapping[str, Glance]) -> None:
        for name in value:
            check_name(name)


def read(kind: type[R], data: bytes, what: str, *, limit: int = codec.MAX_JSON_BYTES) -> R:
    """Read a document that a stranger wrote.

    Raises:
        CorruptError: If it is no JSON object.
        RecordError: If its schema is newer, or a field at any depth is missing, unknown or of the wrong kind.

    """
    with strangers_own():
        document = codec.decode(kind, data, what, limit=limit)
    check_known(document, what)
    return document


@contextlib.contextmanager
def strangers_own() -> Iterator[None]:
    """Say of what is wrong with a stranger's file whom to ask: nobody here has a copy to restore it from."""
    try:
        yield
    except (CheckpointError, CorruptError, RecordError) as error:
        if "schema" in error.facts:  # of a newer version, which does help
            raise
        raise type(error)(error.asked, error.found, REMEDY, **error.facts) from None


def check_known(record: Record, what: str) -> None:
    """See that a record has, at any depth, no field that there is not.

    Raises:
        RecordError: Naming the first, and the fields that come near.

    """
    for path, inner in _records("", record):
        if inner.unknown:
            key = min(inner.unknown)
            known = [field.name for field in attrs.fields(type(inner)) if field.name != "unknown"]
            where = f"{path}.{key}" if path else key
            raise RecordError(f"read {what}", f"it has no key {shown(where)}", near_matches(key, known))


def _records(path: str, value: Any) -> Iterable[tuple[str, Record]]:
    if isinstance(value, Record):
        yield path, value
        for field in attrs.fields(type(value)):
            if field.name != "unknown":
                yield from _records(f"{path}.{field.name}".lstrip("."), getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _records(f"{path}.{key}".lstrip("."), item)
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from _records(f"{path}[{place}]", item)
