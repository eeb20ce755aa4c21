"""Writing data sets: what was written reads back, and nothing is replaced or written by halves."""

import json
import warnings

import attrs
import numpy as np
import pytest
import yaml
from data_fixtures import coco_of, data_sets, on_disk, samples_of, save
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.data.reading import FORMATS, read_samples
from hydra_detect.data.writing import write_samples
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError

FILES = {"coco": "labels.json", "csv": "labels.csv", "voc": "set", "yolo": "set"}


@given(data_sets(), st.sampled_from(["coco", "csv", "voc", "yolo"]), st.booleans())
def test_what_is_written_reads_back(tmp_path_factory, labels, label_format, is_grouped):
    """Each format gives samples back, to the precision that `writing` states, recognised by what is there."""
    folder = tmp_path_factory.mktemp("set")
    if label_format in ("voc", "yolo"):  # one file per picture, named without its ending
        labels = dict(sorted({name: truth for name, truth in labels.items() if name != "e.f.png"}.items()))
    groups = dict.fromkeys(labels, "one recording") if is_grouped and label_format != "yolo" else None
    written = on_disk(folder / "pictures", labels, groups=groups)
    path = write_samples(written, folder / FILES[label_format], format=label_format, pictures=folder / "pictures")
    if label_format in ("voc", "csv"):
        written = attrs.evolve(written, class_names=sorted({n for s in written for n in s.truth.label_names}))
    if label_format == "voc" and not labels:  # no file was written that could be recognised
        return
    read = read_samples(path, pictures=folder / "pictures")
    assert [one.id for one in read] == [one.id for one in written]
    assert read.class_names == written.class_names
    for one, other in zip(read, written, strict=True):
        if label_format == "yolo":
            assert one.truth.label_names == other.truth.label_names
            np.testing.assert_allclose(one.truth.boxes, other.truth.boxes, rtol=2.0**-23, atol=60 * 2.0**-49)
        else:
            assert attrs.evolve(one.truth, source=None) == other.truth
            assert one == attrs.evolve(other, truth=one.truth)
            assert one.digest == other.digest


@pytest.mark.parametrize("label_format", FORMATS)
def test_pictures_are_found_beside_their_labels(tmp_path, label_format):
    """Without `pictures`, reader and writer look in the same usual places."""
    root = tmp_path / "set"
    where = {"coco": root, "csv": root / "images", "voc": root / "JPEGImages", "yolo": root / "images"}[label_format]
    written = on_disk(where, {"a.png": GroundTruth([(1, 2, 8, 16)], ["owl"], (32, 32))}).choose(["owl"])
    path = root / FILES[label_format] if label_format in ("coco", "csv") else root
    (read,) = read_samples(write_samples(written, path, format=label_format))
    assert read == attrs.evolve(written[0], truth=read.truth)
    assert attrs.evolve(read.truth, source=None) == written[0].truth
    with pytest.raises(InputError, match=r"files exist: .*Name another place"):
        write_samples(written, path, format=label_format)


def test_sparse_coco_numbers_come_back(tmp_path):
    """Numbers with gaps stay those of their classes, through choosing; a class without one gets the next."""
    categories = [{"id": 90, "name": "owl"}, {"id": 3, "name": "fox"}, {"id": 17, "name": "hare"}]
    path = coco_of(tmp_path, {"bbox": [1, 1, 5, 5], "category_id": 90}, categories=categories)
    read = read_samples(path)
    assert read.category_ids == {"owl": 90, "fox": 3, "hare": 17}
    for kept, name in ((read, "all"), (read.choose(["hare", "owl"]), "some")):
        again = write_samples(kept, tmp_path / f"{name}.json", format="coco")
        written = json.loads(again.read_text())["categories"]
        assert [each for each in categories if each in written] == sorted(written, key=categories.index)
        assert read_samples(again).category_ids == kept.category_ids
        assert len(written) == len(kept.class_names)
    more = attrs.evolve(read, class_names=[*read.class_names, "elk"])
    written = json.loads(write_samples(more, tmp_path / "more.json", format="coco").read_text())
    assert {"id": 91, "name": "elk"} in written["categories"]


def test_labels_of_some_pictures_say_nothing_of_the_others(tmp_path):
    """A part of a data set, written as YOLO, does not turn the other pictures of the folder into background."""
    truth = GroundTruth([(1, 2, 8, 16)], ["owl"], (32, 32))
    all_of = on_disk(tmp_path / "images", {"a.png": truth, "b.png": truth})
    path = write_samples(all_of[:1], tmp_path, format="yolo")
    assert [one.id for one in read_samples(path)] == ["a.png"]


