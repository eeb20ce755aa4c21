"""Downloads: a Hub names no file, what breaks off is gone on with, and nothing is larger than was listed."""

import gzip
import importlib
import io
import json
import os
import shutil
import tracemalloc
from dataclasses import replace

import publishing_fixtures
import pytest
from hub_faults import Alter, Corrupt, Hook, Slow, Truncate
from publishing_fixtures import BACKBONE, OWL

from hydra_detect import HeadRegistry
from hydra_detect.errors import CorruptError, HubError, InputError, NotFoundError
from hydra_detect.hub import downloads
from hydra_detect.hub.client import Listed
from hydra_detect.hub.originals import fetched
from hydra_detect.hub.push import push_backbone
from hydra_detect.storage import heads

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller

WEIGHTS = "model.safetensors"


def of_the_weights(hub):
    """Return the requests for bodies of weights, without those that were led on to the other host."""
    return [one for one in hub.seen() if one.host == "cdn"]


@pytest.mark.parametrize("name", ["../../precious.txt", "/etc/passwd", "x" * 300])
def test_a_hub_names_no_file(puller, hub, tmp_path, name):
    """Whatever a Hub says that a file is called by, it is kept in the store alone, and nothing else is touched."""
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    shutil.rmtree(hub.cache, ignore_errors=True)

    def named(reply):
        own = {
            "ETag": f'"{name}"',
            "X-Linked-ETag": f'"{name}"',
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return replace(reply, headers={**reply.headers, **own})

    plan = hub.faults.on(Alter(named), None, WEIGHTS, times=None)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(puller.store.root)}
    assert str(puller.pull()) == "owl@1"
    assert plan.fired
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(puller.store.root)} == before
    assert precious.read_text() == "mine"


def test_what_breaks_off_is_gone_on_with(puller, hub):
    """Of weights that break off, again and again, only what is missing is asked for."""
    step = len(hub.repos[OWL].content(WEIGHTS)) // 12 + 1
    plan = hub.faults.on(Truncate(step), "GET", "", host="cdn", times=11)
    puller.pull()
    assert plan.fired == 11
    own = [one.headers.get("range") for one in of_the_weights(hub) if OWL in one.target]
    assert own == [None, *(f"bytes={step * turn}-" for turn in range(1, 12))]


def test_a_hub_that_begins_anew(puller, hub):
    """A Hub that knows no ranges sends all of it again, and it is not put behind what came before."""
    hub.faults.on(Hook(lambda request: request.headers.pop("range", None)), "GET", "", host="cdn", times=None)
    plan = hub.faults.on(Truncate(), "GET", OWL, host="cdn")
    ref = puller.pull()
    assert plan.fired
    assert len(heads.tensors(puller.store, HeadRegistry(puller.store)[ref]))


def test_other_bytes_are_asked_for_once_more(puller, hub):
    """One flipped bit costs a second request and no more; flipped each time, it is said who may have done it."""
    plan = hub.faults.on(Corrupt(), "GET", OWL, host="cdn")
    puller.pull()
    assert plan.fired == 1
    again = hub.faults.on(Corrupt(), "GET", "hydra-bat", host="cdn", times=None)
    with pytest.raises(CorruptError, match="bytes came twice whose digest is not that of the commit's listing"):
        puller.pull("org/hydra-bat@v1")
    assert again.fired == 2


def test_more_than_was_listed(puller, hub):
    """A file that goes on behind its size is not read on to its end."""

    def longer(reply):
        own = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
        return replace(reply, body=reply.body + bytes(1 << 24), headers=own)

    hub.faults.on(Alter(longer), "GET", OWL, host="cdn", times=None)
    with pytest.raises(CorruptError, match="bytes came twice"):
        puller.pull()


@pytest.mark.parametrize("most", [0, 10, 100_000, 1 << 20])
def test_no_more_is_received_than_may_be(hub, most):
    """Of a body however long, no more than a chunk is taken beyond what may be."""
    hub.repo("org/long", {"long.bin": bytes(4 << 20)})
    held = io.BytesIO()
    downloads.receive(held, f"{hub.endpoint}/org/long/resolve/main/long.bin", most=most, agent={})
    assert most < held.tell() <= most + (1 << 17)


