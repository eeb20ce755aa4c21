"""Augmentations: pictures change by chance, boxes follow, and whatever is left is sound."""

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from training_fixtures import CLASSES, COLOURS, TRAIN, backbone, cache, shape_picture

from hydra_detect.errors import InputError, TrainingError
from hydra_detect.training.augment import Augmenter, built_in, list_augmentations, perturbed
from hydra_detect.training.config import PROFILES
from hydra_detect.training.features import FrozenFeatures
from hydra_detect.training.source import CachedSource

NAMES = sorted(built_in())
SPECTROGRAM = PROFILES["spectrogram"].augmentations
NONE = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
THINGS = (("disc", 4, 4, 20, 20), ("square", 30, 10, 58, 40))


def tensors(things, size=(48, 64)):
    """Return a picture [3, height, width] in [0, 1] with its boxes and labels."""
    pixels = torch.from_numpy(shape_picture(things, size)).permute(2, 0, 1) / 255
    boxes = torch.tensor([thing[1:] for thing in things], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([1 + CLASSES.index(thing[0]) for thing in things], dtype=torch.int64)
    return pixels, boxes, labels


def changed(names, picture, seed, given_ones=None):
    """Return a picture augmented by name, from a seed."""
    torch.manual_seed(seed)
    return Augmenter.named(names, given_ones)(*picture)


def centre(pixels, box):
    """Return the colour at the centre of a box, 0 to 255."""
    x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    return (pixels[:, y, x] * 255).round().int().tolist()


@pytest.mark.parametrize("name", NAMES)
def test_backgrounds(name):
    """A picture without boxes comes out of each augmentation a sound picture without boxes."""
    for seed in range(8):
        pixels, boxes, labels = changed([name], tensors(()), seed)
        assert (boxes.shape, labels.shape, labels.dtype) == ((0, 4), (0,), torch.int64)
        assert pixels.dtype == torch.float32
        assert 0 <= pixels.min() <= pixels.max() <= 1


def test_no_augmentation():
    """Without any a picture is what it was, and plain tensors come out."""
    picture = tensors(THINGS)
    for found, expected in zip(Augmenter(())(*picture), picture, strict=True):
        assert torch.equal(found, expected)
        assert type(found) is torch.Tensor


@pytest.mark.parametrize("names", [[name] for name in NAMES] + [list(p.augmentations) for p in PROFILES.values()])
@settings(max_examples=15)  # of each of many
@given(seed=st.integers(0, 1 << 30), channels=st.sampled_from([1, 3]))
def test_what_comes_out_is_sound(names, seed, channels):
    """Boxes lie within the new picture with an area, one label each, and the picture stays between 0 and 1."""
    pixels, boxes, labels = tensors(THINGS)
    found, moved, kept = changed(names, (pixels[:channels], boxes, labels), seed)
    height, width = found.shape[-2:]
    assert (len(found), found.dtype, moved.dtype) == (channels, torch.float32, torch.float32)
    assert len(moved) == len(kept)
    assert set(kept.tolist()) <= {1, 2}
    assert ((moved >= 0) & (moved <= torch.tensor([width, height, width, height]))).all()
    assert (moved[:, 2:] - moved[:, :2] >= 2).all()
    assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["hflip", "vflip", "rotate", "crop", "time_shift"])
def test_boxes_follow_what_moves(name):
    """Where a box is after a move, the thing of its label is."""
    for seed in range(30):
        pixels, boxes, labels = changed([name], tensors(THINGS), seed)
        for box, label in zip(boxes, labels, strict=True):
            if (box[2:] - box[:2]).min() > 8:  # of what was cut the middle may be another colour
                assert centre(pixels, box) == list(COLOURS[CLASSES[label - 1]]), (name, seed)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"hflip", "vflip", "rotate", "crop", "time_shift"}))
def test_boxes_stay_where_nothing_moves(name):
    """Colour, blur, loudness and masks leave boxes as they are, and do change the picture."""
    picture = tensors(THINGS)
    found = [changed([name], picture, seed) for seed in range(12)]
    assert all(torch.equal(boxes, picture[1]) and torch.equal(labels, picture[2]) for _, boxes, labels in found)
    assert any(not torch.equal(pixels, picture[0]) for pixels, _, _ in found)


