"""The commands about versions and the store, as people and programs run them."""

import json
import subprocess
import sys
import time

import pytest
import store_fixtures
from store_fixtures import create, flip, leftovers, snapshot

from hydra_detect.cli.commands import run
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout
from hydra_detect.storage.owners import ACTOR_VARIABLE

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

MOST_SECONDS = 0.5


@pytest.fixture
def owl(filled, monkeypatch):
    """The manager of a store with `owl`, versions 1 to 8 of which 1 is active, named by the environment."""
    contract = filled.active("owl").record.backbone
    for seed in range(3, 9):
        create(filled, "owl", seed, backbone=contract)
    monkeypatch.setenv("HYDRA_DETECT_STORE", str(filled.store.root))
    monkeypatch.setenv(ACTOR_VARIABLE, "ann")
    return filled


def said(capsys, *arguments, code=0):
    """Run a command, see its exit code, return what it printed."""
    assert run(list(arguments)) == code
    return capsys.readouterr().out


def told(capsys, *arguments, code=0):
    """Run a command that prints JSON."""
    return json.loads(said(capsys, *arguments, "--json", code=code))


def test_promote_and_rollback(owl, capsys):
    """Both name the version that is active now and the one before; the reason and who it was go into the history."""
    assert "owl@3" in said(capsys, "promote", "owl", "3", "--reason", "better")
    assert "before it 1 was" in said(capsys, "promote", "owl", "3")
    assert told(capsys, "promote", "owl", "2")["active"] is True
    assert told(capsys, "rollback", "owl")["version"] == 3
    assert "owl@1" in said(capsys, "rollback", "owl")
    assert owl.active("owl").number == 1
    events = told(capsys, "history", "owl")
    changes = [(event["what"], event["active"]) for event in events if event["what"] != "created"]
    assert changes == [("promoted", 1), ("promoted", 3), ("promoted", 2), ("rolled back", 3), ("rolled back", 1)]
    assert [event["actor"] for event in events][-1] == "ann"
    assert "promoted owl@3" in said(capsys, "history", "owl")
    assert "by ann: better" in said(capsys, "history", "owl")


def test_rollback_with_nothing_before(owl, capsys):
    """There is nothing to go back to: exit code 2, a sentence, and no change."""
    before = snapshot(owl.store.root / "heads")
    assert run(["rollback", "owl"]) == 2
    assert "no version is known that was active before version 1" in capsys.readouterr().err
    assert snapshot(owl.store.root / "heads") == before


@pytest.mark.usefixtures("owl")
def test_versions(capsys):
    """One line for each version, with what it is to the head."""
    said(capsys, "promote", "owl", "3")
    said(capsys, "pin", "owl", "2", "--reason", "paper")
    facts = {item["version"]: item for item in told(capsys, "versions", "owl")}
    assert sorted(facts) == list(range(1, 9))
    marks = {(number, mark) for number in facts for mark in ("active", "previous", "pinned") if facts[number][mark]}
    assert marks == {(3, "active"), (1, "previous"), (2, "pinned")}
    lines = said(capsys, "versions", "owl").splitlines()
    assert len(lines) == 9
    assert [word for word in ("active", "previous", "pinned") if word in lines[3]] == ["active"]


def test_prune_says_first_and_does_later(owl, capsys):
    """A dry run names what would go and changes nothing; the pruning does exactly that."""
    said(capsys, "pin", "owl", "2")
    before = snapshot(owl.store.root / "heads")
    planned = told(capsys, "prune", "owl", "--keep", "3", "--dry-run")[0]
    assert [item["version"] for item in planned["removed"]] == [3, 4, 5]
    assert snapshot(owl.store.root / "heads") == before
    assert "would remove owl@3" in said(capsys, "prune", "--all", "--keep", "3", "--dry-run")
    done = told(capsys, "prune", "owl", "--keep", "3")[0]
    assert (done["removed"], done["dry_run"]) == (planned["removed"], False)
    assert owl.store.head("owl").numbers() == [1, 2, 6, 7, 8]
    said(capsys, "unpin", "owl", "2")
    assert "removed owl@2" in said(capsys, "prune", "--all", "--keep", "3")


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "owl", "--all"], ["prune", "owl", "--keep", "0"]])
def test_prune_what(owl, capsys, arguments):
    """Nothing is pruned unless it is said what."""
    assert run(arguments) == 2
    assert "cannot prune" in capsys.readouterr().err
    assert len(owl.store.head("owl").numbers()) == 8


def test_a_damaged_version_hides_no_other(capsys, owl):
    """It is listed with its problem and exit code 1; a rollback to it says what else there is to do."""
    for number in ("2", "3", "4"):
        said(capsys, "promote", "owl", number)
    flip(owl.store.root / "heads/owl/versions/000003/record.json")
    facts = {item["version"]: item for item in told(capsys, "versions", "owl", code=1)}
    assert [number for number in facts if "problem" in facts[number]] == [3]
    assert "cannot be read: its SHA-256" in said(capsys, "versions", "owl", code=1)
    assert run(["rollback", "owl"]) == 2
    assert "'hydra-detect promote owl 2' goes further back" in capsys.readouterr().err
    flip(owl.store.root / "heads/owl/pointer/00000002.json", place=20)
    assert "unreadable owl" in said(capsys, "history", "owl", code=1)


