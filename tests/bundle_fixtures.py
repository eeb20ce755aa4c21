"""A version with everything beside it, its bundle as files by name, and bundles that a stranger made."""

import attrs
import measure_fixtures
import pytest
from store_fixtures import AT, a_record, some_tensors

from hydra_detect import codec
from hydra_detect.bundles import manifest, zips
from hydra_detect.bundles.bundle import opened
from hydra_detect.bundles.export import export_bundle
from hydra_detect.data.splits import Split
from hydra_detect.measure.calibration import Calibration, CalibrationFigures
from hydra_detect.measure.metrics import measure
from hydra_detect.records import OperatingPolicy
from hydra_detect.storage import artifacts, layout, manifests, pointers, sealed
from hydra_detect.storage.pointers import Change

FORMS = ("owl.zip", "owl")
FILES = [name for name in manifest.LIMITS if not name.startswith(f"{manifest.REFERENCE}/")]
"""What the bundle of a full head holds, when everything lies beside it."""

POLICY = OperatingPolicy(
    score_threshold=0.4, temperature=1.5, class_thresholds={"red fox": 0.6}, chosen_on="9 samples", objective="f1"
)
NOT_MEASURED = CalibrationFigures(ece=None, mce=None, d_ece=None, nll=None, bins=())
BESIDE = {
    layout.SPLIT: codec.encode(Split(samples=(), shares={"train": 1.0})),
    layout.EVALUATION: codec.encode(measure([], [], class_names=("owl", "red fox"), policy=POLICY, draws=0)),
    layout.CALIBRATION: codec.encode(
        Calibration(temperature=1.5, candidates=0, hits=0, before=NOT_MEASURED, after=NOT_MEASURED)
    ),
    layout.TRAINING: codec.dumps({"schema": 1, "method": "held-out"}),
    layout.PARITY: codec.dumps({"schema": 1, "equal": True}),
    layout.OUTCOMES: artifacts.encode_tensors(
        measure_fixtures.table([0.5], [True], names=("owl", "red fox")).to_tensors()
    ),
}


def trained(manager, seed=3, head="owl", **changes):
    """Publish a version with a policy, notes, and every file that a bundle takes along, beside one that it does not."""
    tensors = some_tensors(seed)
    record = a_record(tensors, **{"operating_policy": POLICY, "notes": "third try"} | changes)
    return manager.create(head, tensors, record, attachments={**BESIDE, "original.pth": b"\x80\x04 a pickle"})


def slip_in(item, tensors, record):
    """Publish the first version of a head or backbone past the gate, every digest right, and make it active."""
    data = {layout.TENSORS: artifacts.encode_tensors(tensors), layout.RECORD: codec.encode(record)}
    made = item.publish(data, created_at=AT)
    change = Change(what=pointers.PROMOTED, version=made.number, manifest=made.digest, at=AT)
    item.swap(item.pointer(), {"active": made.number, "manifest": made.digest}, change)


@pytest.fixture
def owls(filled):
    """Give a store in which `owl@3` has everything beside it, and is active."""
    filled.promote("owl", trained(filled).number)
    return filled


@pytest.fixture
def contents(owls, tmp_path):
    """Give the files of the bundle of `owl@3`, by name."""
    return files_of(export_bundle(owls.store, "owl", tmp_path / "as-written").path)


@pytest.fixture
def place(tmp_path):
    """Give an empty folder to export into."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def files_of(folder):
    """Return the files below a folder, by their names with slashes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(contents, path):
    """Write files as a bundle, whatever they are; return its path."""
    if path.suffix == ".zip":
        path.write_bytes(zips.pack(contents))
        return path
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def forged(contents, changed=(), **facts):
    """Return a bundle with other files and facts, whose manifest agrees with all of it: a stranger can seal too.

    Args:
        contents: A bundle.
        changed: Other files, by name; None for one that is taken out.
        facts: Other fields of bundle.json; None for one that is taken out.

    """
    others = {name: data for name, data in {**contents, **dict(changed)}.items() if data is not None}
    del others[manifest.MANIFEST]
    listing = {name: [size, str(digest)] for name, (size, digest) in manifests.listing_of(others).items()}
    document = sealed.unseal(contents[manifest.MANIFEST], "it") | {"files": listing} | facts
    document = {name: value for name, value in document.items() if value is not None}
    return {manifest.MANIFEST: sealed.seal(document), **others}


def evolved(contents, name, kind, **changes):
    """Return the text of a record of a bundle with other values."""
    return codec.encode(attrs.evolve(codec.decode(kind, contents[name], "it"), **changes))


def check(contents):
    """Return the bundle that files make."""
    return opened(contents, "the bundle it")
