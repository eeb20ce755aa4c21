"""Engines: the exact one is torchvision bit for bit, the fast one the same but for rounding, whatever runs beside."""

import itertools
import threading

import attrs
import engine_fixtures
import numpy as np
import pytest
import torch
from engine_fixtures import copied, demo_store, every_photograph, is_clear, mixed, photographs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hydra_detect import HydraDetector
from hydra_detect.engine import engines, suppression, waitless
from hydra_detect.engine.fast import FastEngine
from hydra_detect.errors import DeviceError, IncompatibleError, InputError, NotFoundError, RecordError
from hydra_detect.lifecycle.compressing import expand_head
from hydra_detect.loading import Shelf
from hydra_detect.measure.agreement import agreement
from hydra_detect.storage import heads
from hydra_detect.versions import VersionManager

EVERY = ("owl", "fox", "bat", "eel")
KINDS = tuple(engine_fixtures.MODELS)


def loaded(store, *names, **options):
    """Return a detector on the CPU."""
    return HydraDetector.from_store(store, names or None, device="cpu", **options)


def raw(detector, pictures, **options):
    """Return what a detector finds in pictures, raw, down to low scores."""
    return detector.predict(pictures, raw_scores=True, score_threshold=0.05, **options)


def same(one, other):
    """Whether detections are equal bit for bit."""
    return len(one) == len(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels")
    )


# The fast engine against the exact one


@pytest.mark.parametrize("kind", KINDS)
def test_fast_is_exact_but_for_rounding(kind):
    """On real photographs boxes differ by 0.01 px and scores by 1e-4 at most, and nothing appears or vanishes."""
    exact, fast = (loaded(mixed(kind), engine=name) for name in ("exact", "fast"))
    found = agreement(raw(exact, photographs()), raw(fast, photographs()), score_limits=[0.05], most=100)
    assert found.matched > 100
    assert found.largest_box <= 0.01
    assert found.largest_score <= 1e-4
    assert found.unmatched == found.near_limits


def test_every_real_picture(reported):
    """So it is on every photograph of this repository, with heads that were trained, down to low scores."""
    exact, fast = (HydraDetector.from_store(demo_store(), device="cpu", engine=name) for name in ("exact", "fast"))
    found = agreement(raw(exact, every_photograph()), raw(fast, every_photograph()), score_limits=[0.05], most=100)
    reported("engines", f"fast against exact, trained heads: {found}")
    assert found.pictures > 30
    assert found.matched > 1000
    assert found.largest_box <= 0.01
    assert found.largest_score <= 1e-4
    assert found.unmatched == found.near_limits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compact_head_is_its_expanded_form_bit_for_bit(kind, dtype, tmp_path):
    """In the exact engine a compact head finds what the full head finds that it stands for, in every number."""
    store = copied(mixed(kind), tmp_path)
    whole = expand_head(store, "bat")
    assert whole.record.compact is None
    assert whole.files["model.safetensors"][0] > 1000
    refs = ("bat@1", str(whole.ref))
    pair = [raw(loaded(store, ref, engine="exact", dtype=dtype), photographs(1)[0]) for ref in refs]
    assert len(pair[0])
    assert same(*pair)


@pytest.mark.parametrize(
    ("kind", "engine", "dtype"),
    [*itertools.product(KINDS, engines.ENGINES, ["float32"]), ("second form", "fast", "bfloat16")],
)
def test_a_result_depends_on_no_other_head(kind, engine, dtype):
    """What a head finds is the same bit for bit alone, among others, in any order, and after others came and went."""
    store, (picture, *_rest) = mixed(kind), photographs(1)
    alone = {name: raw(loaded(store, name, engine=engine, dtype=dtype), picture) for name in EVERY}
    together = loaded(store, *EVERY, engine=engine, dtype=dtype)
    for names in (EVERY, EVERY[::-1], ("eel", "owl"), ("bat", "eel")):
        found = raw(together, picture, heads=list(names))
        for name in names:
            assert same(found.filter(heads=[name]), alone[name]), (names, name)
    for name in ("owl", "bat"):
        together.unload_head(name)
    compact_again = raw(together, picture)
    assert same(compact_again.filter(heads=["eel"]), alone["eel"])
    together.load_head("bat")
    assert same(raw(together, picture).filter(heads=["bat"]), alone["bat"])


