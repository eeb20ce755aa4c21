"""The commands about a whole store: what a check finds and an exit code says, and what takes the disk."""

import json

import cli_fixtures
import pytest
import store_fixtures
from cli_fixtures import refused, said, told
from store_damage import newer_schema, version
from store_fixtures import create, dead_name, flip, leftovers, snapshot

from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import files, layout

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owl = cli_fixtures.owl

REPORT = ["verdict", "sound", "depth", "versions", "nbytes", "findings", "mended"]
FINDING = ["severity", "what", "path", "problem", "kind", "name", "number"]
USAGE = ["items", "staging", "quarantine", "others", "total"]
ITEM = ["kind", "name", "active", "versions", "history", "staging", "quarantine", "total"]


# Checking


def test_a_sound_store(owl, capsys):
    """A sound store has exit code 0 at each depth, with and without a repair, which changes nothing."""
    before = snapshot(owl.store.root)
    for depth in ([], ["--quick"], ["--full"]):
        report = told(capsys, "store", "verify", *depth)
        assert list(report) == REPORT
        facts = (report["verdict"], report["sound"], report["versions"], report["findings"], report["mended"])
        assert facts == ("sound", True, 10, [], [])
        assert report["depth"] == (depth[0].removeprefix("--") if depth else "full")
    assert said(capsys, "store", "verify", "--quick") == "sound: 10 versions, quick check\n"
    assert said(capsys, "store", "verify", "--repair").startswith("sound: 10 versions, full check, 0.0 MB hashed")
    assert snapshot(owl.store.root) == before


def test_damage_and_its_repair(owl, capsys):
    """Exit code 3 with damage, 1 when a repair mended it, then 0; quick does not read what full does."""
    flip(owl.store.root / version(5, layout.TENSORS))
    assert told(capsys, "store", "verify", "--quick")["findings"] == []
    report = told(capsys, "store", "verify", code=3)
    assert (report["verdict"], report["sound"]) == ("damaged", False)
    (finding,) = report["findings"]
    assert list(finding) == FINDING
    assert (finding["severity"], finding["what"], finding["kind"]) == ("damage", "version", "heads")
    assert (finding["name"], finding["number"], finding["path"]) == ("owl", 5, version(5, layout.TENSORS))
    assert said(capsys, "store", "verify", code=3).splitlines()[-1].startswith("damaged: 10 versions")
    text = said(capsys, "store", "verify", "--repair", code=1)
    assert f"mended: {version(5)} was moved to heads/owl/quarantine/" in text
    assert text.splitlines()[-1].startswith("sound: 9 versions")
    assert said(capsys, "store", "verify", "--repair").startswith("sound: 9 versions")
    assert owl.history("owl")[-1].actor == "ann"
    assert leftovers(owl.store) == []


def test_a_repair_as_json(owl, capsys):
    """For programs a repair says what it did, a sentence each, and that nothing is left."""
    flip(owl.store.root / version(5, layout.TENSORS))
    report = told(capsys, "store", "verify", "--repair", code=1)
    assert (report["verdict"], report["findings"]) == ("sound", [])
    assert "set aside as damaged: version 5" in report["mended"][0]
    assert len(report["mended"]) == 2


def test_what_is_harmless(owl, capsys):
    """What hurts no reader is told as a note with exit code 0, and cleared away by a repair."""
    owl.store.layout.staging.mkdir(exist_ok=True)
    (owl.store.layout.staging / dead_name()).write_bytes(b"x")
    report = told(capsys, "store", "verify")
    assert [(finding["what"], finding["severity"]) for finding in report["findings"]] == [("leftover", "note")]
    assert report["verdict"] == "sound"
    assert "mended: tmp/" in said(capsys, "store", "verify", "--repair", code=1)
    assert leftovers(owl.store) == []


@pytest.mark.parametrize("extra", [[], ["--repair"]], ids=["", "repair"])
def test_what_a_newer_version_wrote(owl, capsys, extra):
    """What this version cannot read is no damage and no soundness: exit code 2, and a repair leaves it as it is."""
    newer_schema(owl)
    before = snapshot(owl.store.root / "heads" / "owl" / "versions")
    report = told(capsys, "store", "verify", *extra, code=2)
    assert (report["verdict"], report["sound"], report["mended"]) == ("unclear", False, [])
    assert [(finding["what"], finding["severity"]) for finding in report["findings"]] == [("refused", "not read")]
    assert said(capsys, "store", "verify", *extra, code=2).splitlines()[-1].startswith("unclear: 11 versions")
    assert snapshot(owl.store.root / "heads" / "owl" / "versions") == before


