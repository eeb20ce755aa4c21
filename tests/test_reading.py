"""Reading data sets: every box is used or counted, and what would make labels wrong is refused."""

import logging
import re
import struct
import zlib
from pathlib import Path

import pytest
from data_fixtures import DEMO, SIZE, coco_of, on_disk, picture, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hydra_detect.data.reading import read_samples
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.data.writing import write_samples
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.formats.labels import CLIPPED, CROWDS, NO_AREA, OUTSIDE
from hydra_detect.pictures import image_size_of, open_picture


def warnings_of(caplog):
    """Return what the reader warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "hydra_detect.data.reading"]


def voc_of(*boxes, name="a.png", size=SIZE):
    """Return a VOC annotation as labelling programs write it."""
    objects = "".join(
        f"<object><name>{label}</name><pose>Unspecified</pose><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    height, width = size
    sides = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>JPEGImages</folder><filename>{name}</filename>{sides}{objects}</annotation>"


# Boxes that cannot be learnt from


def test_annotations_by_hand_with_boxes_of_no_size(tmp_path, caplog):
    """VOC files with boxes of no size, as in a well-known set of blood cells, read without them, with one warning."""
    save(tmp_path / "JPEGImages", "a.png")
    save(tmp_path / "JPEGImages", "b.png", seed=1)
    (tmp_path / "Annotations").mkdir()
    bad = [("RBC", 9, 9, 9, 9), ("RBC", 1, 2, 8, 2), ("WBC", 1, 2, 8, 9)]
    (tmp_path / "Annotations/a.xml").write_text(voc_of(*bad))
    (tmp_path / "Annotations/b.xml").write_text(voc_of(("RBC", 3, 3, 3, 7), name="b.png"))
    with caplog.at_level(logging.WARNING):
        samples = read_samples(tmp_path)
    assert warnings_of(caplog) == [f"left out of {tmp_path}: 3 {NO_AREA}"]
    assert (samples.skipped, samples.box_counts, samples.backgrounds) == ({NO_AREA: 3}, {"WBC": 1}, 1)


def test_voc_counted_from_one(tmp_path):
    """A set of the devkit's is read as it counts where that is said; where labels cannot count so, it is refused."""
    save(tmp_path, "a.png")
    (tmp_path / "a.xml").write_text(voc_of(("owl", 1, 1, 32, 24), ("owl", 9, 9, 9, 9)))
    (plain,) = read_samples(tmp_path)
    assert plain.truth.boxes.tolist() == [[1, 1, 32, 24]]
    (one,) = samples = read_samples(tmp_path, voc_from_one=True)
    assert one.truth.boxes.tolist() == [[0, 0, 32, 24], [8, 8, 9, 9]]
    assert samples.skipped == {}
    path = write_samples(samples, tmp_path / "labels.csv", format="csv")
    with pytest.raises(InputError, match="the labels are csv, and VOC alone"):
        read_samples(path, voc_from_one=True)


def test_boxes_beyond_the_picture(tmp_path, caplog):
    """Boxes outside are left out, those that stick out are clipped, crowds are no boxes; each is counted."""
    boxes = [[-5, -5, 10, 10], [40, 1, 5, 5], [30, 20, 9, 9], [32, 0, 5, 5], [0, 0, 32.004, 24], [1, 1, 0, 5]]
    crowd = {"bbox": [1, 1, 9, 9], "iscrowd": 1}
    path = coco_of(tmp_path, *({"bbox": box} for box in boxes), crowd)
    with caplog.at_level(logging.WARNING):
        (one,) = samples = read_samples(path)
    assert one.truth.boxes.tolist() == [[0, 0, 5, 5], [30, 20, 32, 24], [0, 0, 32, 24]]
    assert samples.skipped == {OUTSIDE: 2, CLIPPED: 2, NO_AREA: 1, CROWDS: 1}
    (warning,) = warnings_of(caplog)
    for reason, count in samples.skipped.items():
        assert f"{count} {reason}" in warning


