"""Formats: what is written reads back the same, and what is malformed is refused by name."""

import json
import logging

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.formats import coco, lines, rows, voc, yolo

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def one(**changes):
    """Return one detection."""
    values = {
        "boxes": [(1, 2.5, 30, 40.1)], "scores": [0.93], "labels": [2], "label_names": ["RBC"], "heads": ["blood"],
        "head_versions": [3], "image_size": (48, 64), "source": "a/b.jpg",
    }  # fmt: skip
    return Detections(**(values | changes))


def same_bits(first, second):
    """Tell whether two float arrays agree bit for bit, but for the sign of zero."""
    return np.array_equal(first, second) and first.dtype == second.dtype


EMPTY = Detections(image_size=(48, 64))


# Rows and lines


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_reads_back_as_the_same_float32(value):
    """The short number is the same float32 and never longer than the exact one."""
    short = rows.shortest(value)
    assert np.float32(short) == np.float32(value)
    assert len(repr(short)) <= len(repr(value))


@given(strategies.detections(low=-(2.0**100), high=2.0**100, names=st.text(max_size=9).map(lambda s: s.rstrip("\0"))))
def test_lines_round_trip(d):
    """A dict and a line of JSON give the detections back bit for bit, timing included."""
    for again in (lines.from_dict(lines.to_dict(d)), lines.from_json(lines.to_json(d))):
        assert again == d
        assert again.timing == d.timing
    assert len(lines.to_json(d).splitlines()) == 1


def test_a_line_is_short_and_says_what_it_is():
    """The JSON has the documented keys and no tail of meaningless digits."""
    assert json.loads(lines.to_json(one())) == {
        "source": "a/b.jpg",
        "image_size": [48, 64],
        "detections": [
            {"head": "blood", "version": 3, "label": "RBC", "label_id": 2, "score": 0.93, "box": [1, 2.5, 30, 40.1]}
        ],
        "seconds": {"transform": 0.0, "backbone": 0.0, "heads": {}, "shared": 0.0},
    }
    assert lines.from_dict({"image_size": [48, 64], "detections": [], "mine": 1}) == EMPTY


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("box", [1, 2, 3], "'box' of detection 0 is .* list of 4"),
        ("box", [1, 2, 3, "4"], "number 3 of 'box' of detection 0"),
        ("box", [1, 2, 3, True], "number 3 of 'box'"),
        ("box", [3, 2, 1, 4], "x2 < x1"),
        ("box", [0, 0, 10**400, 1], "not a finite number"),
        ("box", [0, 0, 1e300, 1], "not finite"),
        ("score", float("nan"), "'score' of detection 0 is nan"),
        ("score", 2, "outside"),
        ("label", None, "'label' of detection 0 is None and not text"),
        ("label_id", 1.5, "'label_id' of detection 0 is 1.5 and not a whole number"),
        ("version", 1 << 63, "'version' of detection 0"),
    ],
)
def test_malformed_values_are_named(key, value, found):
    """A value of the wrong kind is refused with its place."""
    values = lines.to_dict(one())
    values["detections"][0][key] = value
    with pytest.raises(InputError, match=found):
        lines.from_dict(values)


@pytest.mark.parametrize("key", ["box", "score", "label", "label_id", "head", "version"])
def test_missing_values_are_named(key):
    """A missing key is refused with its place."""
    values = lines.to_dict(one())
    del values["detections"][0][key]
    with pytest.raises(InputError, match=f"detection 0 has no '{key}'"):
        lines.from_dict(values)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"image_size": [NaN, 1]}', "no JSON"),
        ("3", "the top is 3"),
        ("{}", "no 'image_size'"),
        ('{"image_size": [1, 2]}', "no 'detections'"),
        ('{"image_size": 5, "detections": []}', "not a list"),
        ('{"image_size": [1], "detections": []}', "image size"),
        ('{"image_size": [1, 2], "detections": {}}', "not a list"),
        ('{"image_size": [1, 2], "detections": [4]}', "detection 0 is 4"),
        ('{"image_size": [1, 2], "detections": [], "source": 5}', "'source' is 5"),
        ('{"image_size": [1, 2], "detections": [], "seconds": {"heads": 3}}', "'heads' of 'seconds'"),
        (
            '{"image_size": [1, 2], "detections": [], "seconds": {"transform": 0, "backbone": 0, "heads": {"a": "b"}}}',
            "'a' of 'heads'",
        ),
    ],
)
def test_malformed_json_is_named(text, found):
    """What is no JSON or no detections is refused, saying why."""
    with pytest.raises(InputError, match=found):
        lines.from_json(text)


