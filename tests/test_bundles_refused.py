"""Bundles from strangers: whatever is wrong with one, it is refused by name, and nothing of it is believed."""

import os
import shutil

import attrs
import bundle_fixtures
import measure_fixtures
import numpy as np
import pytest
import store_fixtures
from bundle_fixtures import FILES, FORMS, check, evolved, forged, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_strategies import json_values
from store_fixtures import a_contract, some_tensors

from hydra_detect import codec
from hydra_detect.bundles import manifest
from hydra_detect.bundles.bundle import load_bundle
from hydra_detect.bundles.manifest import BACKBONE_RECORD, BACKBONE_TENSORS, HEAD_RECORD, HEAD_TENSORS, MANIFEST
from hydra_detect.errors import CorruptError, HydraDetectError, IncompatibleError, RecordError
from hydra_detect.names import Digest
from hydra_detect.records import BackboneRecord, HeadRecord, OperatingPolicy
from hydra_detect.storage import artifacts, layout, sealed
from hydra_detect.tensors import RawTensor, tensors_digest

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owls, contents = bundle_fixtures.owls, bundle_fixtures.contents

NAMES = sorted(FILES)
ZEROS = Digest("0" * 64)


def test_what_is_tested_here_is_refused_for_its_fault(contents, tmp_path):
    """A bundle that a stranger made with nothing wrong in it is a bundle: each refusal below has its own reason."""
    assert sorted(contents) == NAMES
    assert check(forged(contents)).origin == check(contents).origin
    for form in FORMS:
        assert load_bundle(write(forged(contents), tmp_path / form)) == check(contents)