@pytest.mark.parametrize("extra", [[], ["--repair"]], ids=["", "repair"])
def test_the_deepest_check(owl, capsys, extra):
    """The deepest check builds each network: these tensors are those of none, which no repair can mend."""
    before = snapshot(owl.store.root / "heads")
    report = told(capsys, "store", "verify", "--deep", *extra, code=3)
    assert {(item["what"], item["severity"]) for item in report["findings"]} == {("content", "unusable")}
    assert (len(report["findings"]), report["depth"], report["mended"]) == (10, "deep", [])
    assert "missing: body.bn1.bias" in report["findings"][0]["problem"]
    assert snapshot(owl.store.root / "heads") == before


def test_two_depths(owl, capsys):
    """Two depths at once are a mistake, and nothing is checked or repaired."""
    flip(owl.store.root / version(5, layout.TENSORS))
    before = snapshot(owl.store.root)
    assert "--quick and --deep were given" in refused(capsys, "store", "verify", "--quick", "--deep", "--repair")
    assert "--quick and --full and --deep" in refused(capsys, "store", "verify", "--quick", "--deep", "--full")
    assert snapshot(owl.store.root) == before


# Measuring


def test_usage(owl, capsys):
    """Every byte below backbones and heads is counted once, by item and version, in a table and for programs."""
    owl.prune("owl", keep=6)
    flip(owl.store.root / version(5, layout.TENSORS))
    owl.repair()
    usage = told(capsys, "store", "usage")
    assert usage == json.loads(json.dumps(HeadRegistry(owl.store).usage().to_dict()))
    assert list(usage) == USAGE
    assert [list(item) for item in usage["items"]] == [ITEM] * 3
    backbone, fox, measured = usage["items"]
    assert [(item["kind"], item["name"], item["active"]) for item in (backbone, fox, measured)] == [
        ("backbones", "demo", 1), ("heads", "fox", None), ("heads", "owl", 1),
    ]  # fmt: skip
    assert measured["versions"][0] == {"version": 1, "nbytes": files.nbytes(owl.store.root / version(1))}
    assert [item["version"] for item in measured["versions"]] == [1, 3, 4, 6, 7, 8]
    assert measured["quarantine"] == files.nbytes(owl.store.root / "heads/owl/quarantine") > 0
    assert usage["total"] == files.nbytes(owl.store.root)
    lines = said(capsys, "store", "usage").splitlines()
    assert lines[0].split() == ["name", "version", "size"]
    assert [line.split()[:4] for line in lines if "active" in line] == [
        ["backbone", "demo", "1", "active"], ["head", "owl", "1", "active"],
    ]  # fmt: skip
    assert ["quarantine" in line for line in lines].count(True) == 1
    assert lines[-1] == f"total{' ' * (lines[0].index('size') - 5)}{usage['total'] / 1e6:.2f} MB"


def test_usage_of_an_empty_store(store, capsys):
    """A store without anything takes what says that it is one."""
    size = files.nbytes(store.root)
    assert told(capsys, "store", "usage", "--store", str(store.root)) == {
        "items": [], "staging": 0, "quarantine": 0, "others": size, "total": size,
    }  # fmt: skip
    assert said(capsys, "store", "usage", "--store", str(store.root)).splitlines()[-1].split() == [
        "total",
        "0.00",
        "MB",
    ]


def test_what_is_being_written_counts(owl, capsys):
    """What a writer stages takes the disk too, and is told apart."""
    create(owl, "owl", 20)
    staged = owl.store.root / "heads/owl/tmp/something"
    staged.write_bytes(b"x" * 5000)
    (measured,) = [item for item in told(capsys, "store", "usage")["items"] if item["name"] == "owl"]
    assert measured["staging"] == 5000
    assert [line.split()[2:4] for line in said(capsys, "store", "usage").splitlines() if "written" in line] == [
        ["being", "written"]
    ]