def test_little_of_a_wrong_value_is_written_out():
    """An error about a value of millions of items takes no longer than one about a single item."""

    class Told:
        count = 0

        def __repr__(self):
            Told.count += 1
            return "told"

    millions = [Told()] * 100_000
    for detections in ({"a": millions}, [millions], [{"box": millions}], [{"box": [millions, 1, 2, 3]}]):
        with pytest.raises(InputError, match="and not"):
            lines.from_dict({"image_size": [1, 2], "detections": detections})
    assert Told.count < 100


@given(ANYTHING, st.sampled_from(["image_size", "detections", "source", "seconds", None]))
def test_no_value_breaks_the_reader(value, key):
    """Whatever stands in a line, the reader returns detections or an InputError, nothing else."""
    values = lines.to_dict(one())
    values = value if key is None else values | {key: value}
    try:
        assert isinstance(lines.from_dict(values), Detections)
    except InputError as error:
        assert error.remedy  # noqa: PT017  most draws are refused, some are not


# COCO


@given(strategies.detections())
def test_coco_round_trip(d):
    """Rows give everything back bit for bit, with any numbering of the classes."""
    again = coco.from_coco(json.loads(json.dumps(coco.to_coco(d))), image_size=d.image_size, source=d.source)
    assert again == d
    numbering = {name: 7 * number for number, name in enumerate(yolo.class_names_of(d))}
    numbered = coco.to_coco(d, image_id=9, categories=numbering)
    assert {row["category_id"] for row in numbered} <= set(numbering.values())
    assert coco.from_coco(numbered, categories=numbering, image_size=d.image_size, source=d.source) == d


@given(strategies.detections(low=-strategies.SIDE))
def test_coco_round_trip_left_of_the_picture(d):
    """Corners left of or above the picture come back to within 2**-51 of the box's extent, beside float32 itself."""
    again = coco.from_coco(coco.to_coco(d), image_size=d.image_size)
    assert same_bits(again.boxes[:, :2], d.boxes[:, :2])
    extent = np.abs(d.boxes).max(initial=0)
    np.testing.assert_allclose(again.boxes, d.boxes, rtol=0, atol=float(extent) * 2.0**-51)


def test_coco_rows_of_others_need_only_coco_keys():
    """Rows of another program get their names from the categories, or from the numbers."""
    row = {"image_id": 4, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.5}
    named = coco.from_coco([row], categories={"cat": 17}, image_size=(9, 9))
    assert (named.label_names.tolist(), named.labels.tolist(), named.boxes.tolist()) == (["cat"], [17], [[1, 2, 4, 6]])
    assert coco.from_coco([row], image_size=(9, 9)).label_names.tolist() == ["17"]
    with pytest.raises(InputError, match="not among the categories"):
        coco.from_coco([row], categories={"dog": 18}, image_size=(9, 9))
    with pytest.raises(InputError, match="2 pictures"):
        coco.from_coco([row, row | {"image_id": 5}], image_size=(9, 9))
    with pytest.raises(InputError, match="negative width"):
        coco.from_coco([row | {"bbox": [1, 2, -3, 4]}], image_size=(9, 9))
    with pytest.raises(InputError, match="row 0 has no 'score'"):
        coco.from_coco([{key: row[key] for key in row if key != "score"}], image_size=(9, 9))
    with pytest.raises(InputError, match="Did you mean 'RBCs'"):
        coco.to_coco(one(), categories={"RBCs": 1})


