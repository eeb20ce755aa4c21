"""Drawing: boxes on their picture, legible and inside it."""

import io
import subprocess
import sys
import time

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from PIL import Image

from hydra_detect import drawing
from hydra_detect.detections import Detections
from hydra_detect.errors import InputError


def make(boxes, **changes):
    """Return detections with these boxes in a grey picture of 200 x 300."""
    n = len(boxes)
    values = {
        "boxes": boxes, "scores": np.linspace(1, 0.5, n), "labels": [1] * n, "label_names": ["RBC"] * n,
        "heads": ["blood"] * n, "head_versions": [1] * n, "image_size": (200, 300),
    }  # fmt: skip
    return Detections(**(values | changes))


def grey(height=200, width=300):
    """Return an even picture."""
    return np.full((height, width, 3), 128, dtype=np.uint8)


def changed(image):
    """Return [height, width] where a drawing differs from the even picture."""
    return (np.asarray(image) != 128).any(axis=2)


def test_no_boxes_give_the_picture_itself():
    """Drawing nothing changes no pixel and not the picture given."""
    picture = grey()
    image = drawing.plot(make([]), picture)
    assert (image.size, image.mode) == ((300, 200), "RGB")
    assert not changed(image).any()
    drawing.plot(make([(10, 10, 50, 50)]), picture)
    assert (picture == 128).all()


def test_the_outline_lies_on_the_box():
    """The outermost pixels of the box are coloured, those around it are not, and the middle is left free."""
    image = drawing.plot(make([(20, 100, 80, 160)]), grey())
    colour = drawing.colour_of("blood", "RBC")
    pixels = np.asarray(image)
    for x, y in ((20, 130), (79, 130), (50, 100), (50, 159)):
        assert tuple(pixels[y, x]) == colour
    assert not changed(image)[100:170, 80:].any()
    assert not changed(image)[110:150, 30:70].any()


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 40), (260, 0, 300, 40), (0, 160, 40, 200), (260, 160, 300, 200), (0, 0, 300, 200)]
)
def test_labels_stay_inside_the_picture(box):
    """In every corner a whole label is drawn: as many coloured pixels as in the middle of the picture."""
    label = [drawing.colour_of("blood", "RBC")]
    style = drawing._Style.fitting((300, 200), 1)
    brush = drawing.ImageDraw.Draw(Image.new("RGB", (300, 200)))
    size = drawing._text_size(brush, "RBC 1.00", style)
    edges = drawing._edges(np.array(box, dtype=float), (300, 200))
    left, top, right, bottom = drawing._free_place(edges, size, (300, 200), [])
    assert (right - left, bottom - top) == size
    assert 0 <= left < right <= 300
    assert 0 <= top < bottom <= 200
    filled = np.isin(np.asarray(drawing.plot(make([box]), grey())), label).all(axis=2)
    assert filled[top:bottom, left:right].mean() > 0.4


def test_labels_never_cover_each_other():
    """Where many boxes lie together only some labels are drawn, and those lie apart and cover little."""
    places = []
    for left in range(0, 280, 4):
        edges = (left, 100, left + 10, 110)
        place = drawing._free_place(edges, (50, 12), (300, 200), places)
        if place:
            assert not any(drawing._overlap(place, other) for other in places)
            places.append(place)
    assert 5 < len(places) < 40
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 190, (500, 2))
    crowded = drawing.plot(make(np.hstack([corner, corner + 8]), scores=rng.uniform(0, 1, 500)), grey())
    assert changed(crowded)[:, 200:].mean() < 0.2


def test_lines_and_letters_grow_with_the_picture_and_shrink_in_a_crowd():
    """A large picture gets thicker lines, a crowded one thin ones."""
    small, large, crowded = (
        drawing._Style.fitting(*given) for given in (((90, 90), 1), ((3000, 3000), 1), ((3000, 3000), 900))
    )
    assert small.line == 1
    assert large.line == 10
    assert crowded.line < 4
    assert small.font.size < crowded.font.size < large.font.size