@given(st.integers(0, 1 << 30), st.integers(0, 58), st.integers(3, 64))
def test_what_leaves_at_one_end_of_time_comes_in_at_the_other(seed, start, length):
    """A shifted signal is labelled wherever it is now, on both sides of the end if it lies across it."""
    end = min(64, start + length)
    pixels = torch.zeros(1, 8, 64)
    pixels[..., start:end] = 1
    signal = (pixels, torch.tensor([[start, 0.0, end, 8]]), torch.tensor([1]))
    moved, boxes, labels = changed(["time_shift"], signal, seed)
    labelled = torch.zeros(64)
    for x1, _y1, x2, _y2 in boxes.int().tolist():
        labelled[x1:x2] = 1
    bare = (labelled != moved[0, 0]).sum()  # a strip of less than two pixels is no object
    assert bare <= 2
    assert labels.tolist() == [1] * len(boxes)


def test_spectrogram_masks():
    """A mask silences at most a twentieth of time or band, to the mean of the picture."""
    picture = tensors((), size=(80, 100))
    for name, axis, most in (("time_mask", 2, 5), ("frequency_mask", 1, 4)):
        widths = set()
        for seed in range(20):
            pixels, _, _ = changed([name], picture, seed)
            masked = (pixels != picture[0]).all(dim=0).all(dim=2 - axis)
            assert pixels[(pixels != picture[0])].unique().numel() <= 1
            widths.add(int(masked.sum()))
        assert max(widths) == most
        assert min(widths) == 0


def test_thin_labels_stay():
    """A label may be thinner than what is taken for a sliver that an augmentation left: a tone in a spectrogram."""
    thin = torch.tensor([[4.0, 10.0, 44.0, 11.0], [20.0, 2.0, 20.5, 30.0]])
    picture = torch.rand(3, 48, 64), thin, torch.tensor([1, 2])
    for names in ((), ("brightness",), ("hflip",), ("gain", "time_mask")):
        _pixels, boxes, labels = changed(names, picture, 0)
        assert sorted(labels.tolist()) == [1, 2], names
        assert ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > 0.4).all()


def test_the_same_seed_gives_the_same():
    """Chance is torch's own: a seed gives the same pictures again, and another seed others."""
    first, again, other = (changed(["crop", "brightness", "hflip"], tensors(THINGS), seed) for seed in (3, 3, 4))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_your_own():
    """A callable of the signature and each of torchvision's transforms are augmentations, in the order given."""
    order = []

    def note(picture, target):
        order.append(tuple(picture.shape))
        return picture, target

    given_ones = {"note": note, "half": v2.Resize((24, 32)), "grey": v2.Grayscale(3)}
    pixels, boxes, _ = changed(["note", "half", "note", "grey"], tensors(THINGS), 0, given_ones)
    assert order == [(3, 48, 64), (3, 24, 32)]
    assert boxes.tolist() == [[2, 2, 10, 10], [15, 5, 29, 20]]
    assert torch.equal(pixels[0], pixels[1])
    assert not {"note", "half", "grey"} & set(list_augmentations())
    assert set(NAMES) <= set(list_augmentations())


def framed(boxes, size=(48, 64), layout="XYXY"):
    """Return boxes as torchvision's transforms know them."""
    return tv_tensors.BoundingBoxes(boxes, format=layout, canvas_size=size)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda _picture, _target: None, "None"),
        (lambda picture, _target: picture, r"Image \[3, 48, 64\] float32"),
        (lambda picture, target: (picture, target["boxes"], target["labels"]), "tuple"),
        (lambda picture, _target: (picture, None), "None for a target"),
        (lambda _picture, target: (None, target), "None for a picture of 3 channels"),
        (lambda picture, target: (picture[0], target), r"Tensor \[48, 64\] float32 for a picture of 3 channels"),
        (lambda picture, target: (picture[:1], target), r"Tensor \[1, 48, 64\] float32 for a picture of 3 channels"),
        (lambda picture, target: (picture.numpy(), target), r"ndarray \[3, 48, 64\] float32 for a picture"),
        (lambda picture, target: (picture.to(torch.uint8), target), r"\[3, 48, 64\] uint8 for a picture"),
        (lambda picture, _target: (picture, {}), "None for boxes"),
        (lambda picture, target: (picture, {**target, "boxes": target["boxes"] + 1}), r"Tensor \[2, 4\] float32"),
        (lambda picture, target: (picture, {**target, "boxes": framed(target["boxes"], layout="XYWH")}), "in XYWH of"),
        (lambda picture, target: (picture[:, :9], target), r"boxes in XYXY of \(48, 64\) in a picture of \(9, 64\)"),
        (lambda picture, target: (picture, {"boxes": target["boxes"]}), "None for labels"),
        (lambda picture, target: (picture, {**target, "labels": [1, 2]}), "list for labels"),
        (lambda picture, target: (picture, {**target, "labels": target["labels"][:1]}), "2 boxes and 1 labels"),
    ],
)  # fmt: skip
def test_your_own_of_another_form(wrong, said):
    """What an augmentation returns that is no picture with its target is told with its name and what it should be."""
    with pytest.raises(TrainingError, match=f"cannot augment with 'mine': it returned .*{said}") as caught:
        changed(["hflip", "mine", "vflip"], tensors(THINGS), 0, {"mine": wrong})
    assert "tv_tensors.BoundingBoxes" in caught.value.remedy
    assert caught.value.facts["augmentation"] == "mine"