@given(st.lists(strategies.ground_truths(), max_size=3))
def test_ground_truth_coco_round_trip(truths):
    """An annotation document gives every picture's labels back, those without labels included."""
    document = json.loads(json.dumps(coco.ground_truth_to_coco(truths)))
    assert coco.ground_truth_from_coco(document) == truths


def document(**changes):
    """Return an annotation document of one image with two labels."""
    values = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [
            {"image_id": 5, "category_id": 90, "bbox": [1, 2, 3, 4]},
            {"image_id": 5, "category_id": 90, "bbox": [1, 2, 0, 4]},
            {"image_id": 5, "category_id": 90, "bbox": [1, 2, 9, 4], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "owl"}],
    }
    return values | changes


def test_ground_truth_coco_skips_and_counts(caplog):
    """Boxes without area and crowd regions are left out, with one warning that counts them."""
    with caplog.at_level(logging.WARNING, logger="hydra_detect.formats.coco"):
        (truth,) = coco.ground_truth_from_coco(document())
    assert truth == GroundTruth([(1, 2, 4, 6)], ["owl"], (10, 20), "a.jpg")
    assert [record.getMessage().split()[:2] for record in caplog.records] == [["skipped", "2"]]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"images": []}, "'image_id' of annotations.0. is 5"),
        ({"categories": []}, "'category_id' of annotations.0. is 90"),
        ({"categories": [{"id": 90}]}, "categories.0. has no 'name'"),
        ({"annotations": 3}, "'annotations' is 3"),
        ({"images": [{"id": 5, "height": "5"}], "annotations": []}, "'height' of images.0. is '5' and not a whole"),
    ],
)
def test_malformed_annotations_are_named(changes, found):
    """A document that refers to nothing or lacks a part is refused with the place."""
    with pytest.raises(InputError, match=found):
        coco.ground_truth_from_coco(document(**changes))
    with pytest.raises(InputError, match="no 'categories'"):
        coco.ground_truth_from_coco({})


# YOLO


@given(strategies.detections(low=-strategies.SIDE))
def test_yolo_round_trip(d):
    """Lines give names and scores back exactly and corners to within float32's rounding."""
    names = yolo.class_names_of(d)
    again = yolo.from_yolo(yolo.to_yolo(d), image_size=d.image_size, class_names=names, head="owl", version=3)
    assert again.label_names.tolist() == d.label_names.tolist()
    assert same_bits(again.scores, d.scores)
    assert set(again.heads.tolist()) <= {"owl"}
    assert again.labels.tolist() == [names.index(name) + 1 for name in d.label_names.tolist()]
    farthest = float(np.abs(d.boxes).max(initial=0))
    np.testing.assert_allclose(again.boxes, d.boxes, rtol=2.0**-23, atol=farthest * 2.0**-49)


def test_yolo_line_is_as_documented():
    """A box over the left half of the picture is centred at a quarter of its width."""
    d = one(boxes=[(0, 0, 32, 48)])
    assert yolo.to_yolo(d, class_names=["WBC", "RBC"]) == "1 0.25 0.5 0.5 1.0 0.93\n"
    assert yolo.to_yolo(EMPTY) == ""
    assert len(yolo.from_yolo("\n  \n", image_size=(48, 64), class_names=[])) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0 .5 .5 .5 .5", "line 1 has 5 values"),
        ("\n0 .5 .5 .5 x .9", "line 2 holds something that is no number"),
        ("1 .5 .5 .5 .5 .9", "class 1, and there are names for 1"),
        ("-1 .5 .5 .5 .5 .9", "class -1"),
        ("0 .5 .5 -.5 .5 .9", "negative"),
        ("0 nan .5 .5 .5 .9", "no finite number"),
        ("0 .5 .5 .5 .5 1.9", "outside"),
    ],
)
def test_malformed_yolo_is_named(text, found):
    """A line that is no box is refused with its number."""
    with pytest.raises(InputError, match=found):
        yolo.from_yolo(text, image_size=(10, 10), class_names=["a"])


