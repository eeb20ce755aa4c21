"""Heads whose files are whole and whose weights fit no network here: refused when loaded, and what serves goes on."""

import shutil
from collections.abc import Hashable

import attrs
import numpy as np
import pytest
from store_fixtures import snapshot
from test_hostile_names import NAMES, NO_TEXTS

from hydra_detect.errors import HydraDetectError, IncompatibleError, InputError, NameInvalidError, NotFoundError
from hydra_detect.hub.refs import HubRef
from hydra_detect.names import Digest
from hydra_detect.records import HeadSettings
from hydra_detect.storage import heads
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

PICTURE = np.zeros((32, 32), dtype=np.uint8)
PREDICTOR, CONVOLUTION = "roi_heads.box_predictor.cls_score.weight", "rpn.head.conv.0.0.weight"


def wrong_tensors(tensors):
    """Yield tensors of a head with one thing wrong, by name; the record that names their digest is right otherwise."""
    some, more = tensors[PREDICTOR], tensors[CONVOLUTION]
    yield "one missing", {name: tensor for name, tensor in tensors.items() if name != PREDICTOR}
    yield "one more", {**tensors, "roi_heads.more.weight": some}
    yield "one more, empty", {**tensors, "more": RawTensor("F32", (0,), b"")}
    yield "only one", {PREDICTOR: some}
    yield "one renamed", {name.replace("cls_score", "cls_scores"): tensor for name, tensor in tensors.items()}
    yield "all prefixed", {f"module.{name}": tensor for name, tensor in tensors.items()}
    yield "of torchvision before 0.13", {name.replace("conv.0.0.", "conv."): value for name, value in tensors.items()}
    yield "flat", {**tensors, PREDICTOR: RawTensor("F32", (np.prod(some.shape),), some.data)}
    yield "transposed", {**tensors, PREDICTOR: RawTensor("F32", some.shape[::-1], some.data)}
    yield "one axis more", {**tensors, CONVOLUTION: RawTensor("F32", (*more.shape, 1), more.data)}
    yield (
        "one axis fewer",
        {**tensors, CONVOLUTION: RawTensor("F32", more.shape[:2], bytes(4 * np.prod(more.shape[:2])))},
    )
    yield "two swapped", {**tensors, PREDICTOR: more, CONVOLUTION: some}
    yield "one row fewer", {**tensors, PREDICTOR: RawTensor("F32", (1, some.shape[1]), some.data[: 4 * some.shape[1]])}
    yield "empty", {**tensors, PREDICTOR: RawTensor("F32", (0, some.shape[1]), b"")}
    yield "a scalar", {**tensors, PREDICTOR: RawTensor("F32", (), bytes(4))}
    for dtype, size in (("I64", 8), ("I32", 4), ("U8", 1), ("BOOL", 1)):
        yield f"as {dtype}", {**tensors, PREDICTOR: RawTensor(dtype, some.shape, bytes(size * np.prod(some.shape)))}


def wrong_records(record):
    """Yield records of a head with one fact that its weights or the backbone here do not fit, by name."""
    settings, contract = record.settings, record.backbone
    other = {
        "label_count": 9, "rpn_conv_depth": 2, "box_head": "conv_fc", "box_widths": (5,), "roi_size": 5,
        "roi_levels": ("x",), "anchor_sizes": ((8, 16),) * 2, "aspect_ratios": ((1.0, 2.0),) * 2,
    }  # fmt: skip
    for name, value in other.items():
        facts = attrs.asdict(settings, recurse=False) | {name: value}
        classes = tuple(f"class {number}" for number in range(facts["label_count"] - 1))
        yield f"other {name}", attrs.evolve(record, settings=HeadSettings(**facts), class_names=classes)
    fewer = attrs.evolve(settings, anchor_sizes=settings.anchor_sizes[:1], aspect_ratios=settings.aspect_ratios[:1])
    yield "anchors of other levels", attrs.evolve(record, settings=fewer)
    yield "another backbone", attrs.evolve(record, backbone=attrs.evolve(contract, digest=Digest("0" * 64)))
    for field, change in (("architecture", {"norm_eps": 0.25}), ("preprocessing", {"min_size": 65, "max_size": 999})):
        facts = attrs.evolve(getattr(contract, field), **change)
        yield f"another {field}", attrs.evolve(record, backbone=attrs.evolve(contract, **{field: facts}))
    narrow = tuple(attrs.evolve(level, channels=5) for level in contract.levels)
    yield "narrower levels", attrs.evolve(record, backbone=attrs.evolve(contract, levels=narrow))
    yield "fewer levels", attrs.evolve(record, backbone=attrs.evolve(contract, levels=contract.levels[:1]))


@pytest.fixture
def serving(tmp_path):
    """Give a manager of a store of small networks, a detector that follows it, and its version of `owl`."""
    import small_networks

    from hydra_detect import HydraDetector

    manager = VersionManager(Store.create(tmp_path / "store", durability="fast"))
    small_networks.publish_backbone(manager.store, small_networks.TINY)
    for seed in (0, 1):
        manager.create("owl", *small_networks.head(small_networks.TINY, seed))
    manager.promote("owl", 1)
    return manager, HydraDetector.from_store(manager.store, device="cpu"), heads.load(manager.store, "owl")