def test_a_clean_data_set_warns_of_nothing(caplog):
    """The demo's labels read whole and in silence."""
    samples = read_samples(DEMO / "labels.coco.json", pictures=DEMO / "pictures")
    assert (len(samples), samples.skipped, warnings_of(caplog)) == (12, {}, [])
    assert samples.box_counts.keys() == {"RBC", "WBC", "Platelets"}
    assert samples[0].open().image_size == samples[0].truth.image_size


@given(
    st.lists(st.lists(st.floats(-60, 60, width=32) | st.integers(-60, 60), min_size=4, max_size=4), max_size=6),
)
def test_every_box_is_used_or_counted(tmp_path_factory, rows):
    """Whatever finite boxes stand there, each is a sample's box or counted as left out, and none breaks anything."""
    boxes = [[x, y, abs(width), abs(height)] for x, y, width, height in rows]
    path = coco_of(tmp_path_factory.mktemp("set"), *({"bbox": box} for box in boxes))
    samples = read_samples(path)
    assert len(samples[0].truth) + samples.skipped.get(NO_AREA, 0) + samples.skipped.get(OUTSIDE, 0) == len(boxes)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", '"7"', "null"])
def test_what_is_no_number_is_refused_in_every_format(tmp_path, text):
    """NaN, infinity and words are no corners: the file and the place in it are named."""
    path = coco_of(tmp_path, {"bbox": [1, 2, 3, 77]})
    path.write_text(path.read_text().replace("77", text))
    word = text.strip('"').replace("7", "seven")
    (tmp_path / "a.xml").write_text(voc_of(("owl", 1, 2, 3, word)))
    (tmp_path / "a.txt").write_text(f"0 .5 .5 .5 {word}\n")
    (tmp_path / "classes.txt").write_text("owl\n")
    (tmp_path / "labels.csv").write_text(f"image,x1,y1,x2,y2,label\na.png,1,2,3,{word},owl\n")
    places = {
        "coco": r"labels\.json'.*number 3 of 'bbox' of annotations\[0\]",
        "voc": r"a\.xml'.*'bndbox/ymax' of object 1",
        "yolo": r"a\.txt'.*line 1",
        "csv": r"labels\.csv'.*'y2' of line 2",
    }
    for label_format, place in places.items():
        with pytest.raises(InputError, match=place):
            read_samples(tmp_path, format=label_format)


def test_boxes_the_wrong_way_round_are_refused_in_every_format(tmp_path):
    """A box whose corners are swapped is a mistake of the whole file, and none that is skipped."""
    coco_of(tmp_path, {"bbox": [9, 2, -3, 7]})
    (tmp_path / "a.xml").write_text(voc_of(("owl", 9, 2, 3, 8)))
    (tmp_path / "a.txt").write_text("0 .5 .5 -.5 .1\n")
    (tmp_path / "classes.txt").write_text("owl\n")
    (tmp_path / "labels.csv").write_text("image,x1,y1,x2,y2,label\na.png,9,2,3,8,owl\n")
    places = {
        "coco": r"annotations\[0\].*negative width",
        "voc": "object 1.*x2 < x1",
        "yolo": "line 1.*negative",
        "csv": "line 2.*x2 < x1",
    }
    for label_format, place in places.items():
        with pytest.raises(InputError, match=place):
            read_samples(tmp_path, format=label_format)


# Pictures


def test_missing_pictures_are_refused_or_counted(tmp_path, caplog):
    """A picture that is not there is named; asked to, the reader does without it and counts."""
    images = [{"id": n, "file_name": f"{'ab'[n]}.png", "height": 24, "width": 32} for n in range(2)]
    path = coco_of(tmp_path, images=images)
    with pytest.raises(InputError, match=r"1 of 2 pictures or their labels are not there: 'b\.png'") as caught:
        read_samples(path)
    assert caught.value.facts == {"missing": ["'b.png'"]}
    with caplog.at_level(logging.WARNING):
        samples = read_samples(path, missing="skip")
    assert [one.id for one in samples] == ["a.png"]
    assert samples.skipped == {"missing pictures or label files": 1}
    assert len(warnings_of(caplog)) == 1
    with pytest.raises(InputError, match="missing is 'ignore'"):
        read_samples(path, missing="ignore")