def test_any_size_of_picture():
    """Whatever the picture's size, odd ones too, the engines agree; where rounding decides, on most detections."""
    clear = []

    @settings(max_examples=15)
    @example(height=73, width=117, seed=41, kind="resnet")
    @given(
        height=st.integers(20, 150),
        width=st.integers(20, 150),
        seed=st.integers(0, 99),
        kind=st.sampled_from(KINDS[:2]),
    )
    def run(height, width, seed, kind):
        picture, (exact, fast) = noise(height, width, seed), both(kind)
        for name in EVERY:
            one, other = (raw(detector, picture, heads=[name]) for detector in (exact, fast))
            found = agreement([one], [other], score_limits=[0.05], most=100)
            if is_clear(exact, picture, name):
                clear.append(name)
                assert found.largest_box <= 0.01
                assert found.largest_score <= 1e-4
                assert found.unmatched == found.near_limits
            else:
                assert found.unmatched <= found.near_limits + len(one) // 10

    run()
    assert len(clear) > 30  # of 60


def test_what_rounding_decides_is_known():
    """Two proposals of one head overlap by 0.70002 in this picture, and none of the other's by nearly that."""
    picture, (exact, _fast) = noise(73, 117, 41), both("resnet")
    assert {name: is_clear(exact, picture, name) for name in ("eel", "bat")} == {"eel": False, "bat": True}


