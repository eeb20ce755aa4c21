"""Makes the golden store: every kind of artifact and event, and the same bytes each time it is made."""

import datetime as dt
import itertools
import json
import shutil
import sys

import attrs
import numpy as np
from store_fixtures import a_contract, a_record, flip

from hydra_detect import codec
from hydra_detect.names import Digest
from hydra_detect.records import (
    BackboneRecord,
    Environment,
    OperatingPolicy,
    ParitySummary,
    SourceRecord,
)
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, layout, owners
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

BEGIN = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
ACTOR = "jo@golden"
REASON = 'bessere Bilder: "鴞", 3 µm'  # beyond ASCII and with quotes: texts have one form on disk


def fix_what_varies(monkeypatch):
    """Let time, actor and staging names be the same in each run: one second for each look at the clock."""
    seconds, names = itertools.count(), itertools.count(1)

    def now():
        return (BEGIN + dt.timedelta(seconds=next(seconds))).isoformat(timespec="milliseconds")

    for name, module in sorted(sys.modules.items()):
        if name.startswith("hydra_detect.") and hasattr(module, "utc_now"):
            monkeypatch.setattr(module, "utc_now", now)
    monkeypatch.setattr(owners, "staging_name", lambda: f"golden.1.1.{next(names):032x}")
    monkeypatch.setenv(owners.ACTOR_VARIABLE, ACTOR)


def weights(seed):
    """Return a tensor of each dtype that an artifact may hold; each seed has its own numbers."""
    numbers = np.arange(6).reshape(2, 3) + seed
    return {
        "box.f64": RawTensor.of(numbers / 4),
        "box.f32": RawTensor.of((numbers / 8).astype(np.float32)),
        "box.f16": RawTensor.of((numbers / 16).astype(np.float16)),
        "box.bf16": RawTensor("BF16", (3,), bytes([seed, 0x3F] * 3)),
        "box.i64": RawTensor.of(np.array(seed, dtype=np.int64)),
        "box.i32": RawTensor.of(numbers.astype(np.int32)),
        "box.u8": RawTensor.of(numbers.astype(np.uint8)),
        "box.bool": RawTensor.of(numbers % 2 == 0),
        "empty": RawTensor.of(np.zeros((0, 4), dtype=np.float32)),
        "ein größerer Name": RawTensor.of(np.ones(1, dtype=np.float32)),
    }


def backbone():
    """Return the weights of the golden backbone and its record."""
    raw = weights(0)
    record = BackboneRecord(
        contract=attrs.evolve(a_contract(), digest=tensors_digest(raw)),
        source=SourceRecord(
            file="original.pth", sha256=Digest("1" * 64), renamed={"new": "old"}, assumed=("norm_eps",)
        ),
        libraries={"torch": "2.11.0"},
    )
    return raw, record


def full_record(raw):
    """Return the record of a head in which every field says something."""
    return a_record(
        raw,
        backbone=backbone()[1].contract,
        class_names=("owl", "Rotfuchs 🦊"),
        operating_policy=OperatingPolicy(score_threshold=0.62, chosen_on="val"),
        source=SourceRecord(file="head.pth", sha256=Digest("2" * 64)),
        parity=ParitySummary(
            equal=True, stages=7, numbers_compared=123_456, max_absolute_difference=0.0,
            outputs={"boxes": Digest("3" * 64)},
            environment=Environment(torch="2.11.0", torchvision="0.26.0", cpu="AVX2", threads=2),
        ),
        sample_count=40,
        claimed_metrics={"f1": 0.9375, "recall": 1.0},
        notes="made for the golden store",
        libraries={"torch": "2.11.0"},
    )  # fmt: skip


def make(root, monkeypatch):
    """Make the store at `root`, which must not be there."""
    fix_what_varies(monkeypatch)
    store = Store.create(root, durability="fast")
    store.layout.identity.write_bytes(
        codec.dumps(
            {**json.loads(store.layout.identity.read_bytes()), "store_id": "00000000-0000-4000-8000-000000000000"}
        )
    )
    backbones.publish(store, "demo", backbone()[1], backbone()[0])
    manager, registry = VersionManager(store), HeadRegistry(store)
    _owl(manager)
    _others(manager, registry)
    registry.infos()
    shutil.rmtree(root / "locks")  # of no use to a reader
    for folder in sorted(root.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):  # git keeps no empty folders
            folder.rmdir()


def _create(manager, head, seed):
    raw = weights(seed)
    record = full_record(raw) if seed == 1 else a_record(raw, backbone=backbone()[1].contract, notes=f"seed {seed}")
    manager.create(head, raw, record, attachments={layout.PARITY: b'{"equal": true}\n'} if seed == 1 else None)


def _owl(manager):
    """Versions 1, 2, 4, 5; 5 is active, 2 and 1 were before it, 1 is pinned, 3 was pruned."""
    for seed in (1, 2, 3, 4):
        _create(manager, "owl", seed)
    for number in (1, 2, 3):
        manager.promote("owl", number, reason=REASON if number == 3 else "")
    manager.rollback("owl", reason="worse in the field")
    manager.pin("owl", 1, reason="a paper cites it")
    manager.pin("owl", 1, reason="the web site shows it")
    manager.pin("owl", 2, reason="a poster")
    manager.unpin("owl", 2)
    manager.prune("owl", keep=1, reason="disk")
    _create(manager, "owl", 5)
    manager.promote("owl", 5)


def _others(manager, registry):
    """A head that was renamed, one that was removed, one that was repaired, and one that nobody promoted."""
    for seed in (11, 12):
        _create(manager, "fox", seed)
        manager.promote("fox", seed - 10)
    registry.rename("fox", "red-fox", reason="there are others")
    _create(manager, "wolf", 21)
    manager.promote("wolf", 1)
    registry.remove("wolf", reason="was a dog")
    for seed in (31, 32):
        _create(manager, "lynx", seed)
        manager.promote("lynx", seed - 30)
    flip(manager.store.head("lynx").place.version(2) / layout.TENSORS, place=-40)
    manager.repair()
    _create(manager, "hawk", 41)


def files_of(root):
    """Return the content of every file below a folder by its path: folders and modes are not in every copy."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
