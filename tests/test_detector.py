"""The detector: one backbone pass, independent heads, atomic changes, honest timing."""

import gc
import pickle
import shutil
import threading

import numpy as np
import pytest
import torch
from originals import SETTINGS, save, small
from PIL import Image

from hydra_detect import Detections, HydraDetector, split_checkpoint
from hydra_detect.batches import Job
from hydra_detect.checkpoints.noise import structured_noise
from hydra_detect.detections import box_iou
from hydra_detect.engine.boxes import BoxHead
from hydra_detect.errors import (
    DeviceError,
    IncompatibleError,
    InputError,
    NotFoundError,
    StoreError,
)
from hydra_detect.hub.refs import HubRef
from hydra_detect.names import HeadRef
from hydra_detect.storage import layout


def picture(height=120, width=160, seed=0):
    """A structured RGB picture, uint8 [height, width, 3]."""
    noise = structured_noise(np.random.default_rng(seed), height, width, channels=3)
    return np.ascontiguousarray((noise * 255).round().astype(np.uint8).transpose(1, 2, 0))


@pytest.fixture
def calls(detector, monkeypatch):
    """Count what runs: the backbone's batches, and each head."""
    counted = {"backbone": [], "rbc": 0, "wbc": 0}
    detector.backbone.network.register_forward_hook(lambda _m, inputs, _o: counted["backbone"].append(len(inputs[0])))
    names, scored = {id(head.network.boxes): name for name, head in detector._heads.items()}, BoxHead.scored

    def counting(box_head, *inputs):
        counted[names[id(box_head)]] += 1
        return scored(box_head, *inputs)

    monkeypatch.setattr(BoxHead, "scored", counting)
    return counted


def test_the_backbone_runs_once_whatever_the_number_of_heads(detector, calls):
    """One picture costs one backbone pass for two heads, and for one; only heads that were asked for run."""
    detector.predict(picture())
    assert (calls["backbone"], calls["rbc"], calls["wbc"]) == ([1], 1, 1)
    detector.predict(picture(), heads=["wbc"])
    assert (calls["backbone"], calls["rbc"], calls["wbc"]) == ([1, 1], 1, 2)


def test_only_pictures_of_equal_padded_size_share_a_batch(detector, calls):
    """In a call over pictures of two sizes each batch holds one size, and results come in the order given."""
    mixed = [picture(120, 160), picture(160, 120), picture(120, 160, 1), picture(160, 120, 1)]
    found = detector.predict(mixed, batch_size=4)
    assert sorted(calls["backbone"]) == [2, 2]
    assert [item.image_size for item in found] == [(120, 160), (160, 120), (120, 160), (160, 120)]


def test_a_picture_gives_the_same_alone_and_among_others(detector):
    """Results of a list, mixed in size, equal bit for bit those of each picture alone."""
    mixed = [picture(120, 160, seed) if seed % 2 else picture(90, 200, seed) for seed in range(5)]
    alone = [detector.predict(item, score_threshold=0.0) for item in mixed]
    assert all(len(item) for item in alone)
    assert detector.predict(mixed, score_threshold=0.0) == alone
    assert detector.predict(mixed[::-1], score_threshold=0.0) == alone[::-1]


def test_larger_batches_agree_within_rounding(detector):
    """In a batch of four, boxes move by less than 0.01 px and scores by less than 1e-5."""
    pictures = [picture(seed=seed) for seed in range(4)]
    for one, many in zip(
        detector.predict(pictures, score_threshold=0.0),
        detector.predict(pictures, score_threshold=0.0, batch_size=4),
        strict=True,
    ):
        assert len(one) == len(many)
        np.testing.assert_allclose(np.sort(one.scores), np.sort(many.scores), atol=1e-5)
        for head, found in one.by_head().items():
            overlap = box_iou(found.boxes, many.by_head()[head].boxes)
            near = many.by_head()[head].boxes[overlap.argmax(axis=1)]
            np.testing.assert_allclose(found.boxes, near, atol=0.01)


def test_a_head_gives_the_same_alone_and_beside_others(split_store):
    """What a head finds does not depend on which others are loaded, in which order, or are dropped."""
    together = HydraDetector.from_store(split_store, ["rbc", "wbc"], device="cpu")
    turned = HydraDetector.from_store(split_store, ["wbc", "rbc"], device="cpu")
    alone = HydraDetector.from_store(split_store, ["wbc"], device="cpu")
    expected = alone.predict(picture(), score_threshold=0.0)
    assert len(expected)
    for detector in (together, turned):
        found = detector.predict(picture(), score_threshold=0.0)
        assert found.by_head()["wbc"] == expected
    together.unload_head("rbc")
    assert together.predict(picture(), score_threshold=0.0) == expected


