"""Zip files: of one form alone, which any program unpacks, and of which no byte can be another unseen."""

import struct
import warnings
import zipfile

import bundle_fixtures
import pytest
import store_fixtures
from bundle_fixtures import FILES, files_of
from hypothesis import given
from hypothesis import strategies as st
from store_fixtures import HOSTILE_NAMES

from hydra_detect.bundles import manifest, zips
from hydra_detect.bundles.bundle import load_bundle
from hydra_detect.errors import CorruptError

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owls, contents = bundle_fixtures.owls, bundle_fixtures.contents


@given(st.dictionaries(st.text(st.characters(codec="ascii"), min_size=1), st.binary(), max_size=4))
def test_zip_files_come_back(files_in):
    """What was packed is unpacked, and the same whatever order it came in."""
    data = zips.pack(files_in)
    assert zips.unpack(data, limits=dict.fromkeys(files_in, 1 << 20), asked="read it") == files_in
    assert zips.pack(dict(reversed(files_in.items()))) == data


def test_one_bit_of_any_byte(contents):
    """No bit of a zip file may be another, whatever it is for."""
    whole = zips.pack(contents)
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        with pytest.raises(CorruptError, match=r"cannot load it: .* Get it anew"):
            zips.unpack(damaged, limits=manifest.LIMITS, asked="load it")


def test_a_zip_file_that_is_cut_off(contents):
    """A zip file that ends too soon, wherever, is refused; so is one with a byte more before or behind it."""
    whole = zips.pack(contents)
    for data in (*(whole[:end] for end in range(len(whole))), whole + b"\0", b"\0" + whole, whole + whole):
        with pytest.raises(CorruptError, match="cannot load it"):
            zips.unpack(data, limits=manifest.LIMITS, asked="load it")


@given(st.binary() | st.binary().map(lambda data: b"PK\x03\x04" + data))
def test_any_bytes(data):
    """Whatever bytes a zip file is made of, the answer is a refusal that is one of ours."""
    with pytest.raises(CorruptError, match="cannot load it"):
        zips.unpack(data, limits=manifest.LIMITS, asked="load it")


# Of other programs, and of strangers


def zipped(path, contents, **options):
    """Write files with Python's own zip writer; options are those of `zipfile.ZipFile`."""
    with zipfile.ZipFile(path, "w", **options) as theirs, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that stands twice
        for name, data in contents:
            theirs.writestr(zipfile.ZipInfo(name), data, compress_type=options.get("compression"))
    return path


TRAVERSALS = ("../owl", "/etc/passwd", "C:\\owl", "head\\record.json", "head/../bundle.json", "./bundle.json", "head/")
TRAVERSALS += ("//bundle.json", "head//record.json", "HEAD/record.json", "Bundle.json", "bundle.json ", "bundle.json/")


@pytest.mark.parametrize(
    "name", [*TRAVERSALS, *(name for name in HOSTILE_NAMES if name not in {"", "\ud800"})], ids=ascii
)
def test_names_in_a_zip_file(contents, tmp_path, name):
    """A name that is none of a bundle's, wherever it would lead, is refused, and nothing is written anywhere."""
    path = zipped(tmp_path / "owl.zip", [(name, b"x"), *contents.items()])
    before = files_of(tmp_path)
    with pytest.raises(CorruptError, match=r"it holds what no bundle holds: ['\"]"):
        load_bundle(path)
    assert files_of(tmp_path) == before


def test_a_name_that_stands_twice(contents, tmp_path):
    """The same name twice is refused: which of the two counts is what programs disagree on."""
    for name in FILES:
        path = zipped(tmp_path / "owl.zip", [*contents.items(), (name, b"{}")])
        with pytest.raises(CorruptError, match=f"it holds {name} twice"):
            load_bundle(path)


def test_bombs(contents, tmp_path):
    """What is compressed is never inflated, and what claims more bytes than are there gets none."""
    names = [(name, b"\0" * (1 << 24)) for name in manifest.LIMITS]
    path = zipped(tmp_path / "owl.zip", names, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(CorruptError, match=r"is compressed, or packed by another program\. .* the folder be loaded\.$"):
        load_bundle(path)
    whole = zips.pack(contents)
    for size, found in (
        (1 << 30, r"1073741824 bytes, and \d+ are left"),
        ((1 << 30) + 1, "1073741825 bytes, the limit"),
    ):
        claimed = whole[:18] + struct.pack("<II", size, size) + whole[26:]
        with pytest.raises(CorruptError, match=found):
            zips.unpack(claimed, limits=manifest.LIMITS, asked="load it")
    million = b"PK\x03\x04" + zips._FACTS.pack(*zips._PLAIN, 0, 0, 0, 1, 0) + b"x"
    with pytest.raises(CorruptError, match="it holds what no bundle holds: 'x'"):
        zips.unpack(million * 100_000, limits=manifest.LIMITS, asked="load it")


@pytest.mark.parametrize(
    "entry",
    [
        {"date_time": (2025, 1, 1, 0, 0, 0)}, {"extra": b"\x99\x99\x00\x00"}, {"create_version": 45},
        {"external_attr": 0o120777 << 16}, {"create_system": 0}, {"comment": b"x"}, {"internal_attr": 1},
    ],
    ids=str,
)  # fmt: skip
def test_other_facts_of_a_zip_file(contents, tmp_path, entry):
    """A zip file that says anything but what `pack` says, such as that a file is a link, is refused."""
    ours = {"create_system": 3, "external_attr": 0o100644 << 16}

    def written(facts):
        with zipfile.ZipFile(tmp_path / "owl.zip", "w") as theirs:
            for name, data in sorted(contents.items()):
                info = zipfile.ZipInfo(name)
                for fact, value in facts.items():
                    setattr(info, fact, value)
                theirs.writestr(info, data)
        return tmp_path / "owl.zip"

    assert written(ours).read_bytes() == zips.pack(contents)
    with pytest.raises(CorruptError, match=r"packed by another|is damaged|not followed by just their directory"):
        load_bundle(written(ours | entry))


def test_a_directory_that_says_otherwise(contents):
    """The names and places in the directory are those of the files, and no other record follows."""
    whole = zips.pack(contents)
    end = whole.rindex(b"PK\x05\x06")
    place = whole.rindex(b"head/record.json")
    for other in (
        whole[:place] + b"head/recorD.json" + whole[place + 16 :],
        whole[:end] + b"PK\x06\x07" + bytes(16) + whole[end:],
        whole[:-2] + b"\x05\x00hello",
    ):
        with pytest.raises(CorruptError, match="not followed by just their directory"):
            zips.unpack(other, limits=manifest.LIMITS, asked="load it")