def test_no_more_of_an_error_is_read_than_a_person_would():
    """The body of an error may be as long as it likes: its first kilobytes are read, and the client's error is told."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    read = []

    def body():
        for _ in range(10_000):
            read.append(len(b"x" * 10_000))
            yield b"x" * 10_000

    request = client.Request("GET", "http://127.0.0.1/org/owl/resolve/main/config.json")
    with pytest.raises(HfHubHTTPError):
        downloads._raise_for_status(client.Response(500, content=body(), request=request))
    assert sum(read) < 100_000


def test_what_is_compressed_is_not_taken(puller, hub):
    """A body that came compressed, which nobody asked for, is not unpacked: it could become of any size."""
    body = gzip.compress(gzip.compress(bytes(64 << 20)))

    def packed(reply):
        return replace(reply, body=body, headers={**reply.headers, "Content-Encoding": "gzip, gzip"})

    hub.faults.on(Alter(packed), "GET", "config.json", times=None)
    held = io.BytesIO()
    downloads.receive(held, f"{hub.endpoint}/{OWL}/resolve/main/config.json", most=1 << 20, agent={})
    assert held.getvalue() == body
    tracemalloc.start()
    with pytest.raises(CorruptError, match="bytes came twice"):
        puller.pull()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_connection_that_breaks_behind_the_last_byte(puller, hub):
    """A body that is whole, and whose connection broke off after it, is not asked for again."""
    whole = len(hub.repos[OWL].content(WEIGHTS))

    def longer(reply):
        own = {**reply.headers, "Content-Length": str(whole + 1)}
        return replace(reply, headers=own, body=reply.body + b"?", cut=whole)

    hub.faults.on(Alter(longer), "GET", OWL, host="cdn")
    assert str(puller.pull()) == "owl@1"
    assert len([one for one in of_the_weights(hub) if OWL in one.target]) == 1


def test_an_error_with_a_long_body(puller, hub):
    """An error is told in a short line, with the Hub's own word for it."""

    def long(reply):
        return replace(reply, status=404, headers={"X-Error-Code": "RevisionNotFound"}, body=b"x" * (1 << 22))

    hub.faults.on(Alter(long), "GET", "config.json", times=None)
    with pytest.raises(NotFoundError, match="it has no such tag, branch or commit") as caught:
        puller.pull()
    assert len(str(caught.value)) < 500


def test_an_error_that_came_compressed(puller, hub):
    """An error is told by its status and its code, though its body, which nobody asked to be packed, is not read."""

    def packed(reply):
        own = {"X-Error-Code": "EntryNotFound", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        return replace(reply, status=404, headers=own, body=gzip.compress(b'{"error": "gone"}'))

    plan = hub.faults.on(Alter(packed), "GET", "config.json", times=None)
    with pytest.raises(NotFoundError, match="it has no such file or folder"):
        puller.pull()
    assert plan.fired == 1  # not taken for an answer that was lost


def test_a_hub_that_says_nothing(puller, hub, monkeypatch):
    """A Hub that takes a request and stays silent is given up, be it asked for a commit or for a file."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    for path in ("/revision/", "config.json"):
        silence = Slow(60)
        hub.faults.on(silence, "GET", path, times=None)
        with pytest.raises(HubError, match=r"there was no answer \(ReadTimeout\)"):
            puller.pull()
        silence.stop.set()
        hub.faults.clear()


def test_an_answer_that_is_no_commit(puller, hub):
    """What a revision is has to be a commit: it becomes part of addresses."""

    def other(reply):
        return replace(reply, body=json.dumps({**json.loads(reply.body), "sha": "../../x"}).encode())

    hub.faults.on(Alter(other), "GET", "/revision/", times=None)
    with pytest.raises(HubError, match=r"it answers with '\.\./\.\./x', which is no commit"):
        puller.pull()


def test_a_listing_of_no_digests(puller, hub):
    """A listing whose digests are none is none: an original is kept under its digest."""

    def other(reply):
        return replace(reply, body=reply.body.replace(b'"oid":"', b'"oid":"../').replace(b'"oid": "', b'"oid": "../'))

    hub.faults.on(Alter(other), "GET", "/tree/", times=None)
    with pytest.raises(HubError, match="it answered what cannot be read"):
        puller.pull()


@pytest.mark.parametrize("digests", [("../../x", None), ("a" * 41, None), ("a" * 40, "../../x"), ("a" * 40, "")])
def test_digests_that_are_none(digests):
    """What is listed has digests of hex digits, be it a small file or a large one."""
    with pytest.raises(ValueError, match="must match regex"):
        Listed(1, *digests)


@pytest.mark.usefixtures("publisher")
def test_an_original_is_downloaded_once(hub):
    """An original is kept by its digest, where it is proven each time: what is damaged there is downloaded anew."""
    address = f"hf://{BACKBONE}/{WEIGHTS}@v1"
    file, pinned = fetched(address, endpoint=hub.endpoint)
    content = hub.repos[BACKBONE].content(WEIGHTS)
    assert file.read_bytes() == content
    assert file.is_relative_to(os.environ["HOME"])
    assert pinned == f"hf://{BACKBONE}/{WEIGHTS}@{hub.repos[BACKBONE].tags['v1']}"
    count = len(of_the_weights(hub))
    assert fetched(address, endpoint=hub.endpoint) == (file, pinned)
    assert len(of_the_weights(hub)) == count
    file.write_bytes(content[:-1] + b"?")
    assert fetched(address, endpoint=hub.endpoint) == (file, pinned)
    assert file.read_bytes() == content
    assert len(of_the_weights(hub)) == count + 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_card_that_is_refused_tells_no_token(publisher, hub, canary):
    """What a Hub says of a card is told without our token, were it to repeat that."""

    def repeating(reply):
        told = {"errors": [{"message": f"the token {canary} may not"}], "warnings": []}
        return replace(reply, status=400, body=json.dumps(told).encode())

    hub.faults.on(Alter(repeating), "POST", "/validate-yaml", times=None)
    with pytest.raises(InputError, match=r"the Hub refuses the card: .*the token \*\*\* may not"):
        push_backbone(publisher.store, "default", "org/other", endpoint=hub.endpoint)