def test_a_detector_equals_the_original(split_store, split_original):
    """Boxes, scores and labels equal those of torchvision's own model on the same picture, bit for bit."""
    model = small()
    model.load_state_dict(torch.load(split_original, weights_only=True))
    with torch.inference_mode():
        theirs = model([torch.from_numpy(picture()).permute(2, 0, 1) / 255])[0]
    ours = HydraDetector.from_store(split_store, ["rbc@1"], device="cpu", engine="exact").predict(picture())
    assert len(ours)
    assert np.array_equal(ours.boxes, theirs["boxes"].numpy())
    assert np.array_equal(ours.scores, theirs["scores"].numpy())
    assert np.array_equal(ours.labels, theirs["labels"].numpy())


def test_the_same_picture_gives_the_same_answer_in_every_form(detector, tmp_path):
    """Path, PIL image, RGB array, float array and tensors of one picture give equal detections."""
    pixels = picture()
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [
        pixels,
        str(path),
        path,
        Image.fromarray(pixels),
        pixels.astype(np.float32) / np.float32(255),
        tensor,
        tensor.float() / 255,
        tensor.contiguous(),
    ]
    answers = [detector.predict(form, score_threshold=0.0) for form in forms]
    assert len(answers[0])
    for answer in answers[1:]:
        assert np.array_equal(answer.boxes, answers[0].boxes)
        assert np.array_equal(answer.scores, answers[0].scores)


def test_one_in_one_out_many_in_a_list_out(detector, tmp_path):
    """One picture gives Detections; a list, folder, pattern or generator gives a list; nothing gives an empty list."""
    for name in ("b", "a"):
        Image.fromarray(picture()).save(tmp_path / f"{name}.png")
    assert isinstance(detector.predict(picture()), Detections)
    assert isinstance(detector.predict(tmp_path / "a.png"), Detections)
    for many in (tmp_path, str(tmp_path / "*.png"), [picture(), picture()], (picture() for _ in range(2))):
        found = detector.predict(many)
        assert [type(item) for item in found] == [Detections, Detections]
    assert [item.source for item in detector.predict(tmp_path)] == [str(tmp_path / n) for n in ("a.png", "b.png")]
    assert detector.predict([]) == []


def test_streaming_holds_only_one_batch(detector):
    """With stream=True pictures are read as results are taken, one batch ahead at most."""
    read = []

    def pictures():
        for seed in range(6):
            read.append(seed)
            yield picture(64, 64, seed)

    results = detector.predict(pictures(), stream=True, batch_size=2)
    assert read == []
    next(results)
    assert read == [0, 1]
    next(results)
    assert read == [0, 1]
    next(results)
    assert read == [0, 1, 2, 3]
    assert len(list(results)) == 3


@pytest.mark.parametrize("size", [1, 3])
def test_streaming_holds_no_more_pictures_than_a_batch(detector, size):
    """While the next picture is read, no more prepared pictures are alive than fit into one batch."""
    alive = []

    def pictures():
        for seed in range(7):
            gc.collect()
            alive.append(sum(type(item) is Job for item in gc.get_objects()))
            yield picture(64, 64, seed)

    assert len(list(detector.predict(pictures(), stream=True, batch_size=size))) == 7
    assert max(alive) == size - 1


def test_a_broken_picture_does_not_take_those_before_it_along(detector):
    """In one batch, good pictures before a broken one are answered, and then the error is raised."""
    results = detector.predict([picture(), picture(seed=1), "none.png", picture()], stream=True, batch_size=4)
    assert len([next(results), next(results)]) == 2
    with pytest.raises(InputError, match=r"none\.png"):
        next(results)
    assert list(results) == []


def test_loading_the_next_head_builds_only_that_head(split_store, monkeypatch):
    """Loading a second head builds one network and reads one file of weights, as loading the first does."""
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.storage.items import Item

    built, read = [], []
    make, read_file = RCNNHead.__init__, Item.read
    monkeypatch.setattr(RCNNHead, "__init__", lambda self, *a: (built.append(1), make(self, *a))[1])
    monkeypatch.setattr(
        Item, "read", lambda self, v, path: (read.append((self.name, path)), read_file(self, v, path))[1]
    )
    detector = HydraDetector.from_store(split_store, [], device="cpu")
    assert [name for name, path in read if path == layout.TENSORS] == ["default"]
    for place, name in enumerate(("rbc", "wbc", "rbc@2"), start=1):
        detector.load_head(name)
        assert (len(built), sum(path == layout.TENSORS for _, path in read)) == (place, place + 1)


def test_a_swap_never_brings_back_a_head_that_was_dropped(detector, monkeypatch):
    """If another thread unloads a head while its new version is read, the swap is refused and it stays dropped."""
    read = HydraDetector._read

    def drop_meanwhile(self, ref):
        head = read(self, ref)
        self.unload_head("rbc")
        return head

    monkeypatch.setattr(HydraDetector, "_read", drop_meanwhile)
    with pytest.raises(NotFoundError, match="cannot swap head 'rbc': it is not loaded"):
        detector.swap("rbc@2")
    assert set(detector.heads) == {"wbc"}


