"""The layout: every path of a store, and which names in its folders are numbers of ours."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from record_strategies import names, texts, versions

from hydra_detect.errors import NameInvalidError, StoreError
from hydra_detect.storage import layout


@given(names, versions)
def test_every_path_lies_in_the_store(name, number):
    """All paths of an item lie in its own folder, and are those that the layout documents."""
    root = Path("/store")
    item = layout.StoreLayout(root).item(layout.HEADS, name)
    folder = root / "heads" / name
    assert item.root == folder
    assert item.claim(number) == folder / "claims" / f"{number:06}"
    assert item.version(number) == folder / "versions" / f"{number:06}"
    assert item.pointer(number) == folder / "pointer" / f"{number:08}.json"
    assert item.staging == folder / "tmp"
    assert layout.StoreLayout(root).lock(layout.HEADS, name) == root / "locks" / f"heads.{name}.lock"


@given(texts)
def test_no_path_for_other_names(text):
    """There is no path at all for what is no name."""
    place = layout.StoreLayout(Path("/store"))
    try:
        assert place.item(layout.HEADS, text).root.parent == Path("/store/heads")
    except NameInvalidError:
        with pytest.raises(NameInvalidError, match="as a head name"):
            place.lock(layout.HEADS, text)


def test_numbers_are_those_of_our_own_names(tmp_path):
    """Only names that the layout itself gives count as numbers, and they are ordered as numbers."""
    item = layout.ItemLayout(tmp_path)
    assert (item.version_numbers(), item.claimed_numbers(), item.pointer_generations()) == ([], [], [])
    ours = ["000002", "000010", "000009", "999999", "1000000"]
    odd = ["000000", "1", "0000003", "000004.tmp", "000005 ", "٠٠٠٠٠٦", "-00007", "tmp", ".000008"]
    for name in [*ours, *odd]:
        (item.versions / name).mkdir(parents=True)
    assert item.version_numbers() == [2, 9, 10, 999_999, 1_000_000]
    item.pointers.mkdir()
    for name in ["00000009.json", "00000010.json", "00000000.json", "000000011.json", "00000012", "00000013.json~"]:
        (item.pointers / name).touch()
    assert item.pointer_generations() == [9, 10]


def test_folders_that_lead_nowhere_hold_no_numbers(tmp_path):
    """A file in the place of a folder, and links in a circle, hold no number of ours."""
    (tmp_path / "versions").touch()
    (tmp_path / "pointer").symlink_to(tmp_path / "pointer")
    item = layout.ItemLayout(tmp_path)
    assert (item.version_numbers(), item.pointer_generations()) == ([], [])
    assert (layout.ItemLayout(tmp_path / "versions").version_numbers(), item.claimed_numbers()) == ([], [])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch, number):
    """What the system refuses to list is not taken for an empty folder, and the remedy is one for reading."""

    def refuse(_path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match=f"cannot list {tmp_path}/versions: ") as caught:
        layout.ItemLayout(tmp_path).version_numbers()
    assert caught.value.facts == {"errno": number}
    assert caught.value.remedy == "See to the file system, and whether you have the right to read there."
