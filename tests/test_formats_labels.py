"""Labels in each format: what stands there is handed on unjudged, and judged by one rule."""

import attrs
import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.formats import coco, csv_rows, data_yaml, voc, yolo
from hydra_detect.formats.data_yaml import DataYaml
from hydra_detect.formats.labels import CLIPPED, CROWDS, NO_AREA, OUTSIDE, PictureLabels, usable

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


def truth_of(labels, image_size=(1000, 1000)):
    """Return the labels that can be used, none of which is left out."""
    truth, left_out = usable(labels, image_size)
    assert not left_out
    return truth


# Judging


def test_no_boxes_are_ordinary():
    """A picture without boxes is background, and nothing is left out."""
    truth, left_out = usable(PictureLabels(name="a"), (5, 6))
    assert truth == GroundTruth([], [], (5, 6), "a")
    assert not left_out
    assert PictureLabels(name=None).with_area.boxes == []


@pytest.mark.parametrize(
    ("box", "kept", "reason"),
    [
        ((1, 1, 5, 5), (1, 1, 5, 5), None),
        ((0, 0, 20, 10), (0, 0, 20, 10), None),
        ((-0.005, 0, 20.005, 10), (0, 0, 20, 10), None),
        ((-0.02, 0, 20, 10), (0, 0, 20, 10), CLIPPED),
        ((-3, -3, 30, 30), (0, 0, 20, 10), CLIPPED),
        ((-3, 2, 1e300, 4), (0, 2, 20, 4), CLIPPED),
        ((3, 3, 3, 3), None, NO_AREA),
        ((3, 3, 9, 3), None, NO_AREA),
        ((50, 50, 50, 60), None, NO_AREA),
        ((20, 1, 25, 5), None, OUTSIDE),
        ((-9, -9, 0, 0), None, OUTSIDE),
        ((5, 5, 5 + 1e-9, 6), None, OUTSIDE),
    ],
)
def test_the_rule_for_boxes(box, kept, reason):
    """Inside is used, partly outside is clipped and counted beyond rounding, the rest is left out and counted."""
    truth, left_out = usable(PictureLabels(name="a", boxes=[box], label_names=["owl"]), (10, 20))
    assert truth.boxes.tolist() == ([] if kept is None else [list(map(float, kept))])
    assert len(truth.label_names) == len(truth.boxes)
    assert left_out == ({} if reason is None else {reason: 1})


def test_fractions_and_crowds():
    """Fractions become pixels of the picture at hand, and crowds are counted beside the boxes."""
    labels = PictureLabels(name="a", boxes=[(0.25, 0.5, 1, 1)], label_names=["owl"], are_fractions=True, crowds=2)
    truth, left_out = usable(labels, (10, 20))
    assert truth.boxes.tolist() == [[5, 5, 20, 10]]
    assert left_out == {CROWDS: 2}


# Round trips


@given(strategies.ground_truths(), st.none() | NAMES)
def test_voc_labels_round_trip(truth, group):
    """Annotations give labels back bit for bit, with name and group."""
    labels = voc.labels_from_voc(voc.labels_to_voc(truth, group=group))
    assert truth_of(labels) == truth
    assert (labels.group, labels.image_size) == (group, (1000, 1000))
    assert voc.ground_truth_from_voc(voc.labels_to_voc(truth)) == truth


@given(strategies.ground_truths(), st.data())
def test_yolo_labels_round_trip(truth, data):
    """Lines give names back, and corners to within float32's rounding, in any numbering."""
    names = data.draw(st.permutations(strategies.LABELS))
    labels = yolo.labels_from_yolo(yolo.labels_to_yolo(truth, class_names=names), class_names=names, name=truth.source)
    read = truth_of(labels)
    assert (read.label_names, read.source) == (truth.label_names, truth.source)
    np.testing.assert_allclose(read.boxes, truth.boxes, rtol=2.0**-23, atol=1000 * 2.0**-49)