def test_one_head_that_cannot_be_pruned_holds_up_no_other(capsys, owl):
    """What was pruned is said, what could not be is complained of, and the exit code is 2."""
    create(owl, "ant", 20)
    create(owl, "ant", 21)
    create(owl, "zebra", 22)
    create(owl, "zebra", 23)
    flip(owl.store.root / "heads/owl/versions/000002/MANIFEST.json", place=20)
    assert run(["prune", "--all", "--keep", "1"]) == 2
    captured = capsys.readouterr()
    assert "removed ant@1" in captured.out
    assert "removed zebra@1" in captured.out
    assert "owl@2" in captured.err


@pytest.mark.usefixtures("owl")
def test_pins_as_json(capsys):
    """Pinning and letting go say so to programs too."""
    assert told(capsys, "pin", "owl", "2") == {"head": "owl", "version": 2, "pinned": True}
    assert told(capsys, "unpin", "owl", "2") == {"head": "owl", "version": 2, "pinned": False}


@pytest.mark.usefixtures("owl")
def test_compare(capsys):
    """The layers that differ are named."""
    assert "box.weight: largest difference 3" in said(capsys, "compare", "owl", "1", "3")
    assert told(capsys, "compare", "owl", "1", "3")["layers"]["box.weight"]["largest"] == 3


def test_rename_and_remove(owl, capsys):
    """A renamed head is found under its new name, a removed one in the history; a pinned one stays."""
    said(capsys, "pin", "owl", "2", "--reason", "paper")
    assert run(["remove", "owl", "--yes"]) == 2
    assert "2 (paper)" in capsys.readouterr().err
    said(capsys, "unpin", "owl", "2")
    assert said(capsys, "rename", "owl", "strix") == "owl is now strix\n"
    assert list(HeadRegistry(owl.store)) == ["fox", "strix"]
    assert "would remove strix@1, strix@2" in said(capsys, "remove", "strix")
    assert list(HeadRegistry(owl.store)) == ["fox", "strix"]
    assert told(capsys, "remove", "strix", "--yes", "--reason", "no longer heard")["removed"] is True
    assert "removed strix@1, strix@2" in said(capsys, "history", "strix")
    assert run(["versions", "strix"]) == 2


def test_store_verify(owl, capsys):
    """Exit code 0 if sound, 2 with damage, 1 after a repair, then 0; quick does not read what full does."""
    path = owl.store.root / "heads/owl/versions/000005/model.safetensors"
    assert told(capsys, "store", "verify")["sound"] is True
    flip(path)
    assert told(capsys, "store", "verify", "--quick")["findings"] == []
    found = told(capsys, "store", "verify", code=2)["findings"]
    assert [(item["name"], item["number"]) for item in found] == [("owl", 5)]
    assert "mended: heads/owl/versions/000005" in said(capsys, "store", "verify", "--repair", code=1)
    assert said(capsys, "store", "verify", "--repair").startswith("sound: 9 versions")
    assert run(["store", "verify", "--quick", "--deep"]) == 2
    assert "--quick and --deep were given" in capsys.readouterr().err
    assert leftovers(owl.store) == []


@pytest.mark.usefixtures("owl")
def test_store_verify_deep(capsys):
    """The deepest check builds each network: these are tensors of none."""
    found = told(capsys, "store", "verify", "--deep", code=2)["findings"]
    assert {item["what"] for item in found} == {"version"}
    assert "missing: body.bn1.bias" in found[0]["problem"]


def test_store_usage(owl, capsys):
    """The sum is that of the files."""
    usage = told(capsys, "store", "usage")
    folders = [*owl.store.root.glob("heads/*/versions/*/*"), *owl.store.root.glob("backbones/*/versions/*/*")]
    assert usage["total"] == sum(path.stat().st_size for path in folders)
    assert said(capsys, "store", "usage").splitlines()[-1].startswith("total")


def test_heads_shows_what_cannot_be_read(owl, capsys):
    """A damaged head hides no other: it is listed with its problem, and the exit code is 1."""
    flip(owl.store.root / "heads/owl/pointer/00000001.json", place=20)
    said(capsys, "heads", code=1)
    said(capsys, "heads", "--json", code=1)
    assert run(["heads"]) == 1
    text = capsys.readouterr().out
    assert "cannot be read: " in text
    assert "fox" in text


COMMANDS = (
    ["versions", "owl"],
    ["promote", "owl", "2"],
    ["rollback", "owl"],
    ["history", "owl"],
    ["compare", "owl", "1", "2"],
    ["pin", "owl", "2"],
    ["unpin", "owl", "2"],
    ["prune", "owl", "--dry-run"],
    ["store", "usage"],
    ["store", "verify", "--quick"],
    ["store", "verify"],
)


@pytest.mark.usefixtures("owl")
def test_no_command_loads_torch():
    """None of these imports torch, and each is done in a moment: asserted with five times its limit."""
    seconds = {}
    script = (
        "import sys; from hydra_detect.cli.commands import run; code = run(sys.argv[1:]); "
        "assert not {'torch', 'torchvision'} & set(sys.modules); sys.exit(code)"
    )
    for arguments in COMMANDS:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        seconds[tuple(arguments)] = time.perf_counter() - began
        assert done.returncode == 0, (arguments, done.stderr)
    assert max(seconds.values()) < 5 * MOST_SECONDS, seconds
