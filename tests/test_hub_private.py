"""What stays at home: folders, names of people, and tokens at other hosts; test_hub_canary looks for them here."""

import json

import attrs
import publishing_fixtures
import pytest
from hub_faults import Redirect
from publishing_fixtures import BAT, OWL

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import Split, SplitSample
from hydra_detect.errors import HubError
from hydra_detect.lifecycle import beside
from hydra_detect.names import Digest
from hydra_detect.storage import heads
from hydra_detect.versions import VersionManager

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


def test_what_stays_here(publisher, hub):
    """No folder of this machine is published, and of the notes not who made a bundle: all else of them is."""
    active = VersionManager(publisher.store).active("owl")
    notes = "from owl@4 of the bundle 0123, made 2026-11-29T00:00:00Z by lovelace@laptop; on 3 boards"
    record = attrs.evolve(active.record, notes=notes)
    manager = VersionManager(publisher.store)
    number = manager.create("owl", heads.tensors(publisher.store, active), record).number
    publisher.push(version=number)
    every = b"".join(hub.repos[OWL].content(path) for path in hub.repos[OWL].head.files)
    for private in (str(publisher.store.root.parent), "root@", "lovelace", "laptop"):
        assert private.encode() not in every
    kept = "from owl@4 of the bundle 0123; on 3 boards"
    assert publisher.text(OWL, "config.json")["record"]["notes"] == kept


def test_roles_are_published_without_names(publisher, hub):
    """Of the samples that a head learnt from the digests of pictures are published, and neither names nor groups."""
    ids = ("ada-1.png", "ada-2.png", "bob.png")
    groups = ("patient ada", "patient ada", "bob.png")
    samples = tuple(
        SplitSample(id=name, picture=Digest(f"{place}" * 64), digest=Digest("a" * 64), group=group, role=Role.TRAIN)
        for place, (name, group) in enumerate(zip(ids, groups, strict=True))
    )
    manager = VersionManager(publisher.store)
    active = manager.active("owl")
    split = Split(samples=samples, shares={Role.TRAIN: 1.0})
    record = attrs.evolve(active.record, notes="with roles")
    tensors = heads.tensors(publisher.store, active)
    number = manager.create("owl", tensors, record, attachments=beside.files(split=split)).number
    publisher.push(version=number)
    text = hub.repos[OWL].content("beside.json").decode()
    assert "ada" not in text
    assert "bob" not in text
    there = [(one["id"], one["group"]) for one in json.loads(text)["split"]["samples"]]
    assert [group for _name, group in there] == ["group-0", "group-0", there[2][0]]
    assert len({name for name, _group in there}) == 3


def test_no_token_at_another_host(puller, hub, canary):
    """Weights come from another host, which is never sent the token."""
    puller.pull(f"{BAT}@v1")
    assert hub.seen(host="cdn")
    assert hub.leaks(canary) == []
    every = [path.read_bytes() for path in puller.store.root.rglob("*") if path.is_file()]
    assert not [data for data in every if canary.encode() in data]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_sent_to_another_host(puller, hub, canary, file):
    """A Hub that sends a reader on to another host does not send the token on with him, and what comes is no head."""
    before = puller.contents()
    plan = hub.faults.on(Redirect(hub.stranger), None, f"/resolve/.*{file}$", host="hub", times=None)
    with pytest.raises(HubError):
        puller.pull()
    assert plan.fired
    assert hub.seen(host="stranger") or file == "model.safetensors"  # the client itself follows to no other host
    assert hub.leaks(canary) == []
    assert puller.contents() == before
