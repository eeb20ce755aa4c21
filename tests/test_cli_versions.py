"""The commands about versions of a head, as people and programs run them."""

import json

import cli_fixtures
import pytest
import store_fixtures
from cli_fixtures import refused, said, told
from store_fixtures import create, flip, snapshot

from hydra_detect.cli.commands import run
from hydra_detect.registry import HeadRegistry
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owl = cli_fixtures.owl


def digest(manager, number):
    """Return the digest of a version of `owl` as programs read it."""
    return str(manager.store.head("owl").manifest(number).digest)


# Which is active


def test_promote_and_rollback(owl, capsys):
    """Both name the version that is active now and the one before; the reason and who it was go into the history."""
    size = "0.00 MB"
    text = said(capsys, "promote", "owl", "3", "--reason", "better")
    assert text == f"owl@3 (owl, red fox; {size}) is active; before it, owl@1 was\n"
    text = said(capsys, "promote", "owl", "3")
    assert text == f"owl@3 (owl, red fox; {size}) was active already; nothing was changed\n"
    facts = {"head": "owl", "version": 2, "digest": digest(owl, 2), "changed": True, "was_active": 3}
    facts |= {"active": 2, "previous": 3}
    assert told(capsys, "promote", "owl", "2") == facts
    assert told(capsys, "promote", "owl", "2") == {**facts, "changed": False, "was_active": 2}
    facts = {"head": "owl", "version": 3, "digest": digest(owl, 3), "changed": True, "was_active": 2}
    assert told(capsys, "rollback", "owl") == {**facts, "active": 3, "previous": 1}
    text = said(capsys, "rollback", "owl", "--reason", "worse")
    assert text == f"owl@1 (owl, red fox; {size}) is active; before it, owl@3 was\n"
    events = [event for event in owl.history("owl") if event.what != "created"]
    assert [(event.what, event.active, event.reason) for event in events] == [
        ("promoted", 1, ""), ("promoted", 3, "better"), ("promoted", 2, ""), ("rolled back", 3, ""),
        ("rolled back", 1, "worse"),
    ]  # fmt: skip
    assert {event.actor for event in events[1:]} == {"ann"}


@pytest.mark.parametrize("command", [["promote", "owl", "2"], ["rollback", "owl"]], ids=["promote", "rollback"])
def test_somebody_follows_at_once(owl, capsys, monkeypatch, command):
    """Where another version is active by the time it is told, that is told: nothing is called active that is not."""
    owl.promote("owl", 2)
    owl.promote("owl", 3)
    act, promote = getattr(VersionManager, command[0]), VersionManager.promote

    def overtaken(self, *arguments, **options):
        found = act(self, *arguments, **options)
        promote(self, "owl", 7)
        return found

    monkeypatch.setattr(VersionManager, command[0], overtaken)
    assert said(capsys, *command) == "owl@2 (owl, red fox; 0.00 MB) was made active, and by now owl@7 is\n"
    promote(owl, "owl", 2)
    promote(owl, "owl", 3)
    facts = {"head": "owl", "version": 2, "digest": digest(owl, 2), "changed": True, "was_active": 3}
    assert told(capsys, *command) == {**facts, "active": 7, "previous": 2}


def test_rollback_with_nothing_before(owl, capsys):
    """There is nothing to go back to: exit code 2, a sentence, and no change."""
    before = snapshot(owl.store.root / "heads")
    assert "no version is known that was active before version 1" in refused(capsys, "rollback", "owl")
    assert snapshot(owl.store.root / "heads") == before


def test_a_damaged_version_is_not_made_active(owl, capsys):
    """A version with a flipped bit is refused with exit code 3; a rollback to it says what else there is to do."""
    for number in ("2", "3", "4"):
        said(capsys, "promote", "owl", number)
    flip(owl.store.root / "heads/owl/versions/000003/model.safetensors")
    assert "read model.safetensors of owl@3: its SHA-256" in refused(capsys, "promote", "owl", "3", code=3)
    assert "'hydra-detect promote owl 2' goes further back" in refused(capsys, "rollback", "owl", code=3)
    assert owl.active("owl").number == 4


# Looking


@pytest.mark.usefixtures("owl")
def test_versions(capsys):
    """One line for each version, with what it is to the head; for programs the same, and what it is pinned for."""
    said(capsys, "promote", "owl", "3")
    for reason in ("paper", ""):
        said(capsys, "pin", "owl", "2", "--reason", reason)
    said(capsys, "pin", "owl", "3")
    status = told(capsys, "versions", "owl")
    assert (status["head"], status["active"], status["previous"], status["problem"]) == ("owl", 3, 1, "")
    facts = {item["version"]: item for item in status["versions"]}
    assert list(facts) == list(range(1, 9))
    marks = {(number, mark) for number in facts for mark in ("active", "previous") if facts[number][mark]}
    assert marks == {(3, "active"), (1, "previous")}
    assert {number: facts[number]["pinned_for"] for number in (1, 2, 3)} == {1: [], 2: ["paper", ""], 3: [""]}
    lines = said(capsys, "versions", "owl").splitlines()
    assert len(lines) == 9
    assert [line[9:24].split() for line in lines[1:5]] == [["previous"], ["pinned"], ["active", "pinned"], []]


