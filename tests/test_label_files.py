"""Label files: slips in them that say nothing of the labels stop nobody, and no name in them breaks the reader."""

import errno
import json
import os

import attrs
import pytest
from data_fixtures import SIZE, coco_of, on_disk, save

from hydra_detect.data import layouts
from hydra_detect.data.reading import read_samples
from hydra_detect.data.samples import Samples
from hydra_detect.data.writing import write_samples
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError

OBJECT = "<object><name>owl</name>{}<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object>"
# A name that no file can have, and one that none may have.
NO_NAMES = ["n" * 300, "nul\0"]


def names_each(folder, name):
    """Write a set of each format that names a picture which is there and one of this name; return their paths."""
    save(folder, "a.png")
    images = [{"id": number, "file_name": each} for number, each in enumerate(["a.png", f"{name}.png"])]
    coco_of(folder, images=images, categories=[{"id": 1, "name": "owl"}])
    (folder / "labels.csv").write_text(f"image,x1,y1,x2,y2,label\na.png,1,2,3,4,owl\n{name}.png,1,2,3,4,owl\n")
    for place in ("voc/Annotations", "voc/ImageSets/Main", "yolo/labels"):
        (folder / place).mkdir(parents=True)
    save(folder, "voc/JPEGImages/a.png")
    (folder / "voc/Annotations/a.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    (folder / "voc/ImageSets/Main/train.txt").write_text(f"a\n{name}\n")
    save(folder, "yolo/images/a.png")
    (folder / "yolo/data.yaml").write_text("names: [owl]\ntrain: list.txt\n")
    (folder / "yolo/list.txt").write_text(f"a.png\n{name}.png\n")
    return [folder / each for each in ("labels.json", "labels.csv", "voc/ImageSets/Main/train.txt", "yolo")]


@pytest.mark.parametrize("name", NO_NAMES, ids=["long", "nul"])
def test_names_that_no_file_can_have_are_missing(tmp_path, name):
    """A picture whose name the system cannot take is one that is not there: named, or skipped and counted."""
    for path in names_each(tmp_path, name):
        with pytest.raises(InputError, match="1 of 2 pictures or their labels are not there"):
            read_samples(path)
        samples = read_samples(path, missing="skip")
        assert [one.id for one in samples] == ["a.png"]
        assert samples.skipped == {"missing pictures or label files": 1}


def named_alone(folder, name):
    """Write a set of each format but YOLO, in folders of their own, that names this picture alone; return the paths."""
    for place in ("coco", "csv", "voc"):
        (folder / place).mkdir(parents=True)
    images = [{"id": 1, "file_name": name}]
    text = json.dumps({"images": images, "annotations": [], "categories": []})
    (folder / "coco/labels.json").write_text(text)
    (folder / "csv/labels.csv").write_text(f"image,x1,y1,x2,y2,label\n{name},1,2,3,4,owl\n")
    annotation = f"<annotation><filename>{name}</filename></annotation>"
    (folder / "voc/b.xml").write_text(annotation)
    return [folder / "coco/labels.json", folder / "csv/labels.csv", folder / "voc"]


@pytest.mark.parametrize("name", ["../../../x.png", "{root}/x.png", "sub/../../../../x.png", "../../../gone.png"])
def test_no_picture_outside_is_read(tmp_path, name):
    """A name that leads out of the folders of a data set is refused, whether there is a picture or not."""
    root = tmp_path.resolve()
    save(root, "x.png")
    for path in named_alone(root / "a/b", name.format(root=root)):
        for missing in ("refuse", "skip"):
            with pytest.raises(InputError, match=rf"1 of 1 pictures lie outside of '{root}/a/b[^:]*': ") as caught:
                read_samples(path, missing=missing)
            assert caught.value.remedy == "Give as pictures the folder in which all of them are."


@pytest.mark.parametrize("name", ["../../../pictures/x.png", "{root}/pictures/x.png"])
def test_the_folder_that_is_given_for_pictures_is_the_limit(tmp_path, monkeypatch, name):
    """With the folder in which they are, such names are read, however it is spelt; with another one they are not."""
    root = tmp_path.resolve()
    save(root, "pictures/x.png")
    monkeypatch.chdir(save(root, "other/y.png").parent)
    name = name.format(root=root)
    for path in named_alone(root / "a/b", name):
        for pictures in (root / "pictures", root, "../pictures"):
            (one,) = read_samples(path, pictures=pictures)
            assert one.id == name
            assert one.open().image_size == SIZE
        with pytest.raises(InputError, match=f"lie outside of '{root}/other'"):
            read_samples(path, pictures=".")


def test_names_that_lead_about_inside(tmp_path):
    """Names with '..' and whole paths are read as long as they stay within the data set."""
    root = tmp_path.resolve()
    for number, name in enumerate(("../images/a.png", f"{root}/1/images/a.png")):
        place = root / str(number)
        save(place, "images/a.png")
        (place / "json").mkdir()
        (place / "json/labels.csv").write_text(f"image,x1,y1,x2,y2,label\n{name},1,2,3,4,owl\n")
        (one,) = read_samples(place / "json")
        assert (one.id, one.picture) == (name, str(place / "images/a.png"))


def test_links_lead_out_only_where_the_user_made_them(tmp_path):
    """A link in the data set is followed, and '..' behind it leads back into the set, not around where it leads."""
    root = tmp_path.resolve()
    save(root, "disk/deep/a.png")
    save(root, "disk/x.png", seed=1)
    path, *_others = named_alone(root / "set", "link/a.png")
    (path.parent / "link").symlink_to(root / "disk/deep")
    assert [one.id for one in read_samples(path)] == ["link/a.png"]
    path.write_text(path.read_text().replace("link/a.png", "link/../x.png"))
    with pytest.raises(InputError, match=r"1 of 1 pictures or their labels are not there: 'link/\.\./x\.png'"):
        read_samples(path)


def test_an_annotation_that_names_what_lies_outside(tmp_path):
    """It is that of the picture named as itself, as where there is no file of the name inside."""
    root = tmp_path.resolve()
    save(root, "x.png", seed=1)
    (*_others, path) = named_alone(root / "a/b", f"{root}/x.png")
    save(path, "b.png")
    assert [one.id for one in read_samples(path)] == ["b.png"]


def test_a_voc_annotation_names_what_no_file_can_have(tmp_path):
    """An annotation that names an impossible picture is that of the picture named as itself."""
    save(tmp_path, "a.png")
    (tmp_path / "a.xml").write_text(f"<annotation><filename>{'n' * 300}</filename></annotation>")
    assert [one.id for one in read_samples(tmp_path)] == ["a.png"]


def test_what_may_not_be_looked_at_is_no_missing_picture(tmp_path, monkeypatch):
    """Where the system does not say whether a picture is there, that is refused, with the place, and never skipped."""
    paths, stat = names_each(tmp_path, "kept/b"), os.stat

    def refusing(path, *args, **kwargs):
        if "kept" in os.fsdecode(path) and os.fsdecode(path).endswith((".png", ".xml")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refusing)
    for path in paths:
        with pytest.raises(InputError, match=r"cannot look at '.*kept.+b\.(png|xml)': Permission denied") as caught:
            read_samples(path, missing="skip")
        assert isinstance(caught.value.__cause__, PermissionError)


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    """A folder that the system does not list is refused by name."""

    def refusing(self):
        raise PermissionError(errno.EACCES, "Permission denied", self)

    monkeypatch.setattr(type(tmp_path), "iterdir", refusing)
    with pytest.raises(InputError, match=f"cannot look at '{tmp_path}': Permission denied"):
        read_samples(tmp_path)


def test_ids_that_no_file_can_have_are_not_written(tmp_path):
    """Samples whose ids cannot be names of files are refused as those whose pictures lie elsewhere."""
    (one,) = on_disk(tmp_path, {"a.png": GroundTruth([], [], SIZE)})
    samples = Samples(items=[attrs.evolve(one, id="n" * 300)])
    with pytest.raises(InputError, match="do not lie there under their ids"):
        write_samples(samples, tmp_path / "labels.csv", format="csv")


def test_a_set_is_read_without_sizes(tmp_path):
    """Sizes that a label file leaves open are those of the pictures, in COCO as in VOC."""
    document = json.loads(coco_of(tmp_path, {"bbox": [1, 2, 3, 4]}).read_text())
    for stated in ({}, {"height": None, "width": None}, {"height": 24.0, "width": 32.0}):
        document["images"] = [{"id": 1, "file_name": "a.png"} | stated]
        (tmp_path / "labels.json").write_text(json.dumps(document))
        (one,) = read_samples(tmp_path / "labels.json")
        assert one.truth.image_size == (24, 32)
    item = OBJECT.format("")
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


def test_voc_in_lower_case(tmp_path):
    """The .xml under annotations/ and pictures in images/ are VOC; an annotations/ of .json alone is not."""
    save(tmp_path, "images/a.png")
    (tmp_path / "annotations/xmls").mkdir(parents=True)
    (tmp_path / "annotations/instances.json").write_text("{}")
    (tmp_path / "b.xml").write_text("<annotation/>")
    assert layouts.voc_annotations(tmp_path) == tmp_path
    text = f"<annotation><filename>a.png</filename>{OBJECT.format('')}</annotation>"
    (tmp_path / "annotations/xmls/a.xml").write_text(text)
    for path in (tmp_path, tmp_path / "annotations"):
        (one,) = read_samples(path)
        assert (one.id, one.truth.label_names) == ("a.png", ("owl",))


def test_voc_beside_images_is_written_as_it_is_read(tmp_path):
    """Pictures in images/ are found by the writer as by the reader."""
    written = on_disk(tmp_path / "images", {"a.png": GroundTruth([(1, 2, 4, 6)], ["owl"], SIZE)})
    (read,) = read_samples(write_samples(written, tmp_path, format="voc"))
    assert read.truth == attrs.evolve(written[0].truth, source="a.png")


def test_difficult_objects_are_labels_like_others(tmp_path):
    """What VOC marks as difficult counts, as the guide says."""
    save(tmp_path, "a.png")
    items = OBJECT.format("<difficult>1</difficult>") + OBJECT.format("<difficult>0</difficult>")
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{items}</annotation>")
    assert read_samples(tmp_path).box_counts == {"owl": 2}