def test_pictures_of_another_size_than_labelled_are_refused(tmp_path):
    """Labels of another frame would be boxes elsewhere; a stated size of 0 states nothing."""
    path = coco_of(tmp_path, images=[{"id": 1, "file_name": "a.png", "height": 32, "width": 24}])
    with pytest.raises(InputError, match=r"labels\.json'.* for 32 x 24 \(height x width\), and it is 24 x 32"):
        read_samples(path)
    path = coco_of(tmp_path, images=[{"id": 1, "file_name": "a.png", "height": 0, "width": 0}])
    assert read_samples(path)[0].truth.image_size == SIZE
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png'.*no picture of a known kind"):
        read_samples(path)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_sizes_are_upright_as_pictures_are(tmp_path, turn, ending):
    """The size from the header is that of the opened picture, whatever EXIF says of its orientation."""
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(picture(0)).save(path, exif=exif)
    assert image_size_of(path) == open_picture(path).image_size == (SIZE if turn < 5 else SIZE[::-1])


def test_a_png_may_tell_its_orientation_last(tmp_path):
    """EXIF behind the pixels of a PNG counts too, as it does when the picture is opened."""
    path, exif = save(tmp_path, "a.png"), Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    data, length, check = path.read_bytes(), len(chunk) - 4, zlib.crc32(chunk)
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + struct.pack(">I", length) + chunk + struct.pack(">I", check) + data[end:])
    assert image_size_of(str(path)) == open_picture(path).image_size == SIZE[::-1]


def test_sizes_are_refused_like_pictures(tmp_path):
    """What cannot be opened has no size either: missing, broken, too large."""
    path = save(tmp_path, "a.png")
    with pytest.raises(InputError, match="the limit is 10"):
        image_size_of(path, max_pixels=10)
    with pytest.raises(InputError, match="no such file"):
        image_size_of(tmp_path / "b.png")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="truncated or corrupt"):
        image_size_of(path)


# Groups and classes


def test_groups_from_names(tmp_path):
    """A regular expression or a function says from the id what must stay together."""
    truth = GroundTruth([], [], SIZE)
    samples = on_disk(tmp_path, {"day1_a.png": truth, "day1_b.png": truth, "day2_a.png": truth})
    path = write_samples(samples, tmp_path / "labels.csv", format="csv")
    for group in (r"(day\d)_", r"day\d", re.compile("^(day.)"), lambda name: name[:4]):
        assert [one.group for one in read_samples(path, group=group)] == ["day1", "day1", "day2"]
    assert [one.group for one in read_samples(path)] == ["day1_a.png", "day1_b.png", "day2_a.png"]
    with pytest.raises(InputError, match=r"'night' finds nothing in the id 'day1_a\.png'"):
        read_samples(path, group="night")
    with pytest.raises(InputError, match=r"'\(' is no regular expression"):
        read_samples(path, group="(")
    with pytest.raises(InputError, match="its group is 5"):
        read_samples(path, group=lambda _name: 5)


def test_classes_are_chosen_on_reading(tmp_path):
    """`classes` merges or selects as `choose` does; other pictures stay as background."""
    path = tmp_path / "labels.csv"
    path.write_text("image,x1,y1,x2,y2,label\na.png,1,2,3,4,RBC\na.png,1,2,3,4,WBC\nb.png,0,0,5,5,Platelets\n")
    for name in ("a.png", "b.png"):
        save(tmp_path, name)
    assert read_samples(path, classes=["WBC"]) == read_samples(path).choose(["WBC"])
    cells = read_samples(path, classes={"cell": ["RBC", "WBC"]})
    assert (cells.box_counts, cells.backgrounds) == ({"cell": 2}, 1)
    with pytest.raises(InputError, match="Did you mean 'WBC'"):
        read_samples(path, classes=["wbc"])