# Damage


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_one_bit_of_any_file(contents, tmp_path, form, name):
    """One bit, at the beginning, in the middle or at the end of any file, and the bundle is refused."""
    size = len(contents[name])
    for at in (0, size // 2, size - 1):
        damaged = bytearray(contents[name])
        damaged[at] ^= 1
        path = write({**contents, name: bytes(damaged)}, tmp_path / form)
        with pytest.raises(CorruptError, match=r"cannot (load|read) .*bundle") as caught:
            load_bundle(path)
        assert str(path) in str(caught.value)
        assert name in str(caught.value)


def test_one_bit_of_the_manifest(contents):
    """No byte of bundle.json may be another, be it white space; and any other bytes are no manifest."""
    text = contents[MANIFEST]
    for at in range(len(text)):
        damaged = text[:at] + bytes([text[at] ^ (1 << at % 8)]) + text[at + 1 :]
        with pytest.raises(CorruptError, match=r"cannot read bundle\.json of it"):
            manifest.parse(damaged, "it")


@given(st.binary())
def test_any_bytes_for_a_manifest(data):
    """Whatever bytes a manifest is made of, the answer is a refusal that is one of ours."""
    with pytest.raises(CorruptError, match=r"cannot read bundle\.json of it"):
        manifest.parse(data, "it")


# Files that are missing, too much, or no files


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file(contents, tmp_path, form, name):
    """A file that is missing, or has another's name, is named; of those that need not be there, too."""
    found = rf"it lacks {name}" if name in manifest.REQUIRED else rf"lists and are missing: '{name}'; "
    with pytest.raises(CorruptError, match=found):
        load_bundle(write({each: data for each, data in contents.items() if each != name}, tmp_path / form))
    shutil.rmtree(tmp_path / form, ignore_errors=True)
    renamed = {f"{name}.old" if each == name else each: data for each, data in contents.items()}
    with pytest.raises(CorruptError, match=rf"it holds what no bundle holds: '{name}\.old'"):
        load_bundle(write(renamed, tmp_path / form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["README.md", "head/original.pth", "head/MANIFEST.json", "tail/record.json", ".git"])
def test_an_extra_file(contents, tmp_path, form, name):
    """A file that no bundle holds is refused, also where the manifest lists it."""
    for others in ({**contents, name: b"x"}, forged(contents, {name: b"x"})):
        with pytest.raises(CorruptError, match="it holds what no bundle holds"):
            load_bundle(write(others, tmp_path / form))
    with pytest.raises(CorruptError, match="it holds what no bundle holds"):
        check(forged(contents, {name: b"x"}))


def test_a_file_that_is_not_listed(contents):
    """A file that a bundle may hold, and this one's manifest does not list, is refused."""
    without = forged(contents, {"head/split.json": None})
    with pytest.raises(CorruptError, match=r"missing: none; that are there and not listed: head/split\.json"):
        check({**without, "head/split.json": contents["head/split.json"]})


def test_what_is_no_file(contents, tmp_path):
    """Links, folders and pipes in the place of files, and links in that of folders or bundles, are not followed."""
    path = write(contents, tmp_path / "owl")
    for name in (HEAD_RECORD, MANIFEST):
        os.replace(path / name, tmp_path / "elsewhere")  # noqa: PTH105  across folders, in one step
        (path / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CorruptError, match=f"{name} is no regular file"):
            load_bundle(path)
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(CorruptError, match=f"{name} is no regular file"):
            load_bundle(path)
        (path / name).unlink()
        (path / name).mkdir()
        with pytest.raises(CorruptError, match=f"{name} is no regular file"):
            load_bundle(path)
        (path / name).rmdir()
        os.replace(tmp_path / "elsewhere", path / name)  # noqa: PTH105  same
    (path / "head").rename(tmp_path / "head")
    (path / "head").symlink_to(tmp_path / "head")
    with pytest.raises(CorruptError, match="it holds what no bundle holds: 'head'"):
        load_bundle(path)
    for linked in (path, write(contents, tmp_path / "owl.zip")):
        (tmp_path / "link").symlink_to(linked)
        with pytest.raises(CorruptError, match="link is no regular file"):
            load_bundle(tmp_path / "link")
        (tmp_path / "link").unlink()


def test_files_that_are_too_large(contents, tmp_path):
    """A file, or a zip file, beyond its limit is refused before a byte of it is read."""
    path = write(contents, tmp_path / "owl")
    for name in FILES:
        limit = manifest.LIMITS[name]
        size = (path / name).stat().st_size
        os.truncate(path / name, limit + 1)
        with pytest.raises(CorruptError, match=rf"{name} has {limit + 1} bytes, the limit is {limit}"):
            load_bundle(path)
        os.truncate(path / name, size)
    assert load_bundle(path) == check(contents)
    (tmp_path / "owl.zip").touch()
    os.truncate(tmp_path / "owl.zip", 1 << 33)
    with pytest.raises(CorruptError, match=r"owl\.zip has 8589934592 bytes, the limit is "):
        load_bundle(tmp_path / "owl.zip")


# Bundles that are whole, and whose manifest vouches for all of it


@pytest.mark.parametrize(
    ("facts", "kind", "found"),
    [
        ({"format": 2}, RecordError, r"its format is 2 and this version of hydra-detect reads 1\. Upgrade"),
        ({"format": True}, CorruptError, "its format is True, none that there is"),
        ({"format": None}, CorruptError, "its format is None, none that there is"),
        ({"polices": {}}, RecordError, r"it has no key 'polices'\. Did you mean 'policy'\?"),
        ({"policy": None}, RecordError, "policy: missing"),
        ({"policy": [{"score_threshold": 0.4}]}, RecordError, "policy: .*expected an object"),
        ({"policy": {"score_threshold": 0.4}}, RecordError, r"another operating policy .* has exactly one\."),
        ({"head": "../owl"}, RecordError, r"use '\.\./owl' as a head name"),
        ({"backbone": "Demo"}, RecordError, "use 'Demo' as a backbone name"),
        ({"number": 0}, RecordError, "number"),
        ({"number": True}, RecordError, "number: .*expected int, found True"),
        ({"manifest": "sha256:12"}, RecordError, "manifest: "),
        ({"actor": "x" * 1001}, RecordError, "actor"),
        ({"created_at": 5}, RecordError, "created_at: .*expected str"),
        ({"files": []}, RecordError, "files: .*expected an object"),
        ({"files": {}}, CorruptError, r"that are there and not listed: backbone/model\.safetensors, "),
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_a_stranger(contents, facts, kind, found):
    """A manifest that is newer, or says what it may not, or another thing than the head, is refused by its field."""
    with pytest.raises(kind, match=found):
        check(forged(contents, **facts))


@pytest.mark.parametrize("name", sorted({*NAMES} - {MANIFEST}))
def test_a_listing_of_a_stranger(contents, name):
    """The size and the SHA-256 of each file are those that the manifest lists."""
    listing = sealed.unseal(contents[MANIFEST], "it")["files"]
    size, digest = listing[name]
    for entry, kind, found in (
        (
            [size, str(ZEROS)],
            CorruptError,
            rf"cannot read {name} of the bundle it: its SHA-256 is not the 000000000000",
        ),
        ([size + 1, digest], CorruptError, rf"it has {size} bytes and the manifest says {size + 1}"),
        ([size], RecordError, "files"),
        ([str(size), digest], RecordError, "files.*expected int"),
    ):
        with pytest.raises(kind, match=found):
            check(forged(contents, files=listing | {name: entry}))


@pytest.mark.parametrize(("name", "record"), [(HEAD_TENSORS, HEAD_RECORD), (BACKBONE_TENSORS, BACKBONE_RECORD)])
def test_weights_of_a_stranger(contents, name, record):
    """Weights that are not finite, no tensors, or others than the record names are refused, whatever else agrees."""
    bad = {"w": RawTensor.of(np.array([1, np.nan], dtype=np.float32))}
    digest = tensors_digest(bad)
    if record == HEAD_RECORD:
        other = evolved(contents, record, HeadRecord, tensors=digest)
    else:
        contract = attrs.evolve(codec.decode(BackboneRecord, contents[record], "it").contract, digest=digest)
        other = evolved(contents, record, BackboneRecord, contract=contract)
    with pytest.raises(CorruptError, match="NaN or infinity in 1 of 1 tensors: w"):
        check(forged(contents, {name: artifacts.encode_tensors(bad), record: other}))
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        check(forged(contents, {name: artifacts.encode_tensors(some_tensors(9))}))
    with pytest.raises(CorruptError, match="its header claims"):
        check(forged(contents, {name: b"\xff" * 64}))


@pytest.mark.parametrize(
    ("contract", "difference"),
    [(a_contract("7"), "digest is "), (attrs.evolve(a_contract(), levels=a_contract().levels[:1]), "levels")],
)
def test_another_backbone(contents, contract, difference):
    """A head that was made on other weights or settings than those of the backbone beside it is refused."""
    other = evolved(contents, HEAD_RECORD, HeadRecord, backbone=contract)
    with pytest.raises(IncompatibleError, match="its head was made for another backbone") as caught:
        check(forged(contents, {HEAD_RECORD: other}))
    assert len(caught.value.facts["differences"]) == 1
    assert caught.value.facts["differences"][0].startswith(difference)


def test_the_policy_is_that_of_the_head(contents):
    """A head whose record has another policy, or none, is refused beside the manifest's."""
    for policy in (None, OperatingPolicy(score_threshold=0.4)):
        with pytest.raises(
            RecordError, match=r"bundle\.json gives another operating policy than the record of its head"
        ):
            check(forged(contents, {HEAD_RECORD: evolved(contents, HEAD_RECORD, HeadRecord, operating_policy=policy)}))


@pytest.mark.parametrize("name", sorted({*NAMES} - {MANIFEST, HEAD_TENSORS, BACKBONE_TENSORS, manifest.OUTCOMES}))
def test_records_of_a_stranger(contents, name):
    """A record that is no JSON, of a newer schema, or larger than a record may be is refused, those beside too."""
    record, most = codec.loads(contents[name], "it"), manifest.LIMITS[name]
    for data, kind, found in (
        (b"owl", CorruptError, "it is no valid JSON"),
        (b'{"schema": 1, "schema": 1}', CorruptError, "a key stands twice"),
        (codec.dumps([record]), CorruptError, "it is no JSON object"),
        (codec.dumps(record | {"schema": 2}), RecordError, "it has schema 2 and this version .* reads up to 1"),
        (codec.dumps(record | {"notes": "x" * most}), CorruptError, f"more than the {most}"),
        (b"[" * 100_000, CorruptError, "it is no valid JSON"),
    ):
        with pytest.raises(kind, match=found):
            check(forged(contents, {name: data}))


def test_what_lies_beside_is_what_its_name_says(contents):
    """A split that is none, figures that are none and outcomes that do not belong together are refused."""
    for name in (layout.SPLIT, layout.EVALUATION, layout.CALIBRATION):
        with pytest.raises(RecordError, match=rf"cannot read {name} of the bundle it: .*missing"):
            check(forged(contents, {f"head/{name}": codec.dumps({"schema": 1})}))
    outcomes = artifacts.decode_tensors(contents[manifest.OUTCOMES], "it")
    scores = RawTensor.of(np.array([np.nan], dtype=np.float32))
    for tensors, found in (({"a": scores}, "missing or of another dtype"), (outcomes | {"scores": scores}, "NaN")):
        with pytest.raises(CorruptError, match=found):
            check(forged(contents, {manifest.OUTCOMES: artifacts.encode_tensors(tensors)}))


def test_kept_scores_are_of_the_heads_own_classes(contents):
    """A policy that is fitted to scores of other classes would be of no class of the head."""
    others = measure_fixtures.table([0.5], [True], names=("dog", "cat")).to_tensors()
    with pytest.raises(RecordError, match="of the classes cat, dog, and the head finds owl, red fox"):
        check(forged(contents, {manifest.OUTCOMES: artifacts.encode_tensors(others)}))


def test_fields_of_a_later_version_are_kept(contents):
    """A record with a field that this version does not know is read as everywhere, and nothing of it is lost."""
    later = evolved(contents, HEAD_RECORD, HeadRecord, unknown={"colour": "red"})
    assert check(forged(contents, {HEAD_RECORD: later})).record.unknown == {"colour": "red"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # which only reads it
@given(data=st.data())
def test_any_value_in_any_record(data, contents):
    """Whatever stands in a field of whatever record, the answer is a bundle or a refusal, and no other error."""
    name = data.draw(st.sampled_from(sorted({*NAMES} - {HEAD_TENSORS, BACKBONE_TENSORS, manifest.OUTCOMES})))
    document = codec.loads(contents[name], "it")
    key = data.draw(st.sampled_from(sorted(document)))
    value = data.draw(json_values | st.sampled_from([[], {}, [[]], [{}], {"": None}]))
    if name == MANIFEST:
        others = forged(contents, **{key: value})
    else:
        others = forged(contents, {name: codec.dumps(document | {key: value})})
    try:
        check(others)
    except HydraDetectError as error:
        assert type(error) in {CorruptError, RecordError, IncompatibleError}  # noqa: PT017  a bundle is an answer too
