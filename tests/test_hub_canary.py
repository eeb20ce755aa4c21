"""A canary: the token is sent to the Hub, and is in no log of any library, no output, no error, no repr and no file."""

import json
import logging
import pickle
import traceback
from dataclasses import replace

import publishing_fixtures
import pytest
from engine_fixtures import copied
from hub_faults import Alter, Drop, Status
from hub_fixtures import files_with
from publishing_fixtures import BACKBONE, BAT, OWL, Puller
from test_hub_push import again

from hydra_detect import HydraDetector
from hydra_detect.cli.commands import run
from hydra_detect.errors import HydraDetectError
from hydra_detect.hub import client
from hydra_detect.hub.channels import promote_release
from hydra_detect.hub.searching import list_pack, search
from hydra_detect.hub.snapshots import Snapshot

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


class Ear(logging.Handler):
    """Keeps all that it hears, with what was raised."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.heard = []

    def emit(self, record):
        """Keep a record as it would be written, and its parts."""
        self.heard.append(f"{self.format(record)} {record.args!r}")


@pytest.fixture
def heard():
    """Return what every logger says, those of the client and of the transport below it, too, down to DEBUG."""
    ear, root = Ear(), logging.getLogger()
    made = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.level) for one in (root, *made)]
    deaf = [one for one in made if not one.propagate]
    for one, _level in before:
        one.setLevel(logging.DEBUG)
    for one in (root, *deaf):
        one.addHandler(ear)
    yield ear.heard
    for one in (root, *deaf):
        one.removeHandler(ear)
    for one, level in before:
        one.setLevel(level)


def told(error):
    """Return all that an error tells, with what it came from: as text, as traceback, by its facts, and pickled."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), repr(vars(error)), repr(error.args), *traceback.format_exception(error)]
        if isinstance(error, HydraDetectError):
            texts.append(pickle.dumps(error).decode("latin1"))
        error = error.__context__
    return texts


@pytest.fixture
def doors(publisher, hub, tmp_path):
    """Return the doors to the Hub by name, each to be taken more than once."""
    publisher.push()
    publisher.push("bat", BAT)
    publisher.push("owl", "org/pack/owl")
    end, where = {"endpoint": hub.endpoint}, ["--endpoint", hub.endpoint]
    store, there, counted = str(publisher.store.root), str(tmp_path / "there"), iter(range(10**6))

    def fresh():
        return Puller(hub, tmp_path / f"fresh-{next(counted)}")

    return {
        "push": lambda: [again(publisher), publisher.push()],
        "push_backbone": lambda: publisher.push_backbone(f"org/backbone-{next(counted)}"),
        "push_to_hub": lambda: HydraDetector.from_store(publisher.store, ["fox"], device="cpu").push_to_hub(
            f"org/whole-{next(counted)}", **end
        ),
        "pull": lambda: fresh().pull(f"{BAT}@v1"),
        "from_pretrained": lambda: HydraDetector.from_pretrained(BACKBONE, [OWL], store=fresh().store, **end),
        "promote": lambda: [again(publisher), promote_release(publisher.push().ref, **end)],
        "search": lambda: search(backbone=BACKBONE, **end),
        "list": lambda: list_pack("org/pack", **end),
        "hydra-detect push": lambda: run(["push", "fox", f"org/fox-{next(counted)}", "--store", store, *where]),
        "hydra-detect pull": lambda: run(["pull", f"{OWL}@main", "--store", f"{there}-{next(counted)}", *where]),
        "hydra-detect search": lambda: run(["search", "owl", *where]),
        "hydra-detect search --json": lambda: run(["search", "--json", *where]),
    }