def test_versions_of_which_one_is_damaged(owl, capsys):
    """A damaged version hides no other: it is listed with its problem, and the exit code is 1."""
    flip(owl.store.root / "heads/owl/versions/000003/record.json")
    status = told(capsys, "versions", "owl", code=1)
    assert [item["version"] for item in status["versions"] if item["problem"]] == [3]
    assert status["versions"][2]["digest"] is None
    lines = said(capsys, "versions", "owl", code=1).splitlines()
    assert ["cannot be read: its SHA-256" in line for line in lines] == [False] * 3 + [True] + [False] * 5


def test_versions_of_a_head_whose_state_is_damaged(owl, capsys):
    """Where it cannot be read which version is active that is said, in exit code 1 too, and all are listed."""
    flip(owl.store.root / "heads/owl/pointer/00000001.json", place=20)
    status = told(capsys, "versions", "owl", code=1)
    assert {(item["active"], item["previous"]) for item in status["versions"]} == {(None, None)}
    assert (status["active"], len(status["versions"])) == (None, 8)
    last = said(capsys, "versions", "owl", code=1).splitlines()[-1]
    assert last == f"which is active cannot be read: {status['problem']}"


def test_history(owl, capsys):
    """Each event is a line for people and an object for programs; with a damaged generation the exit code is 1."""
    said(capsys, "promote", "owl", "3", "--reason", "better")
    assert told(capsys, "history", "owl") == [event.to_dict() for event in owl.history("owl")]
    lines = said(capsys, "history", "owl").splitlines()
    assert lines == [str(event) for event in owl.history("owl")]
    assert lines[-1].endswith(" by ann: better  [active: 3]")
    flip(owl.store.root / "heads/owl/pointer/00000002.json", place=20)
    assert "\n(time unknown)  damaged owl: " in said(capsys, "history", "owl", code=1)
    assert [event["what"] for event in told(capsys, "history", "owl", code=1)].count("damaged") == 1
    HeadRegistry(owl.store).remove("fox", reason="gone")
    assert "removed fox@1" in said(capsys, "history", "fox")
    assert "no such head" in refused(capsys, "history", "zebra")


def test_compare(owl, capsys):
    """The layers that differ are named; for programs it is what the library returns."""
    assert "box.weight: largest difference 3" in said(capsys, "compare", "owl", "1", "3")
    facts = json.loads(json.dumps(owl.compare("owl", 1, 3).to_dict()))
    assert told(capsys, "compare", "owl", "1", "3") == facts
    assert "'owl' has no version 9" in refused(capsys, "compare", "owl", "1", "9")


# Pinning


def test_pins(owl, capsys):
    """Pinning and letting go say so; of several reasons to be pinned for, one is let go of by its name."""
    assert said(capsys, "pin", "owl", "2", "--reason", "paper") == "owl@2 is pinned\n"
    assert told(capsys, "pin", "owl", "2", "--reason", "audit") == {"head": "owl", "version": 2, "pinned_for": "audit"}
    assert told(capsys, "pin", "owl", "2") == {"head": "owl", "version": 2, "pinned_for": ""}
    assert "Say which with pinned_for (--pinned-for)." in refused(capsys, "unpin", "owl", "2")
    assert "but for: '', 'audit', 'paper'" in refused(capsys, "unpin", "owl", "2", "--pinned-for", "papers")
    assert said(capsys, "unpin", "owl", "2", "--pinned-for", "paper") == "owl@2 is still pinned (2)\n"
    facts = {"head": "owl", "version": 2, "still_pinned_for": ["audit"]}
    assert told(capsys, "unpin", "owl", "2", "--pinned-for", "") == facts
    assert said(capsys, "unpin", "owl", "2", "--reason", "printed") == "owl@2 is not pinned\n"
    assert told(capsys, "unpin", "owl", "2") == {"head": "owl", "version": 2, "still_pinned_for": []}
    assert [event.reason for event in owl.history("owl") if event.what == "unpinned"] == ["", "", "printed"]


# Pruning