@given(st.dictionaries(NAMES, st.tuples(strategies.ground_truths(), NAMES), max_size=4), st.booleans())
def test_csv_labels_round_trip(pictures, is_grouped):
    """Rows give every picture's labels back bit for bit, in order, with groups if there are any."""
    truths = [attrs.evolve(truth, source=name) for name, (truth, _group) in pictures.items()]
    groups = [group for _truth, group in pictures.values()]
    read = csv_rows.labels_from_csv(csv_rows.labels_to_csv(truths, groups=groups if is_grouped else None))
    assert [truth_of(labels) for labels in read] == truths
    assert [labels.group for labels in read] == (groups if is_grouped else [None] * len(truths))


@given(st.lists(NAMES | st.sampled_from(["no", "7", "~", "a: b", "- c", "#"]), unique=True, max_size=5))
def test_data_yaml_round_trip(names):
    """A data.yaml gives the names back, whatever YAML would make of them unquoted."""
    text = data_yaml.to_yaml(names, pictures="list.txt")
    assert data_yaml.from_yaml(text) == DataYaml(class_names=tuple(names), pictures=("list.txt",))


# Cases


def test_a_label_line_is_as_documented():
    """A box over the left half of the picture is centred at a quarter of its width; a score is one value too many."""
    truth = GroundTruth([(0, 0, 32, 48)], ["RBC"], (48, 64))
    assert yolo.labels_to_yolo(truth, class_names=["WBC", "RBC"]) == "1 0.25 0.5 0.5 1.0\n"
    with pytest.raises(InputError, match="line 1 has 6 values and not the 5 of"):
        yolo.labels_from_yolo("0 .5 .5 .5 .5 .9", class_names=["owl"])
    with pytest.raises(InputError, match="line 2 is of class 1, and there are names for 1"):
        yolo.labels_from_yolo("\n1 .5 .5 .5 .5", class_names=["owl"])
    with pytest.raises(InputError, match="'RBC' is not among the class names"):
        yolo.labels_to_yolo(truth, class_names=["WBC"])
    with pytest.raises(InputError, match="both sides"):
        yolo.labels_to_yolo(GroundTruth([], []), class_names=[])