def test_colours_are_distinct_within_a_picture_and_the_same_in_another_process():
    """Classes differ in colour while the palette lasts, and a class's colour does not depend on the process."""
    names = [f"class{n}" for n in range(len(drawing.PALETTE))]
    d = make([(0, 0, 9, 9)] * len(names), label_names=names)
    assert len(set(drawing._colours(d))) == len(names)
    assert len(drawing._colours(make([(0, 0, 9, 9)] * 50, label_names=[f"c{n}" for n in range(50)]))) == 50
    script = "from hydra_detect.drawing import colour_of; print(colour_of('blood', 'RBC'))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(drawing.colour_of("blood", "RBC"))


@settings(max_examples=20)
@given(strategies.detections(low=-1000))
def test_any_detections_can_be_drawn(d):
    """Boxes outside the picture, without area, with any name: drawing them raises nothing."""
    height, width = 37, 53
    fitted = drawing.attrs.evolve(d, image_size=(height, width))
    assert drawing.plot(fitted, grey(height, width)).size == (width, height)
    assert drawing.html(fitted).count("<tr>") == len(d) + 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (5, 5, 1), (200, 2)])
def test_tiny_pictures_can_be_drawn_on(shape):
    """A picture too small for any label still gets its box."""
    d = make([(0, 0, shape[1], shape[0])], image_size=shape[:2])
    image = drawing.plot(d, np.zeros(shape, dtype=np.uint8))
    assert np.asarray(image).any()


def test_the_picture_is_found_by_source(tmp_path):
    """Without a picture the file at the source is drawn on; without both, or with another size, it is an error."""
    Image.fromarray(grey()).save(tmp_path / "a.png")
    known = make([(10, 50, 60, 90)], source=str(tmp_path / "a.png"))
    assert changed(drawing.plot(known)).any()
    with pytest.raises(InputError, match="do not know their picture"):
        drawing.plot(make([]))
    with pytest.raises(InputError, match=r"\[100, 300\] and the boxes belong to one of \[200, 300\]"):
        drawing.plot(known, grey(100))


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "tif", "bmp"])
def test_save_writes_by_ending(tmp_path, ending):
    """The file's ending tells its format, in either case."""
    path = tmp_path / f"out.{ending}"
    drawing.save(make([(10, 50, 60, 90)]), path, grey())
    with Image.open(path) as image:
        assert image.size == (300, 200)


def test_save_refuses_what_cannot_be_written(tmp_path):
    """A missing folder and an unknown ending are named before anything is drawn."""
    with pytest.raises(InputError, match=r"there is no folder .*missing"):
        drawing.save(make([]), tmp_path / "missing" / "a.png", grey())
    with pytest.raises(InputError, match=r"'\.txt' is of no picture format"):
        drawing.save(make([]), tmp_path / "a.txt", grey())
    with pytest.raises(InputError, match="has no ending"):
        drawing.save(make([]), tmp_path / "a", grey())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        drawing.save(make([]), tmp_path / "folder.png", grey())


def test_png_is_small_enough_for_a_notebook(tmp_path):
    """A large picture is shown at 1024 pixels with its boxes in place; without a file there is no PNG."""
    Image.fromarray(grey(300, 2048)).save(tmp_path / "wide.png")
    d = make([(1024, 100, 2048, 300)], image_size=(300, 2048), source=str(tmp_path / "wide.png"))
    with Image.open(io.BytesIO(drawing.png(d))) as image:
        assert image.size == (1024, 150)
        assert changed(image)[100, 512]
        assert not changed(image)[:, :500].any()
    assert drawing.png(make([])) is None
    assert drawing.png(make([], source=str(tmp_path / "gone.png"))) is None


def test_html_is_escaped(tmp_path):
    """Names and paths from strangers become text, not markup; the drawing is embedded where there is one."""
    d = make([(0, 0, 9, 9)], label_names=["<script>"], source='"><b>')
    text = drawing.html(d)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text
    assert "base64" not in text
    Image.fromarray(grey()).save(tmp_path / "a.png")
    assert "data:image/png;base64," in drawing.html(make([], source=str(tmp_path / "a.png")))


def test_a_thousand_boxes_are_drawn_in_time():
    """Placing labels among a thousand boxes does not take longer than a few seconds."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 900, (1000, 2))
    d = make(np.hstack([corner, corner + 50]), scores=rng.uniform(0, 1, 1000), image_size=(1000, 1000))
    begun = time.perf_counter()
    drawing.plot(d, grey(1000, 1000))
    assert time.perf_counter() - begun < 5