def contents(version, tensors):
    """Return the wrong versions that can be published in place of a sound one: name, tensors and record."""
    for name, wrong in wrong_tensors(tensors):
        yield name, wrong, attrs.evolve(version.record, tensors=tensors_digest(wrong))
    for name, record in wrong_records(version.record):
        yield name, tensors, record


def test_wrong_networks(serving, tally):
    """What fits no network here is refused by name, and by a refresh after it was promoted; the old head serves on."""
    cases = tally("heads that prove themselves and fit no network here, each refused when loaded")
    manager, detector, (version, tensors) = serving
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    before, numbers = detector.predict(picture), set()
    for name, wrong, record in contents(version, tensors):
        if name.startswith("another") or name in {"narrower levels", "fewer levels"}:
            with pytest.raises(IncompatibleError, match="the store has no backbone that it was made on"):
                manager.create("owl", wrong, record)
            cases.case(name)
            continue
        number = manager.create("owl", wrong, record).number
        numbers.add(number)
        for load in (detector.load_head, detector.swap):
            with pytest.raises(HydraDetectError, match=r"^cannot "):
                load(f"owl@{number}")
        manager.promote("owl", number)
        assert detector.refresh().refused.keys() == {"owl"}, name
        assert detector.heads["owl"] == version
        manager.rollback("owl")
        assert not detector.refresh().refused
        cases.case(name)
    after = detector.predict(picture)
    assert after.boxes.tobytes() == before.boxes.tobytes()
    assert after.scores.tobytes() == before.scores.tobytes()
    assert {finding.number for finding in manager.verify(depth="deep").findings} == numbers
    cases.require(30)


def test_other_dtypes_of_fractions_are_read(serving):
    """Weights in half or double precision are the same network in other words: they are read, and run as float32."""
    manager, detector, (version, tensors) = serving
    for dtype in ("<f8", "<f2"):
        cast = {
            name: RawTensor.of(np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.shape).astype(dtype))
            for name, tensor in tensors.items()
        }
        number = manager.create("owl", cast, attrs.evolve(version.record, tensors=tensors_digest(cast))).number
        assert detector.load_head(f"owl@{number}").number == number


def ways_to_name_a_head(manager, detector, name, original):
    """Return all that takes the name of a head or backbone where networks are."""
    from hydra_detect import HydraDetector, merge_checkpoint, split_checkpoint, verify
    from hydra_detect.checkpoints.proof import compare_with_original

    store = manager.store
    return {
        "load_head": lambda: detector.load_head(name), "swap": lambda: detector.swap(name),
        "unload_head": lambda: detector.unload_head(name),
        "predict": lambda: detector.predict(PICTURE, heads=[name]),
        "threshold": lambda: detector.predict(PICTURE, score_threshold={name: 0.5}),
        "from_store": lambda: HydraDetector.from_store(store, [name], device="cpu"),
        "from_store, backbone": lambda: HydraDetector.from_store(store, [], backbone=name, device="cpu"),
        "split": lambda: split_checkpoint(original, store, head=name),
        "split, backbone": lambda: split_checkpoint(original, store, head="fox", backbone=name),
        "merge": lambda: merge_checkpoint(store, name, original.with_suffix(".safetensors")),
        "verify": lambda: verify(store, name), "compare": lambda: compare_with_original(store, name, original),
    }  # fmt: skip


BY_WHAT_IS_LOADED = frozenset(["unload_head", "predict", "threshold"])
"""What only looks among the heads that are loaded, where no such name is."""


def is_of_the_hub(name):
    """Whether a name is one that something on a Hub may have."""
    try:
        return bool(HubRef.parse(name))
    except NameInvalidError:
        return False


def test_hostile_names_of_heads(serving, split_original, tmp_path, tally):
    """Whatever works with networks takes no hostile name either; what serves stays, and nothing on the disk changes."""
    cases = tally("hostile names x ways to name a head or backbone beside the store, each refused")
    manager, detector, _version = serving
    original = shutil.copy(split_original, tmp_path / "original.pth")
    before, held = snapshot(tmp_path), detector.heads
    for number, name in enumerate([*NAMES, *NO_TEXTS]):
        for way, ask in ways_to_name_a_head(manager, detector, name, original).items():
            if name is None and "from_store" in way:  # which is no name: the one backbone, or a list of none
                continue
            if way == "threshold" and not isinstance(name, Hashable):  # no key of any dict
                continue
            if way == "load_head" and is_of_the_hub(name):  # "a/b" means a repository there, and is asked for
                continue
            expected = (NotFoundError, InputError) if way in BY_WHAT_IS_LOADED else NameInvalidError
            with pytest.raises(expected, match=r"^cannot "):
                ask()
            cases.case(number, way)
    assert detector.heads == held
    assert snapshot(tmp_path) == before
    cases.require(300 * 12)