@pytest.fixture
def supervision():
    """What others read label files with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports itself
        import supervision

        yield supervision.DetectionDataset


BOX = (1.25, 2.5, 20, 30)


def test_other_programs_read_what_is_written(tmp_path, supervision):
    """Boxes that were written come out of another library as they went in; in VOC it counts pixels from 1."""
    samples = on_disk(tmp_path / "images", {"a.png": GroundTruth([BOX], ["owl"], (32, 32))})
    write_samples(samples, tmp_path / "coco.json", format="coco", pictures=tmp_path / "images")
    write_samples(samples, tmp_path, format="yolo")
    write_samples(samples, tmp_path, format="voc", pictures=tmp_path / "images", voc_from_one=True)
    images = str(tmp_path / "images")
    read = [
        supervision.from_coco(images, str(tmp_path / "coco.json")),
        supervision.from_yolo(images, str(tmp_path / "labels"), str(tmp_path / "data.yaml")),
        supervision.from_pascal_voc(images, str(tmp_path / "Annotations")),
    ]
    for found in read:
        ((_path, _image, annotation),) = found
        np.testing.assert_allclose(annotation.xyxy, [BOX], atol=1e-4)
        assert [found.classes[number] for number in annotation.class_id] == ["owl"]


def test_pixels_counted_from_one_are_written_and_read(tmp_path):
    """What the devkit's own frame says comes back bit for bit; no other format has such a frame."""
    samples = on_disk(tmp_path / "JPEGImages", {"a.png": GroundTruth([(0, 0, 24, 32)], ["owl"], (32, 24))})
    path = write_samples(samples, tmp_path, format="voc", voc_from_one=True)
    assert "<xmin>1.0</xmin>" in (tmp_path / "Annotations/a.xml").read_text()
    assert read_samples(path, voc_from_one=True)[0].truth.boxes.tolist() == [[0, 0, 24, 32]]
    thin = on_disk(tmp_path / "thin/JPEGImages", {"a.png": GroundTruth([(2.25, 3, 2.75, 9)], ["owl"], (32, 24))})
    path = write_samples(thin, tmp_path / "thin", format="voc", voc_from_one=True)
    assert read_samples(path, voc_from_one=True)[0].truth.boxes.tolist() == [[2.25, 3, 2.75, 9]]
    with pytest.raises(InputError, match="cannot count pixels from 1: the labels are coco"):
        write_samples(samples, tmp_path / "a.json", format="coco", voc_from_one=True)


def test_a_list_as_ultralytics_takes_it(tmp_path):
    """It wants `train` and `val`, and joins only names that begin with ./ to the folder of the list."""
    truth = GroundTruth([BOX], ["owl"], (32, 32))
    write_samples(on_disk(tmp_path / "images", {"n/a.png": truth}), tmp_path, format="yolo")
    assert (tmp_path / "pictures.txt").read_text() == "./images/n/a.png\n"
    facts = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert (facts["train"], facts["val"]) == ("pictures.txt", "pictures.txt")
    elsewhere = on_disk(tmp_path / "others", {"n/a.png": truth})
    write_samples(elsewhere, tmp_path / "new", format="yolo", pictures=tmp_path / "others")
    assert (tmp_path / "new/pictures.txt").read_text() == "n/a.png\n"
    assert [one.id for one in read_samples(tmp_path / "new", pictures=tmp_path / "others")] == ["n/a.png"]


def test_nothing_is_written_by_halves(tmp_path):
    """Pictures that lie elsewhere, are no files or could leave the folder are refused before a file is written."""
    truth = GroundTruth([(1, 2, 8, 16)], ["owl"], (32, 32))
    filed = on_disk(tmp_path / "pictures", {"a.png": truth})
    (tmp_path / "other").mkdir()
    save(tmp_path / "other", "a.png", seed=9)
    outside = attrs.evolve(filed, items=[attrs.evolve(filed[0], id="../pictures/a.png")])
    for strays in (filed, samples_of(["owl"]), outside):
        with pytest.raises(InputError, match="pictures of 1 samples do not lie there under their ids"):
            write_samples(strays, tmp_path / "new.json", format="coco", pictures=tmp_path / "other")
    endings = on_disk(tmp_path / "twice", {"a.png": truth, "a.bmp": truth})
    for label_format in ("voc", "yolo"):
        with pytest.raises(InputError, match="differ in their ending alone"):
            write_samples(endings, tmp_path / "new", format=label_format, pictures=tmp_path / "twice")
    with pytest.raises(InputError, match="there is no format 'json'"):
        write_samples(filed, tmp_path / "new.json", format="json")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="write labels to"):
        write_samples(filed, tmp_path / "file" / "new.csv", format="csv", pictures=tmp_path / "pictures")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other", "pictures", "twice"]
