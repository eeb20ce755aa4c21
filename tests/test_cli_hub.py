"""The Hub on the command line: push, pull, search and what is in production, in words and as JSON."""

import json
import shutil

import publishing_fixtures
import pytest
from engine_fixtures import copied, every_photograph
from originals import small
from publishing_fixtures import BACKBONE, OWL
from safetensors.torch import save_file
from test_cli import OPTIONS
from test_hub_push import again
from test_hub_signing import key_pair

from hydra_detect import HeadRegistry
from hydra_detect.cli.commands import run
from hydra_detect.hub.signing import KEYS_VARIABLE
from hydra_detect.training.original import OriginalSettings, design

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


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            ["push", "default", BACKBONE, "--backbone", "--example", "a.jpg"],
            "Leave out --version, --needs and --example",
        ),
        (["push", "default", BACKBONE, "--backbone", "--version", "1"], "Leave out --version"),
        (["push", "default", BACKBONE, "--backbone", "--needs", OWL], "Leave out --version"),
        (["push", "owl", OWL, "--picture", "a.png", "--example", "a.jpg"], "Give --picture or --example, not both"),
        (["pull", BACKBONE, "--backbone", "--allow-older"], "Leave out --allow-older"),
    ],
    ids=lambda words: words[-2] if isinstance(words, list) else "",
)
def test_what_would_be_ignored(publisher, say, words, remedy):
    """An option that means nothing beside another one is an error, not passed over."""
    assert remedy in say(*words, "--store", str(publisher.store.root), code=2)


def test_what_is_in_production(publisher, say):
    """Promotion and rollback on the Hub say what is in production then; a pack lists its heads."""
    publisher.push()
    assert say("hub", "promote", f"{OWL}@v1") == "release v1 is in production\n"
    assert "nothing was in production before" in say("hub", "rollback", OWL, code=2)
    publisher.push("owl", "org/pack/owl")
    again(publisher)
    publisher.push()
    assert say("hub", "promote", f"{OWL}@v2") == "release v2 is in production\n"
    assert json.loads(say("hub", "rollback", OWL, "--json")) == {"production": 1}
    assert publisher.text(OWL, "channels.json")["production"] == 1
    assert say("hub", "heads", "org/pack").splitlines()[1].split()[:2] == ["owl", "v1"]
    assert json.loads(say("hub", "heads", "org/pack", "--json"))["owl"]["release"] == 1


def test_what_it_needs_can_be_said(publisher, say, hub, tmp_path):
    """Whose store knows of no Hub says where the backbone lies; where it is not that one, that is an error."""
    store = copied(publisher.store, tmp_path)
    shutil.rmtree(store.root / "hub")
    said = ("push", "owl", "org/mine", "--store", str(store.root))
    assert "it is not known where on" in say(*said, code=2)
    publisher.push()
    assert "it is not known where on" in say(*said, "--needs", OWL, code=2)
    assert "org/mine" not in hub.repos
    assert say(*said, "--needs", BACKBONE).startswith("org/mine@v1 is at ")


def test_older_and_signed(publisher, say, tmp_path, monkeypatch):
    """A release is signed with --sign-with; an older one of a namespace that is held to a key needs --allow-older."""
    store, other, keys = str(publisher.store.root), str(tmp_path / "other"), tmp_path / "keys"
    keys.mkdir()
    private, _public = key_pair(keys, "org")
    signed = ("--store", store, "--sign-with", str(private))
    say("push", "default", "org/signed-backbone", "--backbone", *signed)
    for _ in range(2):
        say("push", "owl", "org/signed", "--needs", "org/signed-backbone", *signed)
        again(publisher)
    monkeypatch.setenv(KEYS_VARIABLE, str(keys))
    assert "it is not signed" in say("pull", BACKBONE, "--backbone", "--store", other, code=2)
    pulled = ("pull", "org/signed@v1", "--store", other)
    assert "org/signed@v2 is owl@1 here" in say("pull", "org/signed@v2", "--store", other)
    assert "pull it with allow_older=True (--allow-older)" in say(*pulled, code=2)
    assert "org/signed@v1 is owl@2 here" in say(*pulled, "--allow-older")


def test_an_original_of_another_hub(hub, say, tmp_path):
    """An original is split straight from the Hub that is named, proven against it, and begun from."""
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    hub.repo("org/original", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    address = "hf://org/original/model.safetensors"
    told = say("split", address, "--head", "owl", "--store", str(tmp_path / "store"), *OPTIONS)
    assert told.startswith("owl@1: ")
    assert HeadRegistry(tmp_path / "store")["owl"].record.source.file.startswith("hf://org/original/model.safetensors@")
    assert "owl@1: proven against hf://" in say("verify", "--store", str(tmp_path / "store"), "--against", address)
    plan = design(OriginalSettings(weights=address), classes=2, least_score=0.01, endpoint=hub.endpoint)
    assert plan.tensors


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
