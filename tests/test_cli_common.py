"""What all commands about versions and the store have in common: the store, numbers, JSON, errors."""

import json
import shutil

import cli_fixtures
import pytest
import store_fixtures
from cli_fixtures import ERROR, STORE_VARIABLE, refused, said, told
from store_fixtures import snapshot

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owl = cli_fixtures.owl

VERSION = [
    "version", "active", "previous", "pinned_for", "created_at", "actor", "parent", "nbytes", "class_names",
    "sample_count", "claimed_metrics", "notes", "leans_on", "digest", "problem",
]  # fmt: skip
EVENT = [
    "at", "what", "head", "versions", "digests", "other", "active", "active_digest", "actor", "reason", "generation",
]  # fmt: skip
ACTIVE = ["head", "version", "digest", "changed", "was_active", "active", "previous"]
HEAD = [
    "head", "active", "versions", "class_names", "backbone", "backbone_digest", "nbytes", "created_at", "leans_on",
    "problem",
]  # fmt: skip

# Each command, and the keys of what it prints for programs: of the object, or of each object in the list.
COMMANDS = {
    "versions": (["versions", "owl"], ["head", "active", "previous", "versions", "problem"]),
    "promote": (["promote", "owl", "2"], ACTIVE),
    "rollback": (["rollback", "owl"], ACTIVE),
    "history": (["history", "owl"], EVENT),
    "compare": (
        ["compare", "owl", "1", "2"],
        ["head", "a", "b", "nbytes", "claimed_metrics", "changed", "layers"],
    ),
    "pin": (["pin", "owl", "2"], ["head", "version", "pinned_for"]),
    "unpin": (["unpin", "owl", "2"], ["head", "version", "still_pinned_for"]),
    "prune": (["prune", "owl"], ["head", "dry_run", "removed", "kept", "waiting", "nbytes"]),
    "rename": (["rename", "owl", "strix"], ["head", "was"]),
    "remove": (["remove", "owl", "--yes"], ["head", "versions", "dry_run"]),
    "heads": (["heads"], HEAD),
    "store verify": (
        ["store", "verify"],
        ["verdict", "sound", "depth", "versions", "nbytes", "findings", "mended"],
    ),
    "store usage": (["store", "usage"], ["items", "staging", "quarantine", "others", "total"]),
}
OF_A_HEAD = [name for name, (arguments, _keys) in COMMANDS.items() if "owl" in arguments]


@pytest.fixture
def ready(owl):
    """The manager of `owl` with something to roll back to."""
    owl.promote("owl", 3)
    return owl


# The store


@pytest.mark.parametrize("command", COMMANDS)
def test_where_the_store_is(ready, capsys, monkeypatch, tmp_path, command):
    """Each command takes the store from the environment and from --store, which counts for more, and says the same."""
    arguments, _keys = COMMANDS[command]
    copies = [shutil.copytree(ready.store.root, tmp_path / name) for name in ("one", "two")]
    before = snapshot(ready.store.root)
    monkeypatch.setenv(STORE_VARIABLE, str(copies[0]))
    one = said(capsys, *arguments)
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "nowhere"))
    assert said(capsys, *arguments, "--store", str(copies[1])) == one
    assert one
    assert snapshot(ready.store.root) == before
    assert "there is no such folder" in refused(capsys, *arguments)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", [None, ""])
def test_no_store_was_named(capsys, monkeypatch, command, value):
    """Where no store is named each command says how to name one; an empty name in the environment is none."""
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(STORE_VARIABLE, value)
    error = "hydra-detect: cannot find the store: none was named. Give --store DIR, or set HYDRA_DETECT_STORE.\n"
    assert refused(capsys, *COMMANDS[command][0]) == error


# For programs


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("command", COMMANDS)
def test_keys(capsys, command):
    """What a command prints for programs is one line of JSON under these keys, which is a promise."""
    arguments, keys = COMMANDS[command]
    found = told(capsys, *arguments)
    objects = found if isinstance(found, list) else [found]
    assert objects
    assert [list(item) for item in objects] == [keys] * len(objects)
    if command == "versions":
        assert [list(version) for version in found["versions"]] == [VERSION] * 8
    if command == "compare":
        assert {tuple(layer) for layer in found["layers"].values()} == {("shapes", "dtypes", "largest", "relative")}
    if command == "prune":
        assert [list(version) for version in found[0]["removed"]] == [["version", "nbytes"]]
        assert {tuple(version) for version in found[0]["kept"]} == {("version", "reason")}


# Errors


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("command", OF_A_HEAD)
def test_errors(capsys, command):
    """An error is a sentence for people and one line of JSON for programs, with exit code 2, and nothing is printed."""
    arguments = [{"owl": "zebra"}.get(word, word) for word in COMMANDS[command][0]]
    sentence = refused(capsys, *arguments)
    assert sentence.startswith("hydra-detect: cannot ")
    assert "'zebra'" in sentence
    assert sentence.endswith(" There are: fox, owl.\n")
    if command == "prune":  # see test_cli_versions
        return
    (line,) = refused(capsys, *arguments, "--json").splitlines()
    error = json.loads(line)
    assert (list(error), error["error"], error["facts"]) == (ERROR, "NotFoundError", {})
    assert f"hydra-detect: cannot {error['asked']}: {error['found']}. {error['remedy']}\n" == sentence


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_option(ready, capsys, command):
    """A mistyped option and a word too many are refused before anything is done."""
    arguments, before = COMMANDS[command][0], snapshot(ready.store.root)
    assert "Unknown option: --reeson" in refused(capsys, *arguments, "--reeson", "x")
    assert "--jsno" in refused(capsys, *arguments, "--jsno")
    assert "Unused Tokens: ['more']" in refused(capsys, *arguments, "more")
    assert snapshot(ready.store.root) == before


# Numbers

NO_NUMBERS = (
    "2.6", "2.0", "0x2", "0b1", "+2", "02", "1_0", "1e1", "", " 2", "2 ", "-1", "0", "-0", "two", "True", "None",
    "nan", "inf", "2,3", "\u0662", "\uff12", "\u00b2", "1" * 10, "1" * 5000,
)  # fmt: skip
WITH_NUMBERS = {
    "promote": "promote owl N", "compare, first": "compare owl N 1", "compare, second": "compare owl 1 N",
    "pin": "pin owl N", "unpin": "unpin owl N", "prune": "prune owl --keep N", "prune =": "prune owl --keep=N",
    "prune all": "prune --all --dry-run --keep N",
}  # fmt: skip


@pytest.mark.parametrize("command", WITH_NUMBERS)
def test_what_is_no_whole_number(ready, capsys, command):
    """Each number is a whole number from 1, as people write it: nothing is rounded, guessed or read in another way."""
    before = snapshot(ready.store.root)
    for text in NO_NUMBERS:
        arguments = [word.replace("N", text) for word in WITH_NUMBERS[command].split()]
        for extra in ([], ["--json"]):
            error = refused(capsys, *arguments, *extra)
            assert not extra or list(json.loads(error)) == ERROR
            assert "is no whole number" in error, (text, error)
            assert "--keep" in error or "prune" not in command
    assert snapshot(ready.store.root) == before


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("command", WITH_NUMBERS)
def test_whole_numbers(capsys, command):
    """A whole number does, the largest too, which is that of no version."""
    for text in ("2", "999999999"):
        arguments = [word.replace("N", text) for word in WITH_NUMBERS[command].split()]
        if text == "2" or "prune" in command:
            assert said(capsys, *arguments)
        else:
            assert "'owl' has no version 999999999" in refused(capsys, *arguments)