# Where the labels are


def test_nothing_and_too_much_are_refused(tmp_path):
    """Where no labels are, or several formats, the error says what was found; no format is guessed."""
    with pytest.raises(InputError, match="no such file or folder"):
        read_samples(tmp_path / "gone")
    with pytest.raises(InputError, match="no labels of a known format"):
        read_samples(tmp_path)
    (tmp_path / "settings.json").write_text('{"images": 5}')
    with pytest.raises(InputError, match="no labels of a known format"):
        read_samples(tmp_path)
    coco_of(tmp_path)
    assert len(read_samples(tmp_path)) == 1
    (tmp_path / "a.xml").write_text(voc_of())
    (tmp_path / "labels.csv").write_text("image,x1,y1,x2,y2,label\n")
    with pytest.raises(InputError, match=r"several formats: coco, csv, voc\. Give format as one of") as caught:
        read_samples(tmp_path)
    assert caught.value.facts == {"formats": ["coco", "voc", "csv"]}
    assert len(read_samples(tmp_path, format="voc")) == 1
    with pytest.raises(InputError, match=r"no format 'vox'\. Did you mean 'voc'"):
        read_samples(tmp_path, format="vox")


def test_two_files_of_labels_are_not_chosen_from(tmp_path):
    """A folder with two COCO files stands for neither."""
    text = coco_of(tmp_path).read_text()
    (tmp_path / "more.json").write_text(text)
    with pytest.raises(InputError, match=r"2 such files: labels\.json, more\.json"):
        read_samples(tmp_path)
    with pytest.raises(InputError, match=r"find the \.csv of labels in .*: it has none"):
        read_samples(tmp_path, format="csv")


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.json", b"{", "no JSON"),
        ("a.json", b"[" * 100_000, "no JSON"),
        ("a.json", b"\xff\xfe", "no UTF-8"),
        ("a.json", b"{}", "no 'categories'"),
        ("a.csv", b"image,x1,y1,x2,y2,lable\n", "lacks label"),
        ("data.yaml", b"names: &a [*a", "no YAML"),
        ("data.yaml", b"names: [yes, no]", r"names\[0\] is True and not text"),
        ("data.yaml", b"nc: 3", "no 'names'"),
        ("data.yaml", b"names: {0: a, 2: b}", "and not each from 0 on"),
        ("data.yaml", b"names: [a]\ntrain: list.txt\nval: images", "some of its pictures are in lists"),
        ("data.yaml", b"names: [a]\ntrain: list.txt", r"list\.txt': No such file"),
    ],
)
def test_malformed_files_are_named(tmp_path, name, data, found):
    """A file that is no label file is refused with its name and the reason."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}'|list.txt'") as caught:
        read_samples(tmp_path / name)
    assert re.search(found, str(caught.value))


def test_an_absurdly_large_file_is_not_read(tmp_path):
    """A data.yaml beyond a mebibyte is refused unread."""
    (tmp_path / "data.yaml").write_text("names: [a]\n#" + " " * (1 << 20))
    with pytest.raises(InputError, match="larger than 1048576 bytes"):
        read_samples(tmp_path / "data.yaml")


def test_an_authors_list_of_a_voc_set(tmp_path, caplog):
    """A list in ImageSets/Main names the samples, also one of a single class with its flags; gaps are reported."""
    for name in ("a", "b", "c 1"):
        save(tmp_path / "JPEGImages", f"{name}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / f"Annotations/{name}.xml").write_text(voc_of(name=f"{name}.png"))
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\nc 1\n\n")
    (lists / "owl_val.txt").write_text("a  1\nb -1\n")
    (lists / "test.txt").write_text("a\nd\n")
    assert [one.id for one in read_samples(lists / "train.txt")] == ["b.png", "c 1.png"]
    assert [one.id for one in read_samples(lists / "owl_val.txt")] == ["a.png", "b.png"]
    with pytest.raises(InputError, match="1 of 2 pictures or their labels are not there: 'd'"):
        read_samples(lists / "test.txt")
    with caplog.at_level(logging.WARNING):
        assert len(read_samples(lists / "test.txt", missing="skip")) == 1
    assert len(read_samples(tmp_path)) == 3
    assert len(read_samples(tmp_path / "Annotations")) == 3


def test_a_renamed_picture_of_a_voc_set(tmp_path):
    """Where no file is named as the annotation says, the picture is the one named as the annotation itself."""
    save(tmp_path, "new.png")
    (tmp_path / "new.xml").write_text(voc_of(("owl", 1, 1, 5, 5), name="old.jpg"))
    assert [one.id for one in read_samples(tmp_path)] == ["new.png"]


def test_the_usual_layouts_of_yolo(tmp_path):
    """labels/ beside images/, a pair for each split, all in one folder; three files of class names."""
    flat, pair, splits = tmp_path / "flat", tmp_path / "pair", tmp_path / "splits"
    line = "1 0.5 0.5 0.5 0.5\n"
    for folder, pictures, labels in (
        (flat, "a.png", "a.txt"),
        (pair, "images/train/a.png", "labels/train/a.txt"),
        (splits, "train/images/a.png", "train/labels/a.txt"),
    ):
        save(folder, pictures)
        save(folder, pictures.replace("a.png", "background.png"), seed=1)
        (folder / labels).parent.mkdir(parents=True, exist_ok=True)
        (folder / labels).write_text(line)
    (flat / "classes.txt").write_text("fox\nowl\n\n")
    (flat / "README.txt").write_text("words\n")
    (pair / "data.yaml").write_text("train: images/train\nnames:\n  1: owl\n  0: fox\n")
    (splits / "obj.names").write_text("fox\nowl\n")
    save(splits, "valid/images/a.png", seed=2)
    (splits / "valid/labels").mkdir(parents=True)
    for path, ids in (
        (flat, ["a.png", "background.png"]),
        (pair, ["train/a.png", "train/background.png"]),
        (pair / "data.yaml", ["train/a.png", "train/background.png"]),
        (pair / "labels/train", ["a.png", "background.png"]),
        (splits, ["train/images/a.png", "train/images/background.png", "valid/images/a.png"]),
    ):
        samples = read_samples(path)
        assert [one.id for one in samples] == ids
        assert (samples.class_names, samples.box_counts["owl"]) == (("fox", "owl"), 1)
        assert samples[0].truth.boxes.tolist() == [[8, 6, 24, 18]]
    with pytest.raises(InputError, match="Give as pictures the folder in which all of them are"):
        read_samples(splits, pictures=splits / "train/images")


def test_yolo_sets_that_cannot_be_read(tmp_path):
    """Labels without a picture, two pictures for one label file, and no class names are refused."""
    save(tmp_path, "images/a.png")
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="there is no file of class names"):
        read_samples(tmp_path, format="yolo")
    (tmp_path / "classes.txt").write_text("owl\n")
    (tmp_path / "labels/b.txt").write_text("")
    with pytest.raises(InputError, match="1 of 2 pictures or their labels are not there: 'b'"):
        read_samples(tmp_path)
    assert len(read_samples(tmp_path, missing="skip")) == 1
    save(tmp_path, "images/a.bmp")
    with pytest.raises(InputError, match=r"a\.txt'.*both a\.bmp and a\.png"):
        read_samples(tmp_path)


def test_pictures_without_a_label_file_are_told_of(tmp_path, caplog):
    """A picture of YOLO without a label file is background, as in other programs; how many there are is said."""
    for name in ("a", "b", "c"):
        save(tmp_path, f"images/{name}.png", seed=ord(name))
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("owl\n")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels/b.txt").write_text("")
    samples = read_samples(tmp_path)
    assert [len(one.truth) for one in samples] == [1, 0, 0]
    (said,) = warnings_of(caplog)
    assert f"in {tmp_path}, 1 of 3 pictures have no label file and count as background" in said
    (tmp_path / "labels/c.txt").write_text("")
    caplog.clear()
    read_samples(tmp_path)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("label_format", ["coco", "csv", "voc", "yolo"])
def test_what_is_hidden_is_no_part_of_a_data_set(tmp_path, label_format):
    """Copies that Jupyter keeps, and macOS' notes beside files, are neither pictures nor labels."""
    truth = GroundTruth([(1, 2, 8, 16)], ["owl"], SIZE)
    folder = tmp_path / "set"
    place = "JPEGImages" if label_format == "voc" else "images"
    save(folder, f"{place}/a.png", seed=0)
    samples = Samples(items=[Sample(id="a.png", picture=str(folder / place / "a.png"), truth=truth)])
    named = {"coco": "labels.json", "csv": "labels.csv"}.get(label_format)
    write_samples(samples, folder / named if named else folder, format=label_format)
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07 Mac OS X")
        save(file.parent, f".ipynb_checkpoints/{file.stem}-checkpoint.png", seed=1)
        (file.parent / f".ipynb_checkpoints/{file.name}").write_bytes(file.read_bytes())
    assert [one.id for one in read_samples(folder)] == ["a.png"]


