"""Label files: slips in them that say nothing of the labels stop nobody."""

import json

from data_fixtures import coco_of, save

from hydra_detect.data.reading import read_samples


def test_a_set_is_read_without_sizes(tmp_path):
    """Sizes that a label file leaves open are those of the pictures, in COCO as in VOC."""
    document = json.loads(coco_of(tmp_path, {"bbox": [1, 2, 3, 4]}).read_text())
    for stated in ({}, {"height": None, "width": None}, {"height": 24.0, "width": 32.0}):
        document["images"] = [{"id": 1, "file_name": "a.png"} | stated]
        (tmp_path / "labels.json").write_text(json.dumps(document))
        (one,) = read_samples(tmp_path / "labels.json")
        assert one.truth.image_size == (24, 32)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
    item = f"<object><name>owl</name>{box}</object>"
    for stated in ("", "<size/>", "<size><height>24.0</height><width>32.0</width></size>"):
        (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{stated}{item}</annotation>")
        (same,) = read_samples(tmp_path, format="voc")
        assert same.truth == one.truth


def test_a_set_is_read_with_stray_spaces(tmp_path):
    """A class whose name begins or ends with a space is read under the name without, whatever the format."""
    path = coco_of(tmp_path, {"bbox": [8, 6, 16, 12]}, categories=[{"id": 1, "name": "owl "}])
    save(tmp_path, "yolo/images/a.png")
    (tmp_path / "yolo/labels").mkdir()
    (tmp_path / "yolo/labels/a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "yolo/data.yaml").write_text("names: [' owl']\n")
    for place in (path, tmp_path / "yolo"):
        assert read_samples(place).box_counts == {"owl": 1}
