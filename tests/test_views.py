"""Views: exact ways of seeing a picture, with its boxes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.errors import InputError
from hydra_detect.training.config import VIEWS
from hydra_detect.training.views import see

NONE = torch.zeros(0, 4)


@st.composite
def marked(draw):
    """Draw a small black picture [2, height, width] with white rectangles of whole pixels, and their boxes [N, 4]."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    pixels, boxes = torch.zeros(2, height, width), []
    for _box in range(draw(st.integers(0, 3))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
        boxes.append([x1, y1, x2, y2])
        pixels[len(boxes) % 2, y1:y2, x1:x2] += len(boxes)
    return pixels, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def drawn(shape, boxes):
    """Draw rectangles as `marked` does."""
    pixels = torch.zeros(shape)
    for number, (x1, y1, x2, y2) in enumerate(boxes.int().tolist(), start=1):
        pixels[number % 2, y1:y2, x1:x2] += number
    return pixels


def repeated(view, times, pixels, boxes):
    """See a picture in one view after another."""
    for _time in range(times):
        pixels, boxes = see(view, pixels, boxes)
    return pixels, boxes


@pytest.mark.parametrize("view", VIEWS)
def test_no_boxes(view):
    """A picture without boxes, and one without any pixel's worth of channels, are seen like others."""
    pixels, boxes = see(view, torch.empty(0, 3, 5), NONE)
    assert boxes.shape == (0, 4)
    assert pixels.shape == ((0, 5, 3) if view in {"rot90", "rot270"} else (0, 3, 5))


@pytest.mark.parametrize("view", VIEWS)
@given(marked())
def test_boxes_follow_the_pixels(view, example):
    """Whatever is drawn where boxes are is where the boxes of the view are, to the pixel."""
    pixels, boxes = see(view, *example)
    assert torch.equal(pixels, drawn(pixels.shape, boxes))
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@given(marked())
def test_views_undo_themselves(example):
    """Mirrored or half turned twice, quarter turned four times, a picture is what it was; two halves are a whole."""
    for view, times in (("plain", 1), ("hflip", 2), ("vflip", 2), ("rot180", 2), ("rot90", 4), ("rot270", 4)):
        for found, expected in zip(repeated(view, times, *example), example, strict=True):
            assert torch.equal(found, expected), view
    for found, expected in zip(see("rot270", *see("rot90", *example)), example, strict=True):
        assert torch.equal(found, expected)


def test_what_each_does():
    """On six pixels: mirrored left to right, top to bottom, and turned clockwise by so many degrees."""
    pixels = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    found = {view: see(view, pixels, NONE)[0][0].tolist() for view in VIEWS}
    assert found == {
        "plain": [[1, 2, 3], [4, 5, 6]],
        "hflip": [[3, 2, 1], [6, 5, 4]],
        "vflip": [[4, 5, 6], [1, 2, 3]],
        "rot90": [[4, 1], [5, 2], [6, 3]],
        "rot180": [[6, 5, 4], [3, 2, 1]],
        "rot270": [[3, 6], [2, 5], [1, 4]],
    }


def test_an_unknown_view():
    """A view that there is not is refused with what is near."""
    with pytest.raises(InputError, match=r"no view 'hfilp'. Did you mean 'hflip'"):
        see("hfilp", torch.zeros(1, 2, 2), NONE)
