"""Duplicates: copies of a picture are one group, pictures that merely hold nothing are not."""

import io
import tracemalloc

import attrs
import numpy as np
import pytest
from data_fixtures import DEMO, picture, samples_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from hydra_detect.data.duplicates import _alike, cell_differences, group_near_duplicates
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.pictures import open_picture

PHOTOGRAPHS = sorted((DEMO / "pictures").glob("*.jpg"))


def of_pictures(pictures, groups=None):
    """Return background samples of these pictures, named by their numbers."""
    items = [
        Sample(id=f"{n:02}", picture=one, truth=GroundTruth([], [], open_picture(one).image_size))
        for n, one in enumerate(pictures)
    ]
    return Samples(items=[attrs.evolve(s, group=(groups or {}).get(s.id, s.id)) for s in items])


def jpeg(image, quality):
    """Return the image as JPEG of this quality would have it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue()))


COPIES = {
    "re-encoded": lambda image: jpeg(image, 30),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "a fifth": lambda image: image.resize((image.width // 5, image.height // 5), Image.Resampling.BICUBIC),
    "stretched": lambda image: image.resize((500, 500), Image.Resampling.LANCZOS),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": ImageOps.grayscale,
}


def groups_of(samples, **settings):
    """Return the groups after near-duplicates were joined."""
    return [s.group for s in group_near_duplicates(samples, **settings)]


def test_empty_first():
    """No samples have no duplicates."""
    assert group_near_duplicates(Samples()) == Samples()


@pytest.mark.parametrize("change", COPIES)
def test_copies_of_photographs_are_found(change):
    """A changed copy joins the photograph it was made of and no other, for every one of them."""
    originals = [Image.open(path) for path in PHOTOGRAPHS]
    copies = [COPIES[change](image) for image in originals]
    names = [f"{n:02}" for n in range(len(originals))]
    assert groups_of(of_pictures([*originals, *copies])) == names * 2


def test_different_photographs_stay_apart():
    """Photographs of the same kind of thing are no duplicates, mirrored ones neither."""
    mirrored = [ImageOps.mirror(Image.open(path)) for path in PHOTOGRAPHS]
    samples = of_pictures([*map(Image.open, PHOTOGRAPHS), *mirrored])
    assert group_near_duplicates(samples) == samples


@pytest.mark.parametrize("noise", [0, 0.002, 0.02, 0.1, 0.3])
def test_empty_spectrograms_stay_apart(noise):
    """Flat and noisy spectrograms without a signal are different recordings, however alike they look."""
    chance = np.random.default_rng(0)
    pictures = [np.clip(0.3 + noise * chance.standard_normal((120, 160)), 0, 1) for _n in range(30)]
    samples = of_pictures([picture.astype(np.float32) for picture in pictures])
    assert group_near_duplicates(samples) == samples


def test_steady_tones_are_no_likeness():
    """A hum of the same pitch in two recordings does not join them: nothing changes from left to right."""
    chance, hum = np.random.default_rng(0), np.zeros((120, 160), dtype=np.float32)
    hum[30:45] = hum[80:90] = 0.6
    noisy = [np.clip(hum + 0.05 + 0.01 * chance.standard_normal(hum.shape), 0, 1) for _n in range(10)]
    samples = of_pictures([picture.astype(np.float32) for picture in noisy])
    assert group_near_duplicates(samples) == samples


def test_groups_of_before_are_joined_too():
    """A duplicate joins whole groups, under the first of their names; all other samples stay as they were."""
    one, other, third = (Image.open(path) for path in PHOTOGRAPHS[:3])
    pictures = [one, other, jpeg(one, 50), third, jpeg(third, 50)]
    samples = of_pictures(pictures, groups={"00": "night", "01": "night", "02": "day"})
    assert groups_of(samples) == ["day", "day", "day", "03", "03"]
    again = group_near_duplicates(group_near_duplicates(samples))
    assert [s.group for s in again] == ["day", "day", "day", "03", "03"]
    assert [s.digest for s in again] == [s.digest for s in samples]


@given(st.permutations(range(5)))
def test_the_order_of_the_samples_does_not_count(order):
    """Each sample has the same group in whatever order they stand."""
    noise = [np.kron(picture(n, (8, 9)), np.ones((4, 4, 1), dtype=np.uint8)) for n in (0, 1, 0, 1, 2)]
    samples = of_pictures(noise)
    expected = {"00": "00", "01": "01", "02": "00", "03": "01", "04": "04"}
    assert {s.id: s.group for s in group_near_duplicates(samples[list(order)])} == expected


@given(st.integers(0, 16), st.integers(0, 20))
def test_just_so_many_bits_may_differ(most_bits, differing):
    """Pictures are joined exactly if the signs of at most `most_bits` of 64 differences differ."""
    steps = np.where(np.random.default_rng(0).random((8, 8)) < 0.5, -20, 20)
    changed = steps.copy()
    changed.flat[:differing] *= -1
    cells = [np.cumsum(np.hstack([np.full((8, 1), 0), each]), axis=1) for each in (steps, changed)]
    grey = [np.clip(each - each.min(axis=1, keepdims=True) + 10, 0, 255).astype(np.uint8) for each in cells]
    samples = of_pictures(grey)
    assert (len(set(groups_of(samples, most_bits=most_bits))) == 1) == (differing <= most_bits)


def test_differences_are_those_of_averaged_cells():
    """Each of the 8 x 9 cells is the mean of its pixels, and of neighbours the left is taken from the right."""
    grey = np.random.default_rng(0).random((16, 27), dtype=np.float32)
    cells = grey.reshape(8, 2, 9, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(cell_differences(open_picture(grey)), np.diff(cells, axis=1).ravel(), atol=1e-6)


def test_many_alike_frames():
    """Three thousand frames of one camera are one group, found without a word for each of their 4.5 million pairs."""
    source = np.random.default_rng(0)
    frame = source.normal(0, 1, 64).astype(np.float32)
    frames = np.repeat(frame[None], 3000, axis=0)
    frames[source.random(frames.shape) < 0.01] *= -1  # about one bit in 64
    others = source.normal(0, 1, (50, 64)).astype(np.float32)
    tracemalloc.start()
    shared = _alike(np.concatenate([others, frames]), 4)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({*shared[50:].tolist()}) == 1
    assert len({*shared[:50].tolist()} - {*shared[50:].tolist()}) == 50
    assert most < 60 << 20


@pytest.mark.parametrize("most_bits", [-1, 17])
def test_bits_out_of_range(most_bits):
    """So many bits that anything would be alike are refused."""
    with pytest.raises(InputError, match=f"most_bits is {most_bits}"):
        group_near_duplicates(samples_of([]), most_bits=most_bits)