def noise(height, width, seed):
    """Return a picture of noise."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("shape", [(1, 400, 3), (400, 1, 3)])
def test_a_picture_of_which_nothing_would_be_left(engine, shape):
    """A picture so long that its shorter side would be less than a pixel is refused, and the next one is looked at."""
    detector = loaded(mixed(), "owl", "bat", engine=engine)
    with pytest.raises(InputError, match=r"its shorter side would be less than one of 128.*Cut it into pieces"):
        detector.predict(np.zeros(shape, dtype=np.uint8))
    assert len(raw(detector, photographs(1)[0]))


_BOTH = {}


def both(kind):
    """Return both detectors over the heads of a kind."""
    if kind not in _BOTH:
        _BOTH[kind] = [loaded(mixed(kind), engine=name) for name in ("exact", "fast")]
    return _BOTH[kind]


def test_batches():
    """Pictures of one size run as a batch in both engines, each with its own boxes."""
    pictures = photographs(3)
    for engine in engines.ENGINES:
        detector = loaded(mixed(), engine=engine)
        single, batch = raw(detector, pictures), raw(detector, pictures, batch_size=3)
        found = agreement(single, batch, score_limits=[0.05])
        assert found.matched > 50
        assert found.largest_box <= 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_without_waiting(kind, monkeypatch):
    """The way for a GPU finds what the other way finds, on a CPU too; where it is not settled the other way is gone."""
    detector, pictures = loaded(mixed(kind), engine="fast"), photographs(2)
    wanted = raw(detector, pictures)
    monkeypatch.setattr(FastEngine, "one_by_one", FastEngine.without_waiting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waitless, "fetched", settled(waitless.fetched))
        found = agreement(wanted, raw(detector, pictures), score_limits=[0.05])
    assert found.matched > 50
    assert found.largest_box <= 1e-3
    assert found.largest_score <= 1e-5
    assert found.unmatched == 0


def settled(fetched):
    """Return a function that fetches, and sees that everything was settled at once."""

    def fetch(found):
        outputs = fetched(found)
        assert outputs
        assert all(output is not None for output in outputs)
        return outputs

    return fetch


def test_what_is_not_settled_is_run_again(monkeypatch):
    """A head whose suppression needs more repetitions than there are is run one by one, and finds the same."""
    detector, (picture, *_rest) = loaded(mixed(), "owl", "bat", engine="fast"), photographs(1)
    wanted = raw(detector, picture)
    engine, usual = detector._engine, FastEngine.one_by_one
    again = []

    def one_by_one(engine, picture, heads, watch):
        if len(heads) > 1:
            return engine.without_waiting(picture, heads, watch)
        again.append(heads)
        return usual(engine, picture, heads, watch)

    monkeypatch.setattr(FastEngine, "one_by_one", one_by_one)
    monkeypatch.setattr(suppression, "ROUNDS", 1)
    found = raw(detector, picture)
    assert same(found, wanted)
    assert len(again) == 2
    assert engine.name == "fast"
    assert dict(found.timing.heads) == {"owl": 0, "bat": 0}  # who does not wait does not know
    assert found.timing.shared > 0


def test_no_heads():
    """Without heads nothing is found, and nothing is shared."""
    detector = loaded(mixed(), "owl", engine="fast")
    detector.unload_head("owl")
    found = detector.predict(photographs(1)[0])
    assert len(found) == 0
    assert found.timing.shared < found.timing.backbone


# bfloat16


def test_half_precision():
    """In bfloat16 weights take half, and most boxes are where they were."""
    full, half = (loaded(mixed(), engine="fast", dtype=name) for name in ("float32", "bfloat16"))
    sizes = [detector.memory() for detector in (full, half)]
    assert sizes[1].backbone * 1.9 < sizes[0].backbone
    found = agreement(raw(full, photographs()), raw(half, photographs()), score_limits=[0.05])
    assert found.matched > 0.8 * (found.matched + found.vanished)


# Memory


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_reference_is_held_once(engine):
    """Compact heads share one copy of their reference, which goes with the last of them."""
    detector = loaded(mixed(), "bat", engine=engine)
    one = detector.memory()
    detector.load_head("eel")
    two = detector.memory()
    assert one.references == two.references > two.heads["eel"]
    assert two.total == two.backbone + two.references + sum(two.heads.values())
    for name in ("bat", "eel"):
        detector.unload_head(name)
    assert detector.memory().references == 0
    assert not detector._shelf._held


def test_loading_a_head_builds_nothing_else_anew(monkeypatch):
    """Loading one more compact head reads its own file alone, and the layers of the others stay the same objects."""
    detector = loaded(mixed(), "bat", engine="fast")
    before = detector._heads["bat"].network
    read = []
    original = heads.tensors
    monkeypatch.setattr(
        heads, "tensors", lambda store, version: read.append(version.ref.name) or original(store, version)
    )
    detector.load_head("eel")
    assert read == ["eel"]
    assert detector._heads["bat"].network is before
    pairs = zip(detector._heads["eel"].network.leant_on, before.leant_on, strict=True)
    assert all(one is other for one, other in pairs)


@pytest.mark.parametrize("names", [("owl", "bat"), ("bat", "owl")])
def test_a_reference_that_is_loaded_as_a_head_too_is_held_once(names):
    """The full head that others lean on, whichever comes first, has its weights in common with them."""
    detector, alone = loaded(mixed(), *names, engine="fast"), loaded(mixed(), "bat", engine="fast")
    memory = detector.memory()
    assert memory.references == alone.memory().references
    assert memory.heads["owl"] < memory.references / 10
    assert memory.heads["bat"] == alone.memory().heads["bat"]
    detector.unload_head("bat")
    assert detector.memory().references == 0
    assert detector.memory().heads["owl"] > memory.references


# What cannot be


def test_engines_and_devices_that_there_are_not():
    """An engine, dtype or device that is not there is refused with what there is."""
    for options, told in (
        ({"engine": "quick"}, "there is no such engine"),
        ({"engine": None}, "there is no such engine"),
        ({"engine": ["fast"]}, "there is no such engine"),
        ({"dtype": "int8"}, r"Use one of"),
    ):
        with pytest.raises(DeviceError, match=told):
            HydraDetector.from_store(mixed(), **{"device": "cpu", **options})


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_reference_that_went_away(engine, tmp_path):
    """A compact head whose reference is gone is refused, and what is loaded keeps serving."""
    store = copied(mixed(), tmp_path)
    detector = loaded(store, "fox", engine=engine)
    before = raw(detector, photographs(1)[0])
    folder = store.head("owl").place.version(1)
    folder.rename(folder.with_name("000077"))
    with pytest.raises(NotFoundError, match=r"its reference owl@1 \(\w+\) is not in the store"):
        detector.load_head("bat")
    assert same(raw(detector, photographs(1)[0]), before)
    assert list(detector.heads) == ["fox"]


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_reference_that_is_replaced(engine, tmp_path):
    """When another version of what others lean on is promoted, they find what they found, loaded anew or not."""
    store = copied(mixed(), tmp_path)
    detector, manager = loaded(store, "owl", "bat", engine=engine), VersionManager(store)
    before = raw(detector, photographs(1)[0]).by_head()
    fox = manager.active("fox")
    manager.promote("owl", manager.create("owl", heads.tensors(store, fox), fox.record).number)
    assert sorted(detector.refresh().swapped) == ["owl"]
    after = raw(detector, photographs(1)[0]).by_head()
    assert same(after["bat"], before["bat"])
    assert not same(after["owl"], before["owl"])
    assert manager.prune("owl", keep=1).kept[1] == "a rollback would make it active"
    assert same(raw(loaded(store, "bat", engine=engine), photographs(1)[0]), before["bat"])


def test_a_damaged_form_is_refused(tmp_path):
    """A rank larger than its layer, and a layer that there is not, are refused with what could be."""
    store = copied(mixed(), tmp_path)
    version = VersionManager(store).active("bat")
    engine = loaded(store, "owl", engine="fast")._engine
    tensors = heads.tensors(store, version)
    form = version.record.compact
    for ranks, told in (
        ({**form.ranks, "roi_heads.box_head.fc7": 10_000}, "is to have rank 10000. Give a rank from 0 to"),
        ({**form.ranks, "roi_heads.box_head.fc9": 4}, "it has no layer 'roi_heads.box_head.fc9' to be reduced"),
    ):
        record = attrs.evolve(version.record, compact=attrs.evolve(form, ranks=ranks))
        with pytest.raises(RecordError, match=told):
            engine.load(record, tensors, lambda: reference(store))
    other = attrs.evolve(version.record, compact=attrs.evolve(form, reference=type(form.reference)("1" * 64)))
    with pytest.raises(IncompatibleError, match="it leans on the tensors 111111111111, and was given"):
        engine.load(other, tensors, lambda: reference(store))


def reference(store):
    """Return the reference of `bat`."""
    return Shelf(store).of(VersionManager(store).active("owl"))


# Threads


def test_threads_share_a_fast_detector():
    """While one thread loads and drops compact heads, others go on finding the same."""
    detector = loaded(mixed(), "owl", "bat", engine="fast")
    picture = photographs(1)[0]
    wanted = {name: raw(detector, picture, heads=[name]) for name in ("owl", "bat")}
    problems, done = [], threading.Event()

    def serve():
        while not done.is_set():
            found = raw(detector, picture, heads=["owl", "bat"])
            problems.extend(name for name in wanted if not same(found.filter(heads=[name]), wanted[name]))

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        detector.load_head("eel")
        detector.unload_head("eel")
    done.set()
    for thread in threads:
        thread.join()
    assert not problems


def test_engines_are_named():
    """Each engine goes by its name, and a detector says which it has."""
    assert {name: engine.name for name, engine in engines.ENGINES.items()} == {name: name for name in engines.ENGINES}
    assert isinstance(loaded(mixed(), "owl", engine="fast")._engine, FastEngine)
    assert loaded(mixed(), "owl", engine="fast").engine == "fast"
    assert torch.float32 == loaded(mixed(), "owl", engine="fast").dtype