def test_an_unknown_name():
    """A name that stands for nothing is refused with what is near."""
    with pytest.raises(InputError, match=r"find 'hflipp' among augmentations: there is none\. Did you mean 'hflip"):
        Augmenter.named(["hflipp"])


def seen(tmp_path, number=1):
    """Return what a training sees of a sample."""
    return CachedSource(FrozenFeatures(backbone(), cache(tmp_path)), CLASSES, views=("plain",)).plain(TRAIN[number])


def test_noise_of_nothing_changes_nothing(tmp_path):
    """Without noise a picture is seen as it is, and no random number is drawn."""
    before = torch.get_rng_state()
    one = seen(tmp_path)
    assert perturbed(one, box_jitter=0, feature_noise=0) is one
    assert torch.equal(torch.get_rng_state(), before)
    empty = seen(tmp_path, 3)
    assert len(empty.boxes) == 0
    assert perturbed(empty, box_jitter=0.5, feature_noise=0) is empty


def test_jittered_boxes_are_sound(tmp_path):
    """Edges move by a share of the sides, no box loses more than half of a side or leaves the picture."""
    one = seen(tmp_path)
    touching = attrs.evolve(one, boxes=torch.tensor([[0.0, 0, 64, 48], [50, 40, 64, 48]]), labels=torch.tensor([1, 2]))
    torch.manual_seed(0)
    moved = torch.stack([perturbed(touching, box_jitter=0.5, feature_noise=0).boxes for _ in range(200)])
    sides, before = moved[..., 2:] - moved[..., :2], touching.boxes[:, 2:] - touching.boxes[:, :2]
    assert (sides >= before / 2).all()
    assert (moved >= 0).all()
    assert (moved <= torch.tensor([64.0, 48, 64, 48])).all()
    assert moved.std(dim=0).max() > 1
    small = torch.stack([perturbed(touching, box_jitter=0.01, feature_noise=0).boxes for _ in range(200)])
    assert float((small[:, 1, 0] - 50).std()) == pytest.approx(0.01 * 14, rel=0.3)


def test_noisy_features(tmp_path):
    """Noise is a share of each map's own spread, is new each time, and leaves what is kept as it was."""
    one = seen(tmp_path)
    before = {name: level.clone() for name, level in one.encoded.maps.items()}
    noisy = [perturbed(one, box_jitter=0, feature_noise=0.1) for _ in range(2)]
    for name, level in before.items():
        assert torch.equal(one.encoded.maps[name], level)
        noise = noisy[0].encoded.maps[name] - level
        assert float(noise.std()) == pytest.approx(0.1 * float(level.std()), rel=0.2)
        assert not torch.equal(noisy[0].encoded.maps[name], noisy[1].encoded.maps[name])
    assert torch.equal(noisy[0].boxes, one.boxes)
    assert np.array_equal(noisy[0].labels, one.labels)


@pytest.mark.parametrize("channels", [2, 4])
def test_colours_of_pictures_that_have_none(channels):
    """What changes light or colour is refused for pictures of other than 1 or 3 channels; the rest takes them."""
    with pytest.raises(InputError, match=f"brightness, colour change pictures of 1 or 3 channels, .* takes {channels}"):
        Augmenter.named(["hflip", "colour", "brightness"], channels=channels)
    augmenter = Augmenter.named(["hflip", "vflip", "crop", "gain"], channels=channels)
    pixels, _boxes, _labels = augmenter(torch.rand(channels, 8, 9), torch.tensor([[1.0, 1, 6, 6]]), torch.tensor([1]))
    assert pixels.shape[0] == channels
