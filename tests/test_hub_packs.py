"""Packs of heads, and detectors published as a whole: what their index and card tell, and in which order they go."""

import json

import lifecycle_fixtures
import publishing_fixtures
import pytest
import yaml
from engine_fixtures import compact
from publishing_fixtures import BACKBONE, commits
from test_hub_push import again

from hydra_detect import About, HeadRegistry, HydraDetector
from hydra_detect.errors import StoreError
from hydra_detect.hub import cards, client
from hydra_detect.hub.searching import list_pack, search
from hydra_detect.storage.store import Store

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
PACK, WHOLE = "org/pack", "org/whole"


def whole(publisher, *heads, **options):
    """Publish a detector with these heads as one repository; return what was pushed, as it can be pulled."""
    detector = HydraDetector.from_store(publisher.store, list(heads), device="cpu")
    return [str(one.ref) for one in detector.push_to_hub(WHOLE, endpoint=publisher.hub.endpoint, **options)]


def taken(hub, folder):
    """Return the names of the heads of the whole as somebody else takes it."""
    found = HydraDetector.from_pretrained(WHOLE, store=folder, endpoint=hub.endpoint, device="cpu")
    return sorted(found.heads)


def facts(hub, repo):
    """Return what the card of a repository tells the Hub, and the text below it."""
    _none, front, text = hub.repos[repo].content("README.md").decode().split("---\n", 2)
    return yaml.safe_load(front), text


def later(monkeypatch):
    """Let the library word the card of a pack in another way, as a later one may."""
    real = cards.of_pack
    monkeypatch.setattr(cards, "of_pack", lambda *of: real(*of).replace(b"Many heads", b"Several heads"))


def test_a_card_that_we_wrote_goes_on(publisher, hub, monkeypatch):
    """A pack's card that nobody edited is written anew, though this library would have written another before."""
    publisher.push("owl", f"{PACK}/owl")
    later(monkeypatch)
    publisher.push("fox", f"{PACK}/fox")
    card = hub.repos[PACK].content("README.md")
    assert b"Several heads" in card
    assert publisher.text(PACK, "index.json")["card"] == client.blob_of(card)


def test_a_card_that_somebody_edited_stays(publisher, hub):
    """A pack's card that somebody edited is his from then on, and one that was there first is whose it was."""
    publisher.push("owl", f"{PACK}/owl")
    hub.add(hub.repos[PACK], {"README.md": b"---\nlicense: mit\n---\nMine."})
    hub.repo("org/other", {"README.md": b"---\nlicense: mit\n---\nMine."})
    for repo in (PACK, "org/other"):
        for name in ("fox", "bat"):
            publisher.push(name, f"{repo}/{name}", needs=[BACKBONE, f"{PACK}/owl@v1"])
            assert hub.repos[repo].content("README.md").endswith(b"Mine.")


def test_a_card_that_the_index_claims(publisher, hub):
    """An index that somebody edited may claim a card that we never wrote: it stays, and the release is published."""
    whole(publisher, "fox")
    card = b"# Ours, without a front matter\n"
    index = publisher.text(WHOLE, "index.json") | {"card": client.blob_of(card)}
    hub.add(hub.repos[WHOLE], {"README.md": card, "index.json": json.dumps(index).encode()})
    publisher.push("owl", f"{WHOLE}/owl")
    assert hub.repos[WHOLE].content("README.md") == card
    assert sorted(list_pack(WHOLE, endpoint=hub.endpoint)) == ["fox", "owl"]


def test_an_index_from_before(publisher, hub):
    """An index that does not say which card was written is read, and a card that is as it would be written goes on."""
    publisher.push("owl", f"{PACK}/owl")
    document = publisher.text(PACK, "index.json")
    del document["card"]
    hub.add(hub.repos[PACK], {"index.json": json.dumps(document).encode()})
    lifecycle_fixtures.give(publisher.store, "hen", classes=("hen",))
    publisher.push("hen", f"{PACK}/hen")
    assert hub.repos[PACK].content("README.md") == cards.of_pack(PACK, list_pack(PACK, endpoint=hub.endpoint))