def test_timing_adds_up_and_names_every_head(detector):
    """Transform, backbone and heads are all positive and add up to the total."""
    timing = detector.predict(picture()).timing
    assert set(timing.heads) == {"rbc", "wbc"}
    parts = [timing.transform, timing.backbone, timing.shared, *timing.heads.values()]
    assert all(part > 0 for part in parts)
    assert timing.total == pytest.approx(sum(parts))
    with pytest.raises(TypeError, match="does not support item assignment"):
        timing.heads["rbc"] = 1.0
    assert pickle.loads(pickle.dumps(timing)) == timing  # noqa: S301  our own bytes


def test_memory_is_that_of_the_tensors(split_store):
    """Memory is counted per part from float32 tensors, and falls when a head is dropped."""
    detector = HydraDetector.from_store(split_store, device="cpu", engine="exact")
    memory = detector.memory()
    model = small()
    backbone = sum(v.numel() * v.element_size() for v in model.backbone.state_dict().values())
    whole = sum(v.numel() * v.element_size() for v in model.state_dict().values())
    assert memory.backbone == backbone
    assert memory.heads == {"rbc": whole - backbone, "wbc": whole - backbone}
    detector.unload_head("rbc")
    assert detector.memory().total == whole


def test_thresholds_are_the_heads_own_unless_given(detector):
    """A threshold given once or per head replaces the head's own, lower as well as higher."""
    everything = detector.predict(picture(), score_threshold=0.0)
    own = detector.predict(picture())
    assert own == everything.filter(score=np.nextafter(np.float32(0.05), np.float32(1)))
    middle = float(np.median(everything.scores))
    high = detector.predict(picture(), score_threshold=middle)
    assert 0 < len(high) < len(everything)
    assert (high.scores > middle).all()
    assert detector.predict(picture(), score_threshold=np.float64(middle)) == high
    kept = {head.network.chooser.roi_heads.score_thresh for head in detector._heads.values()}
    assert kept == {0.05}  # shared by threads
    mixed = detector.predict(picture(), score_threshold={"rbc": 1.0})
    assert set(mixed.heads.tolist()) == {"wbc"}


def test_versions_can_be_named_and_changed_while_loaded(split_store):
    """A reference loads that version, swap takes another, and each box says which version found it."""
    detector = HydraDetector.from_store(split_store, ["rbc@2"], device="cpu")
    second = detector.predict(picture(), score_threshold=0.0)
    assert set(second.head_versions.tolist()) == {2}
    assert detector.swap("rbc").number == 1
    first = detector.predict(picture(), score_threshold=0.0)
    assert set(first.head_versions.tolist()) == {1}
    assert first != second
    detector.swap("rbc@2")
    assert detector.predict(picture(), score_threshold=0.0) == second
    with pytest.raises(NotFoundError, match="cannot swap head 'wbc': it is not loaded"):
        detector.swap("wbc")


def test_eight_threads_predict_while_heads_are_swapped(split_store):
    """While versions are swapped under load, every result is wholly that of one version, in every thread."""
    detector = HydraDetector.from_store(split_store, ["rbc@1", "wbc"], device="cpu")
    expected = {}
    for number in (1, 2):
        detector.swap(f"rbc@{number}")
        expected[number] = detector.predict(picture(), heads=["rbc"], score_threshold=0.0)
    assert expected[1] != expected[2]
    seen, wrong, stop = [], [], threading.Event()

    def work():
        while not stop.is_set():
            found = detector.predict(picture(), heads=["rbc"], score_threshold=0.0)
            (number,) = set(found.head_versions.tolist())
            seen.append(number)
            if found != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    turn = 0
    while turn < 30 or (len(set(seen)) < 2 and turn < 1000):
        turn += 1
        detector.swap(f"rbc@{turn % 2 + 1}")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert len(seen) >= 8
    assert set(seen) == {1, 2}
    assert wrong == []


def test_a_head_for_another_backbone_is_refused(split_store, tmp_path):
    """Loading a head made for another backbone names every difference; what is loaded stays."""
    store = shutil.copytree(split_store, tmp_path / "copy")
    other = save(small(seed=9), tmp_path / "other.pth")
    split_checkpoint(other, store, head="owl", backbone="second", settings=SETTINGS)
    detector = HydraDetector.from_store(store, backbone="default", device="cpu")
    assert set(detector.heads) == {"rbc", "wbc"}  # owl belongs to the other backbone
    with pytest.raises(IncompatibleError, match="digest is") as caught:
        detector.load_head("owl")
    assert "'second'" in caught.value.remedy
    assert set(detector.heads) == {"rbc", "wbc"}
    with pytest.raises(NotFoundError, match="several: default, second"):
        HydraDetector.from_store(store)
    assert set(HydraDetector.from_store(store, backbone="second", device="cpu").heads) == {"owl"}