def test_no_annotation_of_voc(tmp_path):
    """A folder without any .xml is no data set of VOC, and the error says what was looked for."""
    coco_of(tmp_path)
    with pytest.raises(
        InputError, match=r"there is no \.xml of an annotation in .*give the format that the labels have"
    ):
        read_samples(tmp_path, format="voc")


def test_a_csv_by_hand(tmp_path):
    """Columns in any order, a group, a background row, blank lines and a byte-order mark of a spreadsheet."""
    for number, name in enumerate(("a.png", "b.png")):
        save(tmp_path / "images", name, seed=number)
    text = "label,image,x1,y1,x2,y2,group\r\nowl,a.png,1,2,3,4,g\r\n\r\n,b.png,,,,,\r\nfox, a.png ,1,2,9,9,g\r\n"
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    samples = read_samples(tmp_path)
    assert [(one.id, one.truth.label_names, one.group) for one in samples] == [
        ("a.png", ("owl", "fox"), "g"),
        ("b.png", (), "b.png"),
    ]


def test_empty_data_sets_are_read(tmp_path):
    """A file without pictures is no error: there are no samples."""
    (tmp_path / "labels.csv").write_text("image,x1,y1,x2,y2,label\n")
    (tmp_path / "labels.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 4, "name": "owl"}]}')
    assert read_samples(tmp_path / "labels.csv") == Samples()
    assert read_samples(tmp_path / "labels.json") == Samples(class_names=["owl"])


@given(st.binary(max_size=60), st.sampled_from(["a.json", "a.csv", "a.xml", "a.txt", "data.yaml"]))
def test_no_bytes_break_the_reader(tmp_path_factory, data, name):
    """Whatever stands in a label file, it is read or refused by an InputError, nothing else."""
    folder = tmp_path_factory.mktemp("set")
    label_format = {".json": "coco", ".csv": "csv", ".xml": "voc"}.get(Path(name).suffix, "yolo")
    save(folder, "a.png")
    (folder / "classes.txt").write_text("owl\n")
    (folder / name).write_bytes(data)
    try:
        assert isinstance(read_samples(folder, format=label_format), Samples)
    except InputError as error:
        assert error.remedy  # noqa: PT017  most draws are refused, some are not


def test_ids_are_checked_on_reading(tmp_path):
    """Two entries of one picture are refused, with the file named."""
    images = [{"id": n, "file_name": "a.png", "height": 24, "width": 32} for n in range(2)]
    with pytest.raises(InputError, match=r"labels\.json'.*these ids stand twice: a\.png"):
        read_samples(coco_of(tmp_path, images=images))