def test_pixels_of_voc_are_taken_as_they_stand_unless_counted_from_one():
    """The devkit's box over all of a picture starts at pixel 1; read so it covers all, and one pixel has an area."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [(1, 1, 64, 48), (5, 7, 5, 7)]
    inner = ["".join(f"<{name}>{n}</{name}>" for name, n in zip(corners, box, strict=True)) for box in boxes]
    items = "".join(f"<object><name>owl</name><bndbox>{one}</bndbox></object>" for one in inner)
    text = f"<annotation>{items}</annotation>"
    assert voc.labels_from_voc(text).boxes == boxes
    labels = voc.labels_from_voc(text, from_one=True)
    assert labels.boxes == [(0, 0, 64, 48), (4, 6, 5, 7)]
    assert truth_of(labels, (48, 64)).boxes.tolist() == [[0, 0, 64, 48], [4, 6, 5, 7]]


def test_a_class_may_be_written_with_a_fraction_of_nothing():
    """Programs that hold labels as floats write class 1 as 1.0: it is the same class."""
    read = yolo.labels_from_yolo("1.0 .5 .5 .5 .5\n0.00 .5 .5 .5 .5", class_names=["fox", "owl"])
    assert read.label_names == ["owl", "fox"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("0.5 .5 .5 .5 .5", "line 1 is of class '0.5', which is no whole number"),
        ("nan .5 .5 .5 .5", "line 1 is of class 'nan', which is no whole number"),
        ("1e300 .5 .5 .5 .5", "line 1 is of class 1e300, and there are names for 1"),
        ("0 .5 .5 nan .5", "line 1 has a place or size that is no finite number"),
        ("0 inf .5 .5 .5", "line 1 has a place or size that is no finite number"),
        ("0 .5 .5 .5 -.5", "line 1 has a negative width or height"),
        ("0 .1 .1 .5 .1 .5 .5", "line 1 has 7 values: a polygon, as labels for segmentation have it"),
        ("0 .1 .1 .5 .1 .5 .5 .1 .5", "9 values: a polygon.*Polygons are not read: export the labels for detection"),
        ("0 .5 .5 .5", "line 1 has 4 values and not the 5 of"),
        ("0 .5 .5 .5 .5 .5 .5 .5", "line 1 has 8 values and not the 5 of"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line, found):
    """A class that is none, a number that is none, a size below nothing and a polygon are told apart."""
    with pytest.raises(InputError, match=found):
        yolo.labels_from_yolo(line, class_names=["owl"])


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ({}, None),
        ({"height": None, "width": None}, None),
        ({"width": 6}, None),
        ({"height": 5, "width": None}, None),
        ({"height": 5, "width": 6}, (5, 6)),
        ({"height": 5.0, "width": 6.0}, (5, 6)),
        ({"height": 0, "width": 0}, (0, 0)),
    ],
)
def test_sizes_that_are_not_known(sides, size):
    """A size that is absent or null is unknown, one of whole floats is one; as truth the unknown one is (0, 0)."""
    document = {"images": [{"id": 1} | sides], "annotations": [], "categories": []}
    xml = "".join(f"<{side}>{'' if value is None else value}</{side}>" for side, value in sides.items())
    annotation = f"<annotation><size>{xml}</size></annotation>" if sides else "<annotation/>"
    (labels,) = coco.labels_from_coco(document).pictures
    assert (labels.image_size, voc.labels_from_voc(annotation).image_size) == (size, size)
    (truth,) = coco.ground_truth_from_coco(document)
    assert truth.image_size == voc.ground_truth_from_voc(annotation).image_size == (size or (0, 0))
    assert coco.ground_truth_from_coco(coco.ground_truth_to_coco([truth])) == [truth]


@pytest.mark.parametrize("side", [5.5, "tall", float("nan"), float("inf"), 1e300, True])
def test_sizes_that_are_none(side):
    """Half a pixel, a word or what is beyond all numbers is no side of a picture, whether the other is known or not."""
    for key, sides in (("height", {"height": side}), ("width", {"height": 5, "width": side})):
        xml = "".join(f"<{name}>{value}</{name}>" for name, value in sides.items())
        with pytest.raises(InputError, match=f"'{key}' of the annotation is .* and not a whole number"):
            voc.labels_from_voc(f"<annotation><size>{xml}</size></annotation>")
        document = {"images": [{"id": 1} | sides], "annotations": [], "categories": []}
        with pytest.raises(InputError, match=rf"'{key}' of images\[0\] is .* and not a whole number"):
            coco.labels_from_coco(document)


def test_spaces_around_the_name_of_a_class_are_none_of_it():
    """Stray spaces in the categories of COCO and the names of a data.yaml are taken off, as in VOC and CSV."""
    categories = [{"id": 1, "name": " owl"}, {"id": 2, "name": "red fox "}]
    document = {"images": [{"id": 1}], "annotations": [], "categories": categories}
    document["annotations"] = [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}]
    read = coco.labels_from_coco(document)
    assert (read.class_names, read.category_ids) == (("owl", "red fox"), {"owl": 1, "red fox": 2})
    assert read.pictures[0].label_names == ["red fox"]
    assert data_yaml.from_yaml("names: [' owl', 'red fox ']").class_names == ("owl", "red fox")
    categories.append({"id": 3, "name": "owl"})
    document["annotations"] += [{"image_id": 1, "category_id": n, "bbox": [1, 2, 3, 4]} for n in (1, 3)]
    with pytest.raises(InputError, match="category 'owl' stands twice, with the numbers 1 and 3"):
        coco.labels_from_coco(document)


@pytest.mark.parametrize("used", [0, 1])
def test_a_category_that_is_listed_again_and_used_once(used):
    """As Roboflow writes sets of one class: the root of all has the name of the class, and no annotation."""
    categories = [{"id": 0, "name": "raccoon"}, {"id": 1, "name": "raccoon"}]
    annotations = [{"image_id": 1, "category_id": used, "bbox": [1, 2, 3, 4]}]
    read = coco.labels_from_coco({"images": [{"id": 1}], "annotations": annotations, "categories": categories})
    assert (read.class_names, read.category_ids) == (("raccoon",), {"raccoon": used})
    assert read.pictures[0].label_names == ["raccoon"]


def test_coco_annotations_without_a_box():
    """A crowd has an outline and need have no box; an empty box is one without area."""
    crowd = {"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"counts": [0, 4], "size": [2, 2]}}
    document = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "owl"}]}
    document["annotations"] = [crowd, {"image_id": 1, "category_id": 1, "bbox": []}]
    (picture,) = coco.labels_from_coco(document).pictures
    assert (picture.crowds, picture.boxes, picture.label_names) == (1, [(0.0, 0.0, 0.0, 0.0)], ["owl"])
    document["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [1]}]
    with pytest.raises(InputError, match=r"'bbox' of annotations\[0\]"):
        coco.labels_from_coco(document)


@pytest.mark.parametrize(
    "header",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax",  # TensorFlow's
        "Image,X1,Y1,X2,Y2,Label",
        ",image,xmin,ymin,xmax,ymax,label",  # with the row's number, as pandas writes it
        "file_name,x_min,y_min,x_max,y_max,class,group",
    ],
)
def test_columns_of_other_programs(header):
    """The columns have other names in other programs, and stand in another order; sizes are passed over."""
    values = {"filename": "a.png", "image": "a.png", "file_name": "a.png", "class": "owl", "label": "owl"}
    values |= {"xmin": "1", "x1": "1", "x_min": "1", "ymin": "2", "y1": "2", "y_min": "2"}
    values |= {"xmax": "3", "x2": "3", "x_max": "3", "ymax": "4", "y2": "4", "y_max": "4"}
    values |= {"width": "32", "height": "24", "": "0", "group": "night"}
    (picture,) = csv_rows.labels_from_csv(f"{header}\n{','.join(values[one.lower()] for one in header.split(','))}\n")
    assert (picture.name, picture.boxes, picture.label_names) == ("a.png", [(1, 2, 3, 4)], ["owl"])
    assert picture.group == ("night" if "group" in header else None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, b]", ("a", "b")),
        ("names:\n  1: b\n  0: a", ("a", "b")),
        ("names: [1, 2]\nnc: 2", ("1", "2")),
        ("names: []", ()),
    ],
)
def test_names_in_a_data_yaml(text, names):
    """Names are a list, or a mapping from their numbers; whole numbers serve as names."""
    assert data_yaml.from_yaml(text) == DataYaml(class_names=names)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not an object"),
        ("names: owl", "'names' is 'owl' and not a list"),
        ("names: {0: a, 0.5: b}", "not each from 0 on"),
        ("names: {zero: a}", "not each from 0 on"),
        ("names: [[a]]", r"names\[0\]"),
        ("a: b: c", "no YAML"),
        ("!!python/object/apply:os.getcwd []", "no YAML of plain values"),
        ("2026-99-99", "no YAML"),
        ("!!timestamp soon", "no YAML of plain values"),
        ("!!int ''", "no YAML of plain values"),
        ("!!bool maybe", "no YAML of plain values"),
        ("names: &n [a]\nval: *n", r"write out what \*n stands for"),
        ("a: &a [0,0]\nb: &b [*a,*a]\nnames: [*b,*b]", "write out what"),
    ],
)
def test_malformed_data_yaml_is_named(text, found):
    """A data.yaml without names, or that would run something, is refused."""
    with pytest.raises(InputError, match=found):
        data_yaml.from_yaml(text)


def test_pictures_in_a_data_yaml():
    """Folders and lists under train, val and test are read in this order, each once; what is absent is none."""
    text = "path: ../set\nnames: []\nval: [a, b.txt]\ntrain: c\ntest:\n"
    assert data_yaml.from_yaml(text) == DataYaml(class_names=(), home="../set", pictures=("c", "a", "b.txt"))
    assert data_yaml.from_yaml("names: []\npath:\nval: a\ntest: a") == DataYaml(class_names=(), pictures=("a",))
    for text, found in (("train: 5", "'train' is 5"), ("val: [[a]]", "'val' is"), ("path: [a]", "'path' is")):
        with pytest.raises(InputError, match=found):
            data_yaml.from_yaml(f"names: []\n{text}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no header"),
        ("a.png,1,2,3,4,owl", "lacks image, label, x1"),
        ("image,x1,y1,x2,y2,label,grup\n", "column 'grup'. Did you mean 'group'"),
        ("image,x1,y1,x2,y2,label,label\n", "names a column twice"),
        ("image,x1,y1,x2,y2,label,class\n", "names a column twice"),
        ("image;x1;y1;x2;y2;label\n", "has no comma. Save it with commas"),
        ("image\tx1\ty1\tx2\ty2\tlabel\n", "has no comma"),
        ("image,x1,y1,x2,y2,label\na.png,1,2,3,4\n", "line 2 has 5 values and not 6"),
        ("image,x1,y1,x2,y2,label\n\n,1,2,3,4,owl\n", "line 3 names no image"),
        ("image,x1,y1,x2,y2,label\na.png,1,2,3,,owl\n", "'y2' of line 2 is ''"),
        ("image,x1,y1,x2,y2,label\na.png,1,2,3,4,\n", "line 2 has a box without a label"),
        ("image,x1,y1,x2,y2,label\na.png,,,,,owl\n", "'x1' of line 2 is ''"),
        ('image,x1,y1,x2,y2,label\n"a.png,1,2,3,4,owl\n', "is no CSV"),
        ("image,x1,y1,x2,y2,label,group\na,1,1,2,2,owl,g\na,1,1,2,2,owl,h\n", "rows of 'a' name the groups 'g', 'h'"),
    ],
)
def test_malformed_csv_is_named(text, found):
    """A column or line that is not as it should be is refused with its place."""
    with pytest.raises(InputError, match=found):
        csv_rows.labels_from_csv(text)


def test_numbers_that_stand_twice_are_refused():
    """Two images or categories of one number, or a category of two numbers, would make labels ambiguous."""
    image, owl = {"id": 1, "file_name": "a", "height": 5, "width": 5}, {"id": 1, "name": "owl"}
    for images, categories, found in (
        ([image, image], [owl], r"images\[1\] has the 'id' 1 of images\[0\]"),
        ([image], [owl, {"id": 1, "name": "fox"}], r"categories\[1\] has the 'id' 1"),
    ):
        with pytest.raises(InputError, match=found):
            coco.labels_from_coco({"images": images, "annotations": [], "categories": categories})


def test_coco_hands_on_what_stands_there():
    """Groups, crowds and boxes without area arrive with their picture, unjudged; classes keep their numbers."""
    document = {
        "images": [{"id": 5, "file_name": "a", "height": 5, "width": 6, "group": "night"}],
        "annotations": [
            {"image_id": 5, "category_id": 90, "bbox": [1, 2, 0, 9]},
            {"image_id": 5, "category_id": 90, "bbox": [1, 2, 3, 9], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "owl"}, {"id": 7, "name": "fox"}],
    }
    read = coco.labels_from_coco(document)
    (labels,) = read.pictures
    assert (labels.boxes, labels.crowds, labels.group, labels.image_size) == ([(1, 2, 1, 11)], 1, "night", (5, 6))
    assert (read.class_names, read.category_ids) == (("owl", "fox"), {"owl": 90, "fox": 7})
    document["images"][0]["group"] = 5
    with pytest.raises(InputError, match=r"'group' of images\[0\] is 5 and not text"):
        coco.labels_from_coco(document)