def test_a_detector_without_heads_finds_nothing(split_store):
    """No heads is an ordinary case: empty detections with size, source and timing."""
    detector = HydraDetector.from_store(split_store, [], device="cpu")
    found = detector.predict(picture())
    assert len(found) == 0
    assert found.image_size == (120, 160)
    assert found.timing.heads == {}
    assert found.timing.backbone > 0


def test_a_one_by_one_picture_is_an_ordinary_picture(detector):
    """A picture of one pixel is processed like any other."""
    found = detector.predict(np.zeros((1, 1, 3), np.uint8))
    assert found.image_size == (1, 1)


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_half_precision_finds_nearly_the_same(split_store, dtype):
    """In bfloat16 scores differ from float32 by at most 0.05, and half of the matching boxes by less than 0.5 px."""
    full = HydraDetector.from_store(split_store, device="cpu").predict(picture(), score_threshold=0.0)
    rough = HydraDetector.from_store(split_store, device="cpu", dtype=dtype).predict(picture(), score_threshold=0.0)
    assert rough.boxes.dtype == np.float32
    for head in ("rbc", "wbc"):
        one, other = full.by_head()[head], rough.by_head()[head]
        assert other.scores[0] == pytest.approx(one.scores[0], abs=0.05)
        near = other.boxes[box_iou(one.boxes, other.boxes).argmax(axis=1)]
        assert np.median(np.abs(one.boxes - near).max(axis=1)) < 0.5


def test_bad_requests_are_refused_clearly(detector, split_store, tmp_path):
    """Unknown heads, impossible thresholds, batch sizes, devices, stores and pictures raise our errors by name."""
    cases = [
        (lambda: detector.predict(picture(), heads="rbc"), InputError, "list of names"),
        (lambda: detector.predict(picture(), heads=[1]), InputError, "list of names"),
        (lambda: HydraDetector.from_store(split_store, ["rbc@1", "rbc@2"]), InputError, "named twice"),
        (lambda: HydraDetector.from_store(split_store, device="meta"), DeviceError, "meta"),
        (lambda: HydraDetector.from_store(split_store, device=None), DeviceError, "None"),
        (lambda: detector.predict(picture(), score_threshold=1.5), InputError, "1.5"),
        (lambda: detector.predict(picture(), score_threshold="high"), InputError, "high"),
        (lambda: detector.predict(picture(), score_threshold=float("nan")), InputError, "nan"),
        (lambda: detector.predict(picture(), score_threshold={"owl": 0.5}), NotFoundError, "owl"),
        (lambda: detector.predict(picture(), batch_size=0), InputError, "batch_size"),
        (lambda: detector.predict(tmp_path / "none.png"), InputError, "none.png"),
        (lambda: detector.predict(42), InputError, "of type int"),
        (lambda: detector.predict(picture(), max_pixels=100), InputError, "100"),
        (lambda: detector.unload_head("owl"), NotFoundError, "^cannot unload head 'owl': it is not loaded. There are"),
        (
            lambda: detector.swap("wcb@1"),
            NotFoundError,
            "^cannot swap head 'wcb': it is not loaded. Did you mean 'wbc'",
        ),
        (lambda: detector.predict(picture(), heads=["wcb"]), NotFoundError, "^cannot run head 'wcb': it is not loaded"),
        (lambda: detector.load_head("owl"), NotFoundError, "owl"),
        (lambda: detector.load_head("rbc@7"), NotFoundError, "no version 7"),
        (lambda: HydraDetector.from_store(split_store, "rbc"), InputError, "one reference"),
        (lambda: HydraDetector.from_store(split_store, HeadRef("rbc", 1)), InputError, "one reference"),
        (lambda: HydraDetector.from_store(split_store, HubRef("org/rbc")), InputError, "one reference"),
        (lambda: HydraDetector.from_store(split_store, device="cuda:99"), DeviceError, "cuda:99"),
        (lambda: HydraDetector.from_store(split_store, backbone="defualt"), NotFoundError, "default"),
        (lambda: HydraDetector.from_store(tmp_path / "none"), StoreError, "no such folder"),
    ]
    for act, error, match in cases:
        with pytest.raises(error, match=match):
            act()


def test_loading_does_not_touch_other_heads(detector):
    """Loading, swapping and dropping a head leaves the other head's network the very same object."""
    kept = detector._heads["wbc"]
    detector.load_head("rbc@2")
    detector.swap("rbc@1")
    detector.unload_head("rbc")
    assert detector._heads["wbc"] is kept
