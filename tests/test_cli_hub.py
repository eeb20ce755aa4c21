"""The Hub on the command line: push, pull, search and what is in production, in words and as JSON."""

import json

import publishing_fixtures
import pytest
from engine_fixtures import every_photograph
from publishing_fixtures import BACKBONE, OWL

from hydra_detect import HeadRegistry
from hydra_detect.cli.commands import run

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


@pytest.fixture
def say(hub, capsys):
    """Return what runs a command on the test Hub and returns what it printed, with its exit code."""

    def command(*arguments, code=0):
        capsys.readouterr()
        assert run([*arguments, "--endpoint", hub.endpoint]) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return command


def test_there_and_back(publisher, say, tmp_path):
    """Push, search, pull: each says what it did, and what to do next."""
    store, other = str(publisher.store.root), str(tmp_path / "other")
    photograph = str(every_photograph()[0])
    told = say("push", "owl", OWL, "--store", store, "--license", "mit", "--example", photograph)
    assert publisher.hub.repos[OWL].content("picture.png").startswith(b"\x89PNG")
    assert told.startswith(f"{OWL}@v1 is at ")
    again = json.loads(say("push", "owl", OWL, "--store", store, "--json"))
    assert (again["ref"], again["is_new"]) == (f"{OWL}@v1", False)
    assert OWL in say("search", "--backbone", BACKBONE)
    assert [one["repo"] for one in json.loads(say("search", "owl", "--json"))] == [OWL]
    assert say("search", "nothing") == "There are none.\n"
    told = say("pull", f"{OWL}@v1", "--store", other, "--name", "uhu")
    assert told == f"{OWL}@v1 is uhu@1 here; 'hydra-detect promote' makes it active\n"
    assert json.loads(say("pull", OWL, "--store", other, "--name", "uhu", "--json")) == {"head": "uhu", "version": 1}
    assert list(HeadRegistry(other)) == ["uhu"]


def test_backbones(publisher, say, tmp_path):
    """Backbones go and come with --backbone."""
    store, other = str(publisher.store.root), str(tmp_path / "other")
    assert "there already" in say("push", "default", BACKBONE, "--backbone", "--store", store)
    assert say("pull", BACKBONE, "--backbone", "--store", other) == f"{BACKBONE} is backbone 'default' here\n"
    assert json.loads(say("pull", BACKBONE, "--backbone", "--store", other, "--json")) == {"backbone": "default"}


def test_what_is_in_production(publisher, say):
    """Promotion and rollback on the Hub say what is in production then; a pack lists its heads."""
    publisher.push()
    assert say("hub", "promote", f"{OWL}@v1") == "release v1 is in production\n"
    assert "nothing was in production before" in say("hub", "rollback", OWL, code=2)
    publisher.push("owl", "org/pack/owl")
    assert say("hub", "heads", "org/pack").splitlines()[1].split()[:2] == ["owl", "v1"]
    assert json.loads(say("hub", "heads", "org/pack", "--json"))["owl"]["release"] == 1


def test_errors_are_one_sentence(publisher, say, tmp_path):
    """An error is one line with what to do, in exit code 2; a picture that is none is refused before anything."""
    store = str(publisher.store.root)
    (line,) = say("pull", "org/none@v1", "--store", str(tmp_path / "other"), code=2).splitlines()
    assert "no such repository" in line
    (tmp_path / "x.png").write_bytes(b"GIF")
    (line,) = say("push", "owl", OWL, "--store", store, "--picture", str(tmp_path / "x.png"), code=2).splitlines()
    assert "it is no PNG file" in line
    (line,) = say("push", "nobody", OWL, "--store", store, code=2).splitlines()
    assert "no such head" in line
    assert OWL not in publisher.hub.repos


def test_no_option_takes_a_token(say):
    """There is no option for a token: it would stand in the list of processes and in the shell's history."""
    assert "--token" in say("push", "owl", OWL, "--token", "x", code=2)
