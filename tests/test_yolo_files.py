"""YOLO data sets on disk: the pictures that a data.yaml names are the samples, and no others."""

import pytest
from data_fixtures import save

from hydra_detect.data.reading import read_samples
from hydra_detect.errors import InputError

LINE = "0 0.5 0.5 0.5 0.5\n"
SPLITS = "train: images/train\nval: images/val\n"
BOTH = ["train/1.png", "val/2.png"]


def write_yaml(folder, text, names="[owl]"):
    """Write a data.yaml and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(f"{text}names: {names}\n")
    return folder / "data.yaml"


def label(folder, name):
    """Write a label file of one box."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(LINE)


def a_set(folder, text=SPLITS):
    """Write a set with pictures in images/train, images/val and images/test, the last without labels."""
    for number, part in enumerate(("train", "val", "test"), start=1):
        save(folder, f"images/{part}/{number}.png", seed=number)
        if part != "test":
            label(folder, f"labels/{part}/{number}.txt")
    write_yaml(folder, text)
    return folder


def ids(path, **options):
    """Return the ids that are read."""
    return [one.id for one in read_samples(path, **options)]


@pytest.mark.parametrize(
    "text",
    [
        SPLITS,
        "train: [images/train, images/val]\n",
        "train: ./images/train/\nval: images/val\ntest: images/val\n",
        "train: ../images/train\nval: ../images/val\n",
        "path: .\n" + SPLITS,
        "path: ../set\n" + SPLITS,
        "path: images\ntrain: train\nval: val\n",
        "path: /content/of/another/machine\n" + SPLITS,
        "train: images/train.txt\nval: val.txt\n",
    ],
)
def test_the_pictures_that_are_named_are_the_samples(tmp_path, text):
    """Folders and lists are found from `path` or the file's own folder; what they leave out is no background."""
    folder = a_set(tmp_path / "set", text)
    (folder / "images/train.txt").write_text("./train/1.png\n\n")
    (folder / "val.txt").write_text("images/val/2.png\nimages/val/2.png\n")
    for path in (folder, folder / "data.yaml"):
        samples = read_samples(path)
        assert [one.id for one in samples][: len(BOTH)] in (BOTH, ["1.png", "2.png"])
        assert (samples.box_counts, samples.backgrounds) == ({"owl": 2}, 0)


def test_all_pictures_count_where_none_are_named(tmp_path):
    """Without train, val and test, or with nothing there, every picture of the folder is a sample."""
    for text in ("", "train:\nval: []\n"):
        assert ids(a_set(tmp_path, text)) == ["test/3.png", *BOTH]


def test_what_is_named_twice_counts_once(tmp_path):
    """A folder within another that is named too adds nothing."""
    assert ids(a_set(tmp_path, "train: images\nval: images/val\n")) == ["test/3.png", *BOTH]


def test_labels_of_what_is_left_out_lack_no_picture(tmp_path):
    """Label files outside the folders that are named are not asked for their pictures; those within them are."""
    folder = a_set(tmp_path)
    label(folder, "labels/test/gone.txt")
    assert ids(folder) == BOTH
    label(folder, "labels/val/gone.txt")
    with pytest.raises(InputError, match="1 of 3 pictures or their labels are not there: 'val/gone'"):
        read_samples(folder)


def test_a_data_yaml_that_lies_elsewhere(tmp_path):
    """A data.yaml by itself reads the set that its `path` names, or that whose folder is given for the pictures."""
    folder = a_set(tmp_path / "set")
    for number, path in enumerate(("../set", folder)):
        assert ids(write_yaml(tmp_path / f"away{number}", f"path: {path}\n{SPLITS}")) == BOTH
    alone = write_yaml(tmp_path / "alone", SPLITS)
    with pytest.raises(InputError, match=r"no picture in '.*alone' where it says: 'images/train', 'images/val'"):
        read_samples(alone)
    samples = read_samples(alone, pictures=folder)
    assert [one.id for one in samples] == [f"images/{each}" for each in BOTH]
    assert samples.box_counts == {"owl": 2}


