"""A store with something to publish, and what came of it on the test Hub."""

import functools
import json
import tempfile
from pathlib import Path

import lifecycle_fixtures
import pytest
from engine_fixtures import compact, copied
from hub_fixtures import files_with

from hydra_detect import HeadRegistry, Store
from hydra_detect.hub import client
from hydra_detect.hub.pull import pull
from hydra_detect.hub.push import push, push_backbone

BACKBONE, OWL, BAT = "org/backbone", "org/hydra-owl", "org/hydra-bat"


@functools.cache
def _made():
    """Return a store with a tiny backbone, full heads `owl` and `fox`, and a compact `bat`; nobody may write to it."""
    store = lifecycle_fixtures.with_backbone(Path(tempfile.mkdtemp()))
    for seed, name in enumerate(("owl", "fox")):
        lifecycle_fixtures.give(store, name, seed=seed, classes=("owl",))
    compact(store, "bat", rank="4", seed=2)
    return store


class Publisher:
    """Somebody with a store of two full heads and a compact one, logged in on the test Hub."""

    def __init__(self, hub, folder):
        folder.mkdir()
        self.hub, self.store = hub, copied(_made(), folder)

    def push(self, head="owl", repo=OWL, **options):
        """Push a head."""
        return push(self.store, head, repo, endpoint=self.hub.endpoint, **options)

    def push_backbone(self, repo=BACKBONE, **options):
        """Push the one backbone."""
        (name,) = HeadRegistry(self.store).backbones()
        return push_backbone(self.store, name, repo, endpoint=self.hub.endpoint, **options)

    def text(self, repo, path, revision="main"):
        """Return a document as it is on the Hub."""
        return json.loads(self.hub.repos[repo].content(path, revision))


class Puller:
    """Somebody with an empty store."""

    def __init__(self, hub, folder):
        self.hub, self.store = hub, Store.create(folder, durability="fast")

    def pull(self, ref=f"{OWL}@v1", **options):
        """Pull a head."""
        return pull(ref, self.store, endpoint=self.hub.endpoint, **options)

    def contents(self):
        """Return every file of the store but locks and what is only remembered, with its bytes."""
        root = self.store.root
        files = [
            path
            for path in root.rglob("*")
            if path.is_file() and path.relative_to(root).parts[0] not in {"locks", "hub"}
        ]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def publisher(hub, tmp_path, monkeypatch):
    """Return somebody who has published a backbone, and nothing is waited for."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(client, "PAUSES", (0, 0, 0, 0))
    made = Publisher(hub, tmp_path / "publisher")
    made.push_backbone()
    yield made
    assert hub.leaks(hub.token) == []
    assert files_with(tmp_path, hub.token) == []


@pytest.fixture
def puller(publisher, tmp_path):
    """Return somebody else, who may only read, on a Hub with two heads."""
    publisher.push()
    publisher.push("bat", BAT)
    return Puller(publisher.hub, tmp_path / "puller")


def commits(hub, repo):
    """Return the titles of the commits of a repository, oldest first, without its first one."""
    return [one.title for one in reversed(hub.repos[repo].history("main"))][1:]


def by_default(hub, monkeypatch):
    """Make a Hub the one that is asked where none is named, as HF_ENDPOINT does before Python starts."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
