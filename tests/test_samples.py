"""Samples: checked at birth, told apart by content, chosen by class."""

import pickle
from pathlib import Path

import attrs
import numpy as np
import pytest
import strategies
from data_fixtures import SIZE, data_sets, on_disk, picture, sample, samples_of, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hydra_detect.data.classes import parse_classes
from hydra_detect.data.samples import Role, Sample, Samples, digest_of_picture
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.pictures import Picture

TRUTH = GroundTruth([(1, 2, 5, 6)], ["owl"], SIZE)


def test_empty_first():
    """No samples are ordinary: no classes, no boxes, a digest, and empty again however they are cut."""
    empty = Samples()
    assert (len(empty), list(empty), empty.class_names, empty.box_counts) == (0, [], (), {})
    assert (empty.labelled, empty.backgrounds, empty.role, empty.skipped) == (0, 0, None, {})
    assert empty[:3] == empty[[]] == empty[np.zeros(0, dtype=bool)] == empty
    assert empty.digest == Samples(class_names=["owl"]).digest
    assert Samples(class_names=["owl", "fox"]).box_counts == {"owl": 0, "fox": 0}


# One sample


def test_a_sample_is_its_own_group_unless_told():
    """The group is the id by default."""
    assert sample("a").group == "a"
    assert sample("a", group="recording 3").group == "recording 3"


def test_opening_checks_the_frame_of_the_boxes():
    """A picture of another size than it was labelled in is refused: its boxes would be elsewhere."""
    assert sample("a").open().image_size == SIZE
    turned = attrs.evolve(sample("a"), picture=picture(0, SIZE[::-1]))
    with pytest.raises(InputError, match="'a': it is 32 x 24 and was labelled at 24 x 32") as caught:
        turned.open()
    assert caught.value.facts == {"id": "a"}
    with pytest.raises(InputError, match="the limit is 10"):
        sample("a").open(max_pixels=10)


@pytest.mark.parametrize("name", ["", " a", "a\n", "\x1b[0m", None, 5], ids=repr)
def test_ids_and_groups_are_printable(name):
    """An id or group that could not be written in a list or a table is refused."""
    with pytest.raises(InputError, match="its id is"):
        Sample(id=name, picture=picture(0), truth=TRUTH, group="g")
    if name is not None:
        with pytest.raises(InputError, match="its group is"):
            Sample(id="a", picture=picture(0), truth=TRUTH, group=name)


@pytest.mark.parametrize(
    ("box", "size", "found"),
    [
        ((1, 1, 1, 5), SIZE, "have no area or leave the picture of 24 x 32"),
        ((1, 5, 4, 5), SIZE, "no area"),
        ((-1, 1, 4, 5), SIZE, "leave the picture"),
        ((1, 1, 33, 5), SIZE, "leave the picture"),
        ((1, 1, 5, 24.5), SIZE, "leave the picture"),
        ((1, 1, 5, 5), (0, 0), "size is 0 x 0"),
    ],
)
def test_no_sample_has_a_box_that_cannot_be_learnt(box, size, found):
    """Boxes without area or beyond the picture are refused at birth, not in the middle of a training."""
    with pytest.raises(InputError, match=found):
        Sample(id="a", picture=picture(0), truth=GroundTruth([box], ["owl"], size))


def test_a_box_over_the_whole_picture_is_in_it():
    """The border belongs to the picture."""
    truth = GroundTruth([(0, 0, 32, 24)], ["owl"], SIZE)
    assert Sample(id="a", picture=picture(0), truth=truth).truth == truth


# Digests


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    """Two files of equal bytes are one picture; a re-encoded one is another; a missing one is refused."""
    one, two = save(tmp_path, "a.png"), save(tmp_path, "b.png")
    assert digest_of_picture(one) == digest_of_picture(str(two))
    Image.open(one).save(tmp_path / "a.bmp")
    assert digest_of_picture(tmp_path / "a.bmp") != digest_of_picture(one)
    with pytest.raises(InputError, match=r"gone\.png'.*No such file"):
        digest_of_picture(tmp_path / "gone.png")


def test_the_digest_of_values_is_that_of_dtype_shape_and_values():
    """Arrays, tensors, PIL images and Pictures have a digest by content, whatever their memory looks like."""
    torch = pytest.importorskip("torch")
    grey = picture(0)[..., 0]
    assert digest_of_picture(grey) == digest_of_picture(np.asfortranarray(grey)) == digest_of_picture(grey.copy())
    assert digest_of_picture(grey) == digest_of_picture(torch.from_numpy(grey.copy()))
    wide = grey.astype(np.uint16)
    assert digest_of_picture(wide) == digest_of_picture(wide.astype(">u2"))
    pixels = np.full((1, 2, 3), 0.5, dtype=np.float32)
    assert digest_of_picture(Picture(pixels)) == digest_of_picture(pixels)
    assert digest_of_picture(torch.ones(2, 3, dtype=torch.bfloat16)) == digest_of_picture(np.ones((2, 3), np.float32))
    image = Image.fromarray(grey)
    different = [grey, grey.view(np.int8), grey.reshape(32, 24), wide, image, Image.fromarray(picture(0)), pixels]
    assert len({digest_of_picture(each) for each in different}) == len(different)


