"""The commands that give a head away and take one in, as people and programs run them."""

import json
import subprocess
import sys

import lifecycle_fixtures
import pytest
from cli_fixtures import ERROR, STORE_VARIABLE, refused, said, told
from lifecycle_fixtures import give, lights, scene
from store_fixtures import snapshot

from hydra_detect import HydraDetector
from hydra_detect.lifecycle import beside
from hydra_detect.lifecycle.judging import evaluate
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store

taught = lifecycle_fixtures.taught
PICTURES = [scene(number, "lamp")[0] for number in range(900, 903)]


@pytest.fixture
def store(taught, monkeypatch):
    """Give a store with a trained `lamp`, named by the environment."""
    monkeypatch.setenv(STORE_VARIABLE, str(taught[0].root))
    return taught[0]


@pytest.fixture
def bundle(store, tmp_path, capsys):
    """Give the bundle of `lamp@1`."""
    said(capsys, "bundle", "lamp", str(tmp_path / "lamp.zip"))
    assert heads.names(store)
    return tmp_path / "lamp.zip"


@pytest.mark.parametrize("form", ["lamp.zip", "lamp"])
def test_there_and_back(store, tmp_path, capsys, form):
    """What goes into a bundle comes out of it: another store finds the same boxes, to the last bit."""
    path, other = tmp_path / form, tmp_path / "other"
    info = told(capsys, "bundle", "lamp@1", str(path))
    assert info["path"] == str(path)
    found = told(capsys, "unbundle", str(path), "--store", str(other))
    version = heads.find(Store.open(other), "lamp@1")
    assert found == {
        "head": "lamp", "version": 1, "backbone": "default", "manifest": str(version.manifest),
        "digest": info["digest"], "was": "lamp@1", "reference": None,
    }  # fmt: skip
    assert Store.open(other).head("lamp").pointer().active is None
    one, two = (HydraDetector.from_store(place, ["lamp@1"], device="cpu").predict(PICTURES) for place in (store, other))
    assert one == two
    assert sum(map(len, one)) >= 3


def test_for_people(store, bundle, tmp_path, capsys):
    """The text says what was written, and how what came in is made active."""
    other = ["--store", str(tmp_path / "other")]
    assert "lamp@1" in said(capsys, "bundle", "lamp", str(tmp_path / "again"))
    text = said(capsys, "unbundle", str(bundle), *other)
    assert text.startswith("lamp@1 (lamp; ")
    assert text.endswith(" is there; 'hydra-detect promote lamp 1' makes it the active one\n")
    assert said(capsys, "unbundle", str(bundle), *other) == text  # one of the same bundle is enough
    said(capsys, "promote", "lamp", "1", *other)
    assert heads.find(Store.open(tmp_path / "other"), "lamp").number == 1
    assert heads.find(store, "lamp").number == 1


def test_what_was_learnt_goes_along(store, bundle, tmp_path, capsys):
    """Policy, split and figures go with a bundle: elsewhere too nobody measures on what it was trained on."""
    other = Store.create(tmp_path / "other")
    said(capsys, "unbundle", str(bundle), "--store", str(other.root))
    here, there = heads.find(store, "lamp@1"), heads.find(other, "lamp@1")
    assert there.record.operating_policy == here.record.operating_policy
    assert beside.split_of(other, there) == beside.split_of(store, here)
    assert beside.evaluation_of(other, there) == beside.evaluation_of(store, here)
    test = beside.split_of(other, there).take(lights(), "test")
    assert evaluate(other, "lamp@1", test).micro == beside.evaluation_of(store, here).micro


def test_other_names_here(store, bundle, capsys):
    """A bundle goes in under another head's name, and finds its backbone by what it is."""
    found = told(capsys, "unbundle", str(bundle), "--head", "night-lamp")
    assert (found["head"], found["version"], found["backbone"], found["was"]) == ("night-lamp", 1, "default", "lamp@1")
    assert backbones.names(store) == ["default"]
    found = told(capsys, "unbundle", str(bundle))
    assert (found["head"], found["version"]) == ("lamp", 2)
    assert heads.find(store, "lamp").number == 1


def test_what_is_refused(store, bundle, tmp_path, capsys):
    """An unknown head, a path that is taken, a bundle that is none or damaged: a sentence, and nothing is changed."""
    before, new = snapshot(store.root / "heads"), str(tmp_path / "new")
    assert "Did you mean 'lamp'" in refused(capsys, "bundle", "lmap", str(tmp_path / "a.zip"))
    assert not (tmp_path / "a.zip").exists()
    assert str(bundle) in refused(capsys, "bundle", "lamp", str(bundle))
    assert "no such file or folder" in refused(capsys, "unbundle", str(tmp_path / "none.zip"), "--store", new)
    assert "as a head name" in refused(capsys, "unbundle", str(bundle), "--head", "../x", "--store", new)
    assert "as a backbone name" in refused(capsys, "unbundle", str(bundle), "--backbone", "Big", "--store", new)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    (line,) = refused(capsys, "unbundle", str(bundle), "--store", new, "--json", code=3).splitlines()
    assert list(json.loads(line)) == ERROR
    assert json.loads(line)["error"] == "CorruptError"
    assert not (tmp_path / "new").exists()
    assert snapshot(store.root / "heads") == before


def test_no_torch_is_loaded(store, bundle, tmp_path):
    """Neither command imports torch."""
    give(store, "owl", seed=4)
    code = (
        "import sys\nfrom hydra_detect.cli.commands import run\ncode = run(sys.argv[1:])\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else code)"
    )
    for arguments in (["bundle", "owl", str(tmp_path / "owl.zip")], ["unbundle", str(bundle), "--head", "again"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
