"""The manifest: one sealed text that binds the files of a version, and refuses whatever else a stranger puts in it."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import names, texts, unknowns, versions
from store_fixtures import AT, some_tensors

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.storage import artifacts, files, manifests, sealed

CONTENTS = {"a": b"owl", "b": b""}


def made(name="owl", number=1, contents=CONTENTS, **facts):
    """Return the text of a manifest over these contents."""
    facts = {"created_at": AT, "actor": "tester", "parent": None} | facts
    return manifests.text("heads", name, number, listing=manifests.listing_of(contents), **facts)


def stranger(**changes):
    """Return the text of a manifest that somebody else made and sealed; `...` leaves a field out."""
    document = {"format": 1, "kind": "heads", "name": "owl", "version": 1, "created_at": AT, "files": {}} | changes
    return sealed.seal({key: value for key, value in document.items() if value is not ...})


@given(
    names,
    versions,
    st.none() | versions,
    st.dictionaries(st.sampled_from(["a", "b.json", "c"]), st.binary(max_size=9)),
    texts,
    unknowns,
)
def test_round_trip(name, number, parent, contents, actor, unknown):
    """A manifest reads back as what it was made of, fields of later versions among it, and has one text."""
    text = made(name, number, contents, parent=parent, actor=actor, unknown=unknown)
    manifest = manifests.parse(text, "heads", name, number)
    assert (manifest.kind, manifest.name, manifest.number) == ("heads", name, number)
    assert (manifest.created_at, manifest.actor, manifest.parent) == (AT, actor, parent)
    assert manifest.files == {path: (len(data), files.sha256(data)) for path, data in contents.items()}
    assert manifest.digest == files.sha256(text)
    assert manifest.unknown == unknown
    assert made(name, number, dict(reversed(contents.items())), parent=parent, actor=actor, unknown=unknown) == text
    for path, data in contents.items():
        manifests.check_listed(manifest, path, len(data), files.sha256(data), asked="read it")


def test_what_a_later_version_wrote_is_kept():
    """A field that a later version added goes with the version, and hides none of the fields that are known here."""
    manifest = manifests.parse(made(unknown={"colour": "red", "actor": "a lie", "format": 9}), "heads", "owl", 1)
    assert (manifest.unknown, manifest.actor) == ({"colour": "red"}, "tester")
    again = made(unknown=manifest.unknown)
    assert json.loads(again)["colour"] == "red"
    assert manifests.parse(again, "heads", "owl", 1) == manifest
    assert manifests.parse(made(), "heads", "owl", 1).unknown == {}


@pytest.mark.parametrize("where", [("backbones", "owl", 1), ("heads", "fox", 1), ("heads", "owl", 2)])
def test_manifest_of_another_version(where):
    """A manifest speaks of the one version in whose folder it lies."""
    with pytest.raises(CorruptError, match="it speaks of another version") as caught:
        manifests.parse(made(), *where)
    assert caught.value.asked == f"read the manifest of {where[1]}@{where[2]}"
    assert caught.value.remedy == "Move the folder back."


@pytest.mark.parametrize("number", [True, 1.0, "1", None, ...])
def test_manifest_of_no_number(number):
    """What only equals a number is none."""
    with pytest.raises(CorruptError, match="it speaks of another version"):
        manifests.parse(stranger(version=number), "heads", "owl", 1)


def test_manifest_of_another_format():
    """A manifest of a later format is refused with both numbers, and is no damage."""
    with pytest.raises(RecordError, match="its format is 2 and this version of hydra-detect reads 1") as caught:
        manifests.parse(stranger(format=2), "heads", "owl", 1)
    assert caught.value.facts == {"format": 2}


@pytest.mark.parametrize(
    "listing",
    [
        None, [], 5, "a", {"a": None}, {"a": []}, {"a": [1]}, {"a": [1, "x"]}, {"a": ["1", "sha256:" + "0" * 64]},
        {"a": [-1, "sha256:" + "0" * 64]}, {"a": [True, "sha256:" + "0" * 64]}, {"a": [1, 5]}, {"a": [1, None, 3]},
        {"a": [1.0, "sha256:" + "0" * 64]}, ...,
        *({name: [1, "sha256:" + "0" * 64]} for name in ("../a", "/etc/passwd", "a/b", "C:a", "..", "", "a\\b", "NUL")),
    ],
    ids=str,
)  # fmt: skip
def test_manifest_of_a_stranger(listing):
    """A stranger can seal too: a listing that is malformed, or names files elsewhere, is refused."""
    with pytest.raises(CorruptError, match="cannot read the manifest of owl@1: its list of files is malformed"):
        manifests.parse(stranger(files=listing), "heads", "owl", 1)


@pytest.mark.parametrize("parent", ["1", 1.0, True, [1], {}, ...])
def test_a_parent_that_is_no_number(parent):
    """A parent is a note: one that is no number is none, and the version is read all the same."""
    assert manifests.parse(stranger(parent=parent), "heads", "owl", 1).parent is None
    assert manifests.parse(stranger(parent=7), "heads", "owl", 1).parent == 7


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_flipped_bit(place):
    """No bit of a manifest changes unseen, those of its parent and of what is unknown among them."""
    data = bytearray(made(parent=3, unknown={"colour": "red"}))
    data[place % len(data)] ^= 1 << place % 8
    with pytest.raises(CorruptError, match="cannot read the manifest of owl@1: "):
        manifests.parse(bytes(data), "heads", "owl", 1)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"actor": "x" * codec.MAX_JSON_BYTES}, "more than the 1048576 that it may have"),
        ({"unknown": {"notes": "x" * codec.MAX_JSON_BYTES}}, "more than the 1048576 that it may have"),
        ({"contents": {f"{number:06}.bin": b"" for number in range(15_000)}}, "more than the 1048576 that it may have"),
        ({"contents": {"../a": b""}}, "its list of files is malformed"),
    ],
    ids=["actor", "unknown", "files", "names"],
)
def test_what_could_not_be_read_again_is_not_made(facts, found):
    """A manifest that no one could read is refused while the mistake can still be mended."""
    with pytest.raises(RecordError, match=r"^cannot publish owl@1: ") as caught:
        made(**facts)
    assert found in caught.value.found
    assert caught.value.remedy == "Give fewer files, or shorter texts."


def test_check_listed():
    """A file that the manifest does not list, or lists otherwise, is refused with the reason."""
    manifest = manifests.parse(made(), "heads", "owl", 1)
    asked = "read it"
    assert manifests.listed_size(manifest, "a", asked) == 3
    assert manifests.listed_size(manifest, "b", asked) == 0
    for check in (manifests.listed_size, lambda *facts: manifests.check_listed(*facts[:2], 3, None, asked=facts[2])):
        with pytest.raises(CorruptError, match="cannot read it: the manifest lists only a, b"):
            check(manifest, "c", asked)
    digest = files.sha256(b"owl")
    manifests.check_listed(manifest, "a", 3, digest, asked=asked)
    with pytest.raises(CorruptError, match="cannot read it: it has 4 bytes and the manifest says 3"):
        manifests.check_listed(manifest, "a", 4, digest, asked=asked)
    with pytest.raises(CorruptError, match=f"cannot read it: its SHA-256 is not the {digest.short}"):
        manifests.check_listed(manifest, "a", 3, files.sha256(b"fox"), asked=asked)


def test_manifest_is_canonical_json():
    """A manifest is a small sealed JSON text that a person can read."""
    tensors = artifacts.encode_tensors(some_tensors())
    text = made(contents={"model.safetensors": tensors}, parent=7)
    value = json.loads(text)
    assert codec.dumps(value) == text
    assert value["files"] == {"model.safetensors": [len(tensors), str(files.sha256(tensors))]}
    assert (value["parent"], value["version"], value["format"]) == (7, 1, 1)


def test_manifests_do_not_change():
    """A manifest is what was read: nobody changes it afterwards."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        manifests.parse(made(), "heads", "owl", 1).number = 2