@given(st.permutations(range(4)))
def test_the_order_of_boxes_does_not_count(order):
    """A sample's digest is the same in whatever order its boxes stand."""
    labels = ["owl", "fox", "owl", "owl"]
    boxes = [(0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3), (0, 0, 3, 3)]
    there = Sample(id="a", picture=picture(0), truth=GroundTruth(boxes, labels, SIZE))
    mixed = GroundTruth([boxes[n] for n in order], [labels[n] for n in order], SIZE)
    assert attrs.evolve(there, truth=mixed).digest == there.digest


def test_what_changes_a_digest():
    """Another picture, box or label is another sample; id, group and source are only what it is called."""
    there = sample("a", ["owl"])
    same = attrs.evolve(there, id="b", group="g", truth=attrs.evolve(there.truth, source="x"))
    assert same.digest == there.digest
    others = [
        attrs.evolve(there, picture=picture(7)),
        attrs.evolve(there, truth=GroundTruth([(0, 0, 5, 6.5)], ["owl"], SIZE)),
        attrs.evolve(there, truth=GroundTruth([(0, 0, 5, 6)], ["fox"], SIZE)),
        sample("a"),
    ]
    assert len({each.digest for each in [there, *others]}) == 5


@given(st.permutations(range(3)))
def test_the_order_of_samples_does_not_count(order):
    """The digest of samples is the same in any order, and another for other samples."""
    all_of = samples_of(["owl"], ["fox"], [])
    assert all_of[list(order)].digest == all_of.digest
    assert all_of[:2].digest != all_of.digest


def test_digests_are_computed_once(tmp_path):
    """What a file was when it was first looked at stays the sample's digest."""
    one = Sample(id="a", picture=save(tmp_path, "a.png"), truth=TRUTH)
    before = one.digest
    save(tmp_path, "a.png", seed=1)
    assert one.digest == before
    assert attrs.evolve(one).digest != before


def test_samples_survive_pickling_and_compare_by_content(tmp_path):
    """Samples with pictures of any kind can be sent to a worker, and are equal to what they were."""
    filed = Sample(id="f", picture=save(tmp_path, "a.png"), truth=TRUTH)
    all_of = Samples(items=[sample("a", ["owl"]), filed], skipped={"crowd regions": 2})
    for _before_and_after_the_digest in range(2):
        again = pickle.loads(pickle.dumps(all_of))  # noqa: S301  our own
        assert again == all_of
        assert again.digest == all_of.digest
    assert filed == attrs.evolve(filed, picture=str(filed.picture))
    assert sample("a") != sample("a", seed=5)


# Samples


def test_samples_are_a_sequence():
    """One by number, several by slice, list or mask; what they are part of stays with them."""
    all_of = attrs.evolve(samples_of(["owl"], [], ["fox"]), skipped={"x": 1}).with_role("select")
    assert all_of[1].id == all_of[-2].id == "s001"
    assert [one.id for one in all_of] == ["s000", "s001", "s002"]
    for part in (all_of[1:], all_of[[1, 2]], all_of[np.array([False, True, True])], all_of[[False, True, True]]):
        assert [one.id for one in part] == ["s001", "s002"]
        assert (part.class_names, part.role, part.skipped) == (("fox", "owl"), Role.SELECT, {"x": 1})
    with pytest.raises(IndexError, match="out of range"):
        all_of[3]
    with pytest.raises(IndexError, match="out of bounds"):
        all_of[[3]]


def test_counts():
    """Boxes are counted by class in the order of the names; a background has no box."""
    all_of = Samples(items=samples_of(["owl", "owl"], [], ["fox"]).items, class_names=["owl", "fox", "hare"])
    assert list(all_of.box_counts.items()) == [("owl", 2), ("fox", 1), ("hare", 0)]
    assert (all_of.labelled, all_of.backgrounds) == (2, 1)