def test_a_whole_detector_is_found(publisher, hub):
    """One repository with a backbone and its heads is found as heads are, and by its backbone; it is both."""
    about = About(license="mit", data="Ours.")
    whole(publisher, "fox", "bat", about=about)
    for options in ({}, {"backbone": WHOLE}):
        assert WHOLE in [one.repo for one in search(endpoint=hub.endpoint, **options)]
    told, text = facts(hub, WHOLE)
    assert told["tags"] == ["hydra-backbone", "hydra-head", "hydra-pack", "signal:owl"]
    assert (told["base_model"], told["base_model_relation"]) == ([WHOLE], "adapter")
    assert told["license"] == "mit"
    assert text == facts(hub, BACKBONE)[1].replace(BACKBONE, WHOLE).replace(
        "Whoever published it did not say.", "Ours."
    )
    lifecycle_fixtures.give(publisher.store, "hen", classes=("hen",))
    publisher.push("hen", f"{WHOLE}/hen")
    assert facts(hub, WHOLE)[0]["tags"][-2:] == ["signal:hen", "signal:owl"]
    assert facts(hub, WHOLE)[1] == text


def test_a_backbones_card_that_somebody_edited_stays(publisher, hub):
    """Heads that come into the repository of a backbone write nothing over what people wrote there."""
    publisher.push_backbone(WHOLE)
    mine = hub.repos[WHOLE].content("README.md") + b"Mine."
    hub.add(hub.repos[WHOLE], {"README.md": mine})
    whole(publisher, "fox", "bat")
    assert hub.repos[WHOLE].content("README.md") == mine


def test_a_backbone_that_comes_after_its_heads(publisher, hub):
    """A pack into which its backbone comes later is tagged as both from the next head on; its text stays."""
    publisher.push("owl", f"{WHOLE}/owl")
    text = facts(hub, WHOLE)[1]
    publisher.push_backbone(WHOLE)
    publisher.push("fox", f"{WHOLE}/fox")
    assert facts(hub, WHOLE)[0]["tags"][:3] == ["hydra-backbone", "hydra-head", "hydra-pack"]
    assert facts(hub, WHOLE)[1] == text


def test_a_head_of_its_own_stays_one(publisher, hub, tmp_path):
    """A head that is in a pack by itself is not hidden by a newer release of it that another leans on."""
    publisher.push("owl", f"{WHOLE}/owl")
    again(publisher)
    compact(publisher.store, "elk", seed=5)
    whole(publisher, "elk")
    glance = list_pack(WHOLE, endpoint=hub.endpoint)["owl"]
    assert (glance.release, glance.is_reference) == (2, False)
    assert taken(hub, tmp_path / "there") == ["elk", "owl"]


@pytest.mark.parametrize("loaded", [1, 2])
def test_releases_of_a_head_go_up(publisher, hub, tmp_path, loaded):
    """Of a head that runs in one version, and is leant on in another, the lower goes first, whichever that is."""
    if loaded == 2:
        compact(publisher.store, "elk", seed=5)
    lifecycle_fixtures.give(publisher.store, "owl", seed=7, classes=("owl",))
    if loaded == 1:
        compact(publisher.store, "elk", seed=5)
    elk = HeadRegistry(publisher.store)["elk"]
    assert elk.record.compact.reference_ref == f"owl@{3 - loaded}"
    made = whole(publisher, f"owl@{loaded}", "elk")
    assert made[:2] == [f"{WHOLE}@v1", f"{WHOLE}/owl@v1"]
    assert sorted(made[2:]) == [f"{WHOLE}/elk@v1", f"{WHOLE}/owl@v2"]
    assert loaded == 2 or made[3] == f"{WHOLE}/elk@v1"
    assert publisher.text(WHOLE, "heads/owl/channels.json")["production"] == loaded
    assert taken(hub, tmp_path / "there") == ["elk", "owl"]


def test_from_a_store_that_cannot_be_written(publisher, hub, monkeypatch):
    """A detector is published whole from a store that cannot keep where its parts went."""

    def refuse(_store, asked):
        raise StoreError(asked, "it is read-only", "Copy it.")

    for path in (publisher.store.root / "hub").rglob("*"):
        if path.is_file():
            path.unlink()
    monkeypatch.setattr(Store, "check_writable", refuse)
    made = whole(publisher, "bat", "fox")
    monkeypatch.undo()
    assert made == [f"{WHOLE}@v1", f"{WHOLE}/fox@v1", f"{WHOLE}/owl@v1", f"{WHOLE}/bat@v1"]
    assert commits(hub, WHOLE) == ["default: release v1", "fox: release v1", "owl: release v1", "bat: release v1"]
    config = publisher.text(WHOLE, "heads/bat/config.json")
    places = config["backbone"], config["reference"]
    assert [(one["repo"], one.get("head", "")) for one in places] == [(WHOLE, ""), (WHOLE, "owl")]