def test_prune_says_first_and_does_later(owl, capsys):
    """A dry run names what would go and changes nothing; the pruning does exactly that."""
    said(capsys, "pin", "owl", "2")
    before = snapshot(owl.store.root)
    (planned,) = told(capsys, "prune", "owl", "--keep", "3", "--dry-run")
    assert list(planned) == ["head", "dry_run", "removed", "kept", "waiting", "nbytes"]
    assert [item["version"] for item in planned["removed"]] == [3, 4, 5]
    assert "would remove owl@3" in said(capsys, "prune", "--all", "--keep", "3", "--dry-run")
    assert snapshot(owl.store.root) == before
    (done,) = told(capsys, "prune", "owl", "--keep", "3", "--reason", "space")
    assert done == {**planned, "dry_run": False}
    assert owl.history("owl")[-1].reason == "space"
    assert owl.store.head("owl").numbers() == [1, 2, 6, 7, 8]
    said(capsys, "unpin", "owl", "2")
    assert "removed owl@2" in said(capsys, "prune", "--all", "--keep", "3")
    assert [report["removed"] for report in told(capsys, "prune", "--all", "--keep", "3")] == [[], []]


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "owl", "--all"], ["prune", "", "--keep", "1"]])
def test_prune_what(owl, capsys, arguments):
    """Nothing is pruned unless it is said what."""
    assert "cannot prune: " in refused(capsys, *arguments)
    assert len(owl.store.head("owl").numbers()) == 8


def test_one_head_that_cannot_be_pruned_holds_up_no_other(capsys, owl):
    """What was pruned is said, what could not be is complained of, with an exit code that says what."""
    for head in ("ant", "zebra"):
        for seed in (20, 21):
            create(owl, head, seed)
    flip(owl.store.root / "heads/owl/versions/000002/MANIFEST.json", place=20)
    assert run(["prune", "--all", "--keep", "1"]) == 3
    captured = capsys.readouterr()
    assert "removed ant@1" in captured.out
    assert "removed zebra@1" in captured.out
    assert "owl@2" in captured.err
    assert run(["prune", "--all", "--keep", "1", "--json"]) == 3
    assert [report["head"] for report in json.loads(capsys.readouterr().out)] == ["ant", "fox", "zebra"]


@pytest.mark.usefixtures("owl")
def test_a_head_that_cannot_be_pruned_as_json(capsys):
    """With --json what could not be pruned is told as JSON too, and as all that is told."""
    assert run(["prune", "zebra", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert list(json.loads(captured.err)) == cli_fixtures.ERROR


# Renaming and removing


def test_rename(owl, capsys):
    """A renamed head is found under its new name, with the reason in its history; for programs both names are told."""
    assert said(capsys, "rename", "owl", "strix", "--reason", "taxonomy") == "owl is now strix\n"
    assert list(HeadRegistry(owl.store)) == ["fox", "strix"]
    assert owl.history("strix")[-1].reason == "taxonomy"
    assert told(capsys, "rename", "strix", "tyto") == {"head": "tyto", "was": "strix"}
    assert "it was renamed to 'strix' by ann at" in refused(capsys, "versions", "owl")


def test_remove_needs_a_yes(owl, capsys):
    """Without --yes nothing is removed, and that is an error that says what would go; --dry-run only looks."""
    which = "owl (8 versions: 1, 2, 3, 4, 5, 6, 7, 8)"
    before = snapshot(owl.store.root)
    for arguments in (["remove", "owl"], ["remove", "owl", "--reason", "obsolete"]):
        error = (
            f"hydra-detect: cannot remove 'owl': it would delete {which} for ever. Give --yes; --dry-run only looks.\n"
        )
        assert refused(capsys, *arguments) == error
    assert list(json.loads(refused(capsys, "remove", "owl", "--json"))) == cli_fixtures.ERROR
    for extra in ([], ["--yes"]):
        assert said(capsys, "remove", "owl", "--dry-run", *extra) == f"would remove {which}\n"
    facts = {"head": "owl", "versions": list(range(1, 9)), "dry_run": True}
    assert told(capsys, "remove", "owl", "--dry-run") == facts
    assert snapshot(owl.store.root) == before
    assert told(capsys, "remove", "owl", "--yes", "--reason", "obsolete") == {**facts, "dry_run": False}
    assert owl.history("owl")[-1].reason == "obsolete"
    assert said(capsys, "remove", "fox", "--yes") == "removed fox (1 version: 1)\n"
    assert list(HeadRegistry(owl.store)) == []
    assert "it was removed by ann at" in refused(capsys, "versions", "owl")


@pytest.mark.parametrize("extra", [[], ["--yes"], ["--dry-run"]])
def test_pinned_heads_are_not_removed(owl, capsys, extra):
    """A head with a pinned version is not removed, with or without --yes, and the pin is named."""
    said(capsys, "pin", "owl", "2", "--reason", "paper")
    assert "2 (paper)" in refused(capsys, "remove", "owl", *extra)
    assert len(owl.store.head("owl").numbers()) == 8


def test_heads_shows_what_cannot_be_read(owl, capsys):
    """A damaged head hides no other: it is listed with its problem, and the exit code is 1."""
    flip(owl.store.root / "heads/owl/pointer/00000001.json", place=20)
    fox, broken = told(capsys, "heads", code=1)
    assert (fox["head"], fox["problem"], broken["head"], broken["active"]) == ("fox", "", "owl", None)
    text = said(capsys, "heads", code=1)
    assert f"cannot be read: {broken['problem']}" in text
    assert "fox" in text