def test_yolo_needs_sizes_and_names():
    """Without the picture's size, or with a class unnamed or named twice, nothing is written or read."""
    with pytest.raises(InputError, match="both sides"):
        yolo.to_yolo(one(image_size=(0, 0)))
    with pytest.raises(InputError, match="both sides"):
        yolo.from_yolo("", image_size=(0, 5), class_names=[])
    with pytest.raises(InputError, match="'RBC' is not among"):
        yolo.to_yolo(one(), class_names=["WBC"])
    with pytest.raises(InputError, match="twice"):
        yolo.to_yolo(one(), class_names=["RBC", "RBC"])


# Pascal VOC


@given(strategies.detections(low=-strategies.SIDE))
def test_voc_round_trip(d):
    """XML gives everything back bit for bit, for every printable name."""
    assert voc.from_voc(voc.to_voc(d)) == d


def test_voc_has_the_usual_elements():
    """Readers of plain VOC find folder, file, size, names and corners where they look."""
    text = voc.to_voc(one())
    for element in ("<folder>a</folder>", "<filename>b.jpg</filename>", "<width>64</width>", "<height>48</height>",
                    "<name>RBC</name>", "<xmin>1.0</xmin>", "<ymax>40.1</ymax>", "<score>0.93</score>"):  # fmt: skip
        assert element in text
    truth = voc.ground_truth_from_voc(text)
    assert truth == GroundTruth(one().boxes, ["RBC"], (48, 64), "b.jpg")
    assert voc.from_voc(voc.to_voc(EMPTY)) == EMPTY


def test_voc_ground_truth_skips_and_counts(caplog):
    """Objects without area are left out, with one warning that counts them; score and head are not needed."""
    item = (
        "<object><name> {} </name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object>"
    )
    size = "<size><width>20</width><height>10</height></size>"
    text = f"<annotation>{size}{item.format('a', 5)}{item.format('b', 1)}</annotation>"
    with caplog.at_level(logging.WARNING, logger="hydra_detect.formats.voc"):
        assert voc.ground_truth_from_voc(text) == GroundTruth([(1, 1, 5, 9)], ["a"], (10, 20))
    assert "skipped 1 " in caplog.text
    with pytest.raises(InputError, match="object 1 has no 'score'"):
        voc.from_voc(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no XML"),
        ("<annotation>", "no XML"),
        ("<html/>", "'html' and not 'annotation'"),
        ("<annotation/>", "no 'size/height'"),
        ("<annotation><size><height>a</height></size></annotation>", "not a whole number"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>', "DOCTYPE"),
        ("<annotation>" + " " * voc.MAX_BYTES + "</annotation>", "larger than"),
        ("é" * (voc.MAX_BYTES // 2 + 1), "larger than"),
        (b"<annotation/>", "type bytes"),
        (voc.to_voc(one()).replace("<xmin>1.0", "<xmin>one"), "'bndbox/xmin' of object 1 is 'one'"),
        (voc.to_voc(one()).replace("<xmin>1.0", "<xmin>inf"), "not a finite number"),
        (voc.to_voc(one()).replace("<version>3", "<version>99999999999999999999"), "'version' of object 1"),
    ],
)
def test_malformed_voc_is_named(text, found):
    """What is no annotation, could swell, or is too large is refused, saying why."""
    with pytest.raises(InputError, match=found):
        voc.from_voc(text)


@pytest.mark.parametrize("name", ["a\0b", "a\rb", "\x1b[0m", "\ud800", "\uffff"])
def test_voc_refuses_what_xml_cannot_hold(name):
    """A name that XML would change or cannot hold is refused instead of altered."""
    with pytest.raises(InputError, match="which XML cannot"):
        voc.to_voc(one(label_names=[name]))