def test_a_set_without_any_picture_is_refused(tmp_path):
    """Where no picture is found, that is said, even if missing ones are to be skipped; an empty list says it itself."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("owl\n")
    label(tmp_path, "labels/a.txt")
    for text in (None, "", "train: images\n", "train: list.txt\n"):
        if text is not None:
            (tmp_path / "list.txt").write_text("a.png\n")
            write_yaml(tmp_path, text)
        with pytest.raises(InputError, match="there is no picture in"):
            read_samples(tmp_path, missing="skip")
    (tmp_path / "list.txt").write_text("")
    assert len(read_samples(tmp_path)) == 0


def test_a_listed_picture_that_is_missing(tmp_path):
    """It is missing, and not elsewhere, in whichever folder its list lies."""
    folder = a_set(tmp_path, "train: images/list.txt\n")
    for name in ("gone.png", f"{'n' * 300}/gone.png"):
        (folder / "images/list.txt").write_text(f"train/1.png\n{name}\n")
        with pytest.raises(InputError, match=f"1 of 2 pictures or their labels are not there: '{name[:10]}"):
            read_samples(folder)
        assert ids(folder, missing="skip") == ["train/1.png"]
    for number in (1, 2):  # labels beside pictures
        label(folder, f"flat/{number}.txt")
        save(folder, f"flat/{number}.png", seed=number)
    write_yaml(folder / "flat", "train: list.txt\n")
    (folder / "flat/list.txt").write_text(f"1.png\n{'n' * 300}/gone.png\n")
    assert ids(folder / "flat", missing="skip") == ["1.png"]


def test_a_folder_that_is_named_and_not_there(tmp_path):
    """It is named as what is missing, and can be done without."""
    folder = a_set(tmp_path, SPLITS + "test: ../gone/images\n")
    with pytest.raises(InputError, match=r"1 of 3 pictures or their labels are not there: '\.\./gone/images'"):
        read_samples(folder)
    samples = read_samples(folder, missing="skip")
    assert [one.id for one in samples] == BOTH
    assert samples.skipped == {"missing pictures or label files": 1}


@pytest.mark.parametrize(
    "text",
    [
        "train: ../other\n",
        "train: [images/train, ../other]\n",
        "train: {tmp_path}/other\n",
        "path: ../other\ntrain: more\n",
        "path: {tmp_path}\ntrain: other\n",
        "train: list.txt\n",
    ],
)
@pytest.mark.parametrize("line", ["../../other/images/a.png", "../../other/images/gone.png", "/a.png", "."])
def test_nothing_leads_out_of_the_folder_that_was_named(tmp_path, text, line):
    """Pictures outside the named folder are refused, whichever way a data.yaml or its list says it."""
    for name in ("images/a.png", "more/a.png"):
        save(tmp_path / "other", name, seed=9)
    folder = a_set(tmp_path / "set", text.format(tmp_path=tmp_path))
    (folder / "list.txt").write_text(f"images/train/1.png\n{line}\n")
    for missing in ("refuse", "skip"):
        with pytest.raises(InputError, match=r"is not in it\. Give as pictures the folder in which all of them are"):
            read_samples(folder, missing=missing)


def test_what_is_named_may_be_a_link(tmp_path):
    """A folder of pictures that is a link to another disk is read where it leads."""
    folder = a_set(tmp_path / "set")
    (folder / "images/val").rename(tmp_path / "disk")
    (folder / "images/val").symlink_to(tmp_path / "disk")
    assert ids(folder) == BOTH


def test_a_picture_is_no_folder_of_pictures(tmp_path):
    """A file that is no list is refused, and not taken for background."""
    with pytest.raises(InputError, match=r"'images/val/2\.png' under train, val or test is another kind of file"):
        read_samples(a_set(tmp_path, "val: images/val/2.png\n"))


def test_a_part_of_a_set_is_what_it_is(tmp_path):
    """Of a folder within a set, what the data.yaml above it names there counts; all, if it names nothing there."""
    folder = a_set(tmp_path)
    label(folder, "labels/test/3.txt")
    assert ids(folder / "labels") == BOTH
    assert ids(folder / "labels/val") == ["2.png"]
    assert ids(folder / "labels/test") == ["3.png"]
    write_yaml(folder, "train: list.txt\n")
    (folder / "list.txt").write_text("images/val/2.png\n")
    assert ids(folder / "labels") == ["val/2.png"]
    assert ids(folder / "labels/train") == ["1.png"]


def test_lists_and_folders_of_several_splits(tmp_path):
    """Where each split has folders of its own, named ones count alone, however deep they lie."""
    for seed, part in enumerate(("train", "valid", "test")):
        for place in (f"{part}/images", f"deep/sets/{part}/images"):
            save(tmp_path, f"{place}/{part}.png", seed=seed)
        label(tmp_path, f"{part}/labels/{part}.txt")
        label(tmp_path / "deep", f"sets/{part}/labels/{part}.txt")
    (tmp_path / "list.txt").write_text("train/images/train.png\ndeep/sets/valid/images/valid.png\n")
    write_yaml(tmp_path / "deep", "train: sets/train/images\nval: sets/valid/images\n")
    for text, names in (
        ("train: train/images\nval: ../valid/images\n", ["train/images/train.png", "valid/images/valid.png"]),
        ("train: train\n", ["train/images/train.png"]),
        ("train: list.txt\n", ["train/images/train.png", "deep/sets/valid/images/valid.png"]),
        ("train: [test/images, deep/sets/test/images]\n", ["deep/sets/test/images/test.png", "test/images/test.png"]),
    ):
        write_yaml(tmp_path, text)
        samples = read_samples(tmp_path)
        assert [one.id for one in samples] == names
        assert samples.box_counts == {"owl": len(names)}
    samples = read_samples(tmp_path / "deep")
    assert [one.id for one in samples] == ["sets/train/images/train.png", "sets/valid/images/valid.png"]
    assert samples.box_counts == {"owl": 2}


@pytest.mark.parametrize("text", ["train: train/images\nval: [valid/images]\n", "train: list.txt\n"])
def test_pictures_that_were_moved_keep_their_labels(tmp_path, text):
    """Pictures in another place than their labels, which the user gives, have those of the folder of their name."""
    for parts in (("train", "valid"), ("train",)):
        folder, place = tmp_path / f"set{len(parts)}", tmp_path / f"pictures{len(parts)}"
        write_yaml(folder, text)
        (folder / "list.txt").write_text("train/images/1.png\nvalid/images/2.png\n")
        for number, part in enumerate(("train", "valid"), start=1):
            save(place, f"{part}/images/{number}.png", seed=number)
        for number, part in enumerate(parts, start=1):
            label(folder, f"{part}/labels/{number}.txt")
        samples = read_samples(folder, pictures=place)
        assert [one.id for one in samples] == ["train/images/1.png", "valid/images/2.png"]
        assert samples.box_counts == {"owl": len(parts)}


def test_a_split_without_labels(tmp_path):
    """Where one split alone has labels, the folder of all pictures can be given, and the other is background."""
    for number, part in enumerate(("train", "test"), start=1):
        save(tmp_path, f"{part}/images/{number}.png", seed=number)
    label(tmp_path, "train/labels/1.txt")
    write_yaml(tmp_path, "train: train/images\ntest: test/images\n")
    with pytest.raises(InputError, match=r"test/images' is not in it\. Give as pictures the folder"):
        read_samples(tmp_path)
    samples = read_samples(tmp_path, pictures=tmp_path)
    assert [one.id for one in samples] == ["test/images/2.png", "train/images/1.png"]
    assert (samples.box_counts, samples.backgrounds) == ({"owl": 1}, 1)


def test_labels_beside_pictures_in_folders(tmp_path):
    """Without labels/, the label of a picture is beside it, in folders that are named as in all."""
    for part in ("a", "b"):
        save(tmp_path, f"{part}/{part}.png")
        label(tmp_path, f"{part}/{part}.txt")
    for text, names in (("", ["a/a.png", "b/b.png"]), ("train: b\n", ["b/b.png"])):
        write_yaml(tmp_path, text)
        samples = read_samples(tmp_path)
        assert [one.id for one in samples] == names
        assert samples.box_counts == {"owl": len(names)}


def test_paths_stay_as_the_user_gave_them(tmp_path, monkeypatch):
    """A set that is named relative to where one is has pictures that are named so too."""
    a_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for path in ("set", "set/data.yaml"):
        assert [str(one.picture) for one in read_samples(path)] == [f"set/images/{each}" for each in BOTH]
    monkeypatch.chdir(tmp_path / "set")
    for path in (".", "data.yaml"):
        assert ids(path) == BOTH


def test_any_spelling_of_yaml_is_one(tmp_path):
    """A data set named by a file that ends in .YML is read as one that ends in .yaml."""
    folder = a_set(tmp_path)
    (folder / "data.yaml").rename(folder / "SET.YML")
    assert ids(folder / "SET.YML") == BOTH
