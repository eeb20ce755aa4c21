"""What a bundle consists of: its files, how large each may be, and the manifest that vouches for all of them.

Knows neither folders nor zip files. ::

    bundle.json                           this manifest, which proves itself
    backbone/model.safetensors  record.json
    head/model.safetensors  record.json
    head/split.json  evaluation.json ...  what lay beside the version, of `BESIDE`
    reference/model.safetensors  record.json  split.json    of a compact head, what it leans on
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs
from attrs import validators as check

from hydra_detect import codec
from hydra_detect.codec import Record
from hydra_detect.data.splits import Split
from hydra_detect.errors import CorruptError, RecordError, listed, near_matches
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import Metrics
from hydra_detect.names import Digest, HeadRef, check_name, shown
from hydra_detect.records import OperatingPolicy
from hydra_detect.storage import artifacts, changes, layout, sealed

FORMAT = 1
MANIFEST = "bundle.json"
BACKBONE, HEAD = "backbone", "head"
BACKBONE_TENSORS, BACKBONE_RECORD = f"{BACKBONE}/{layout.TENSORS}", f"{BACKBONE}/{layout.RECORD}"
HEAD_TENSORS, HEAD_RECORD = f"{HEAD}/{layout.TENSORS}", f"{HEAD}/{layout.RECORD}"
REFERENCE = "reference"
REFERENCE_TENSORS, REFERENCE_RECORD = f"{REFERENCE}/{layout.TENSORS}", f"{REFERENCE}/{layout.RECORD}"
REFERENCE_SPLIT = f"{REFERENCE}/{layout.SPLIT}"
FOLDERS = (BACKBONE, HEAD, REFERENCE)
OUTCOMES = f"{HEAD}/{layout.OUTCOMES}"

# The last two are records of rooms that need torch: read here as a record of any fields.
RECORDS_BESIDE: Mapping[str, type[Record]] = MappingProxyType(
    {
        layout.SPLIT: Split,
        layout.EVALUATION: Metrics,
        layout.CALIBRATION: Calibration,
        layout.TRAINING: Record,
        layout.PARITY: Record,
    }
)
BESIDE = (*RECORDS_BESIDE, layout.OUTCOMES)
"""Names of the files beside a version that a bundle takes along; a copy of the original, a pickle, is none of them."""

REQUIRED = frozenset([MANIFEST, BACKBONE_TENSORS, BACKBONE_RECORD, HEAD_TENSORS, HEAD_RECORD])


def _limit(name: str, of_records: int) -> int:
    return artifacts.MAX_TENSORS_BYTES if name.endswith(".safetensors") else of_records


LIMITS: Mapping[str, int] = MappingProxyType(
    {
        **{name: _limit(name, codec.MAX_JSON_BYTES) for name in sorted(REQUIRED)},
        **{f"{HEAD}/{name}": _limit(name, codec.MAX_LIST_BYTES) for name in BESIDE},
        **{name: _limit(name, codec.MAX_JSON_BYTES) for name in (REFERENCE_TENSORS, REFERENCE_RECORD)},
        REFERENCE_SPLIT: codec.MAX_LIST_BYTES,
    }
)
"""Every file that a bundle may hold, and how many bytes it may have."""

REMEDY = "Get the bundle anew from whoever made it."
_SHORT_TEXT = check.and_(check.instance_of(str), check.max_len(changes.MOST_CHARACTERS))


@attrs.frozen(kw_only=True)
class BundleManifest(Record):
    """What a bundle says of itself: where its version came from, how its scores are read, and what its files are.

    All of it but `libraries` follows from the version, so one version gives one manifest, whoever exports it.

    Args:
        head: Name of the head in the store that it came from.
        number: Its version there.
        manifest: SHA-256 of that version's manifest there.
        created_at: When the version was made, ISO 8601 in UTC.
        actor: Who made it.
        backbone: Name of the backbone there.
        policy: The one operating policy: that of the head's record or, where it has none, the score of its settings.
        libraries: Versions of the libraries that wrote the bundle.
        files: Size in bytes and SHA-256 of each other file of the bundle.

    """

    head: str = attrs.field(validator=lambda _i, _a, value: check_name(value) and None)
    number: int = attrs.field(validator=[check.ge(1), check.le(layout.HIGHEST)])
    manifest: Digest
    created_at: str = attrs.field(validator=_SHORT_TEXT)
    actor: str = attrs.field(validator=_SHORT_TEXT)
    backbone: str = attrs.field(validator=lambda _i, _a, value: check_name(value, BACKBONE) and None)
    policy: OperatingPolicy
    libraries: Mapping[str, str]
    files: Mapping[str, tuple[int, Digest]]

    @property
    def ref(self) -> HeadRef:
        """What the version was called: "owl@3"."""
        return HeadRef(self.head, self.number)


def text(manifest: BundleManifest) -> bytes:
    """Return the sealed text of a manifest: equal manifests give equal text."""
    return sealed.seal({"format": FORMAT, **codec.to_dict(manifest)})


def parse(data: bytes, where: str) -> BundleManifest:
    """Read a manifest that may come from a stranger; a key that there is not is an error.

    Args:
        data: The text of bundle.json.
        where: Which bundle, for the error.

    Raises:
        CorruptError: If a byte of it is another than when it was sealed.
        RecordError: If it has a newer format, or a field is missing, unknown or of the wrong kind.

    """
    what = f"{MANIFEST} of {where}"
    document = sealed.unseal(data, what)
    sealed.check_format(document, FORMAT, what)
    del document["format"]
    manifest = codec.from_dict(BundleManifest, document, what)
    if manifest.unknown:
        key = min(manifest.unknown)
        known = [field.name for field in attrs.fields(BundleManifest) if field.name != "unknown"]
        raise RecordError(f"read {what}", f"it has no key {shown(key)}", near_matches(key, known))
    return manifest


def check_names(names: Iterable[str], asked: str) -> None:
    """See that a bundle holds what every bundle holds, and nothing that none does.

    Raises:
        CorruptError: Naming what is missing, or too much.

    """
    there = set(names)
    strangers, missing = there - LIMITS.keys(), REQUIRED - there
    if strangers:
        raise CorruptError(asked, f"it holds what no bundle holds: {listed(map(shown, strangers))}", REMEDY)
    if missing:
        raise CorruptError(asked, f"it lacks {listed(missing)}", REMEDY)


def check_same_files(manifest: BundleManifest, names: Iterable[str], asked: str) -> None:
    """See that a bundle holds just the files that its manifest lists.

    Raises:
        CorruptError: Naming the files that are missing, or not listed.

    """
    there = set(names) - {MANIFEST}
    missing, extra = manifest.files.keys() - there, there - manifest.files.keys()
    if missing or extra:
        found = f"files that {MANIFEST} lists and are missing: {listed(map(shown, missing)) or 'none'}; "
        found += f"that are there and not listed: {listed(extra) or 'none'}"
        raise CorruptError(asked, found, REMEDY)