def test_what_cannot_be_gathered():
    """Ids that stand twice, classes nobody wants, unprintable names and unknown roles are refused by name."""
    with pytest.raises(InputError, match="these ids stand twice: a") as caught:
        Samples(items=[sample("a"), sample("a")])
    assert caught.value.facts == {"ids": ["a"]}
    with pytest.raises(InputError, match="boxes are of the classes owl, and class_names are fox"):
        Samples(items=[sample("a", ["owl"])], class_names=["fox"])
    for names, found in ((["a", "a"], "'a' stands twice"), ([" a"], "space"), ([""], "empty"), (["a" * 201], "longer")):
        with pytest.raises(InputError, match=found):
            Samples(class_names=names)
    with pytest.raises(InputError, match=r"none named 'tset'\. Did you mean 'test'"):
        Samples().with_role("tset")


# Classes


def test_choosing_classes_leaves_the_others_as_background():
    """Boxes of other classes go, their pictures stay; the given order is that of the names."""
    all_of = samples_of(["RBC", "WBC"], ["RBC"], ["Platelets"], [])
    one = all_of.choose(["WBC"])
    assert (one.class_names, one.box_counts, one.labelled, one.backgrounds) == (("WBC",), {"WBC": 1}, 1, 3)
    assert [each.id for each in one] == [each.id for each in all_of]
    assert all_of.choose(["WBC", "RBC"]).class_names == ("WBC", "RBC")
    assert all_of.choose(all_of.class_names) == all_of


def test_merging_classes():
    """A new name stands for one class or several; boxes keep their places."""
    all_of = samples_of(["RBC", "WBC"], ["Platelets"])
    cells = all_of.choose({"cell": ["RBC", "WBC"], "plate": "Platelets"})
    assert cells.box_counts == {"cell": 2, "plate": 1}
    assert np.array_equal(cells[0].truth.boxes, all_of[0].truth.boxes)


def test_coco_numbers_follow_their_classes():
    """A class keeps its number; a merged one has the smallest of those it stands for."""
    numbered = attrs.evolve(samples_of(["RBC", "WBC", "x"]), category_ids={"RBC": 70, "WBC": 7})
    assert numbered.choose(["RBC", "x"]).category_ids == {"RBC": 70}
    assert numbered.choose({"cell": ["RBC", "WBC"], "x": "x"}).category_ids == {"cell": 7}


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["wbc"], "no class 'wbc'. Did you mean 'WBC'"),
        ("WBC", r"Write \['WBC'\]"),
        ([], "names none"),
        (["WBC", "WBC"], "one twice"),
        ({"a": "WBC", "b": ["RBC", "WBC"]}, "'WBC' would become both 'a' and 'b'"),
        ({"a": "x"}, "no class 'x'"),
    ],
)
def test_classes_that_cannot_be_chosen(classes, found):
    """An unknown class, one text for a list, and a class wanted twice are refused."""
    with pytest.raises(InputError, match=found):
        samples_of(["WBC", "RBC"]).choose(classes)


def test_classes_of_a_command_line():
    """A name is itself, NEW=NAME,NAME merges, and what lacks a name is refused."""
    assert parse_classes([]) == {}
    assert parse_classes(["WBC", "cell = RBC, Platelets"]) == {"WBC": ("WBC",), "cell": ("RBC", "Platelets")}
    all_of = samples_of(["WBC", "RBC"])
    assert all_of.choose(parse_classes(["cell=RBC,WBC"])).box_counts == {"cell": 2}
    for text in ("", "=RBC", "cell=", "cell=RBC,,WBC"):
        with pytest.raises(InputError, match="lacks a name"):
            parse_classes([text])
    with pytest.raises(InputError, match="'WBC' stands twice"):
        parse_classes(["WBC", "WBC=RBC"])


@given(data_sets(), st.lists(st.sampled_from(strategies.LABELS), min_size=1, unique=True))
def test_choosing_keeps_just_the_chosen_boxes(tmp_path_factory, labels, classes):
    """Of each class chosen all boxes stay, of the others none, and choosing again changes nothing."""
    all_of = on_disk(Path(tmp_path_factory.mktemp("set")), labels)
    some = all_of.choose(classes)
    assert some.box_counts == {name: all_of.box_counts[name] for name in classes}
    assert some.choose(classes) == some
    assert len(some) == len(all_of)


def test_pictures_that_were_changed_since_they_were_read(tmp_path):
    """What was written over after its digest was taken is refused by name: features and figures would be of others."""
    samples = on_disk(tmp_path, {name: GroundTruth([], [], SIZE) for name in ("a.png", "b.png")})
    assert samples.digest
    samples.check_pictures("learn")
    save(tmp_path, "b.png", SIZE, seed=9)
    with pytest.raises(InputError, match=r"1 of 2 pictures cannot be read: 'b\.png' \(it was changed since\).*anew"):
        samples.check_pictures("learn")