NAMES = [
    "push", "push_backbone", "push_to_hub", "pull", "from_pretrained", "promote", "search", "list",
    "hydra-detect push", "hydra-detect pull", "hydra-detect search", "hydra-detect search --json",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_door_tells_nobody_the_token(doors, hub, canary, heard, capsys, tmp_path, name):
    """Whatever is done, and whatever becomes of it, the token is sent, and is nowhere else."""
    capsys.readouterr()
    before, texts = len(hub.seen()), [repr(doors[name]())]
    every = len(hub.seen()) - before
    assert [one for one in hub.seen()[before:] if one.contains(canary)]
    for fault in (Status(401), Status(403), Status(500), Drop()):
        for nth in (1, every // 2 + 1, every):
            hub.faults.at(nth, fault, times=None)
            try:
                texts.append(repr(doors[name]()))
            except HydraDetectError as error:
                texts += told(error)
            hub.faults.clear()
    texts += [*heard, *capsys.readouterr()]
    assert not [text for text in texts if canary in text]
    assert hub.endpoint in "".join(heard)  # the client and its transport were heard
    assert hub.leaks(canary) == []
    assert files_with(tmp_path, canary) == []


@pytest.mark.usefixtures("puller")
def test_nothing_that_is_printed_has_it(publisher, hub, canary):
    """Hub, snapshot and release say what they are, and hold the token in no part of them."""
    there = client.Hub(hub.endpoint)
    snapshot = Snapshot(there, OWL, there.commit_of(OWL))
    snapshot.read("config.json")
    values = [there, snapshot, publisher.push(), *search(endpoint=hub.endpoint), *snapshot.listing().values()]
    texts = [form(one) for one in values for form in (str, repr)]
    texts += [repr(vars(one)) for one in (there, snapshot, there._api)]
    assert f"Hub({hub.endpoint!r})" in texts
    assert not [text for text in texts if canary in text]


PLACES = {
    "push": ("POST", "/commit/"),
    "push_backbone": ("POST", "/tag/"),
    "pull": ("GET", r"/resolve/.*/config\.json$"),
    "from_pretrained": ("GET", "/tree/"),
    "promote": ("GET", r"/channels\.json$"),
    "search": ("GET", "/api/models$"),
    "list": ("GET", r"/index\.json$"),
    "hydra-detect push": ("POST", "/verify$"),
    "hydra-detect pull": ("GET", "/revision/|/api/models/org/hydra-owl$"),
}


REPEATED = [(name, 403) for name in PLACES] + [(name, 503) for name in PLACES if PLACES[name][0] == "GET"]


@pytest.mark.parametrize(("name", "status"), REPEATED)
def test_a_hub_that_repeats_the_token(doors, hub, canary, capsys, name, status):
    """What a Hub says of an error is told without the token, were it to repeat that in a body or a header."""
    said = f"the token {canary} may not"

    def repeating(reply):
        headers = {"X-Error-Message": said, "Content-Type": "application/json"}
        return replace(reply, status=status, headers=headers, body=json.dumps({"error": said}).encode())

    plan = hub.faults.on(Alter(repeating), *PLACES[name], times=None)
    texts = []
    try:
        doors[name]()
    except HydraDetectError as error:
        texts = [str(error), repr(error), repr(vars(error))]
    texts += capsys.readouterr()
    assert plan.fired
    assert "the token *** may not" in "".join(texts)
    assert not [text for text in texts if canary in text]


def test_the_token_of_the_login(publisher, hub, canary, heard, monkeypatch, tmp_path):
    """The token of the Hub's own login is taken where the environment has none, and is told no more."""
    monkeypatch.delenv("HF_TOKEN")
    hub.folder.mkdir(exist_ok=True)
    (hub.folder / "token").write_text(canary)
    store = copied(publisher.store, tmp_path)
    made = publisher.push()
    (hub.folder / "token").unlink()
    with pytest.raises(HydraDetectError, match="Log in with 'hf auth login'") as caught:
        publisher.push("fox", "org/hydra-fox")
    assert made.is_new
    assert not [text for text in (*heard, *told(caught.value), str(made), repr(store)) if canary in text]
