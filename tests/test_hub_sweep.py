"""Every request of every operation, and whatever can go wrong with it: done once and whole, or an error and nothing."""

import contextlib
from dataclasses import replace

import publishing_fixtures
import pytest
from engine_fixtures import copied
from hub_faults import Corrupt, Drop, Lose, Status, Truncate
from publishing_fixtures import BACKBONE, BAT, OWL, Puller, commits
from test_hub_push import again

from hydra_detect.errors import CorruptError, HydraDetectError
from hydra_detect.hub.channels import promote_release, rollback_release
from hydra_detect.hub.pull import pull_backbone

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
TARGET, PACK = "org/target", "org/pack"

PASSING = {
    "500": Status(500),
    "502": Status(502),
    "504": Status(504),
    "504 after it was done": Status(504, handled=True),
    "429": Status(429),
    "dropped": Drop(),
    "answer lost": Lose(),
    "truncated": Truncate(),
}
"""What the library outlasts, if it happens once."""

FINAL = {
    "412": Status(412),
    "412 after it was done": Status(412, handled=True),
    "409": Status(409),
    "404": Status(404),
    "401": Status(401),
    "403": Status(403),
    "another bit": Corrupt(),
}
"""What may be an answer that it has to believe."""

FAULTS = {**PASSING, **FINAL}
LASTING = ("500", "answer lost", "404", "another bit")


def attempt(call):
    """Return what a call returns; None if it raises an error of ours, and no other error may come."""
    with contextlib.suppress(HydraDetectError):
        return call()


def requests_of(hub, call):
    """Return how many requests a call takes when nothing goes wrong."""
    before = len(hub.seen())
    call()
    return len(hub.seen()) - before


def copy_of(repo):
    """Return a repository as it is now, whatever is committed to it later."""
    parts = {name: type(value)(value) for name in ("commits", "branches", "tags") if (value := getattr(repo, name))}
    return replace(repo, objects=set(repo.objects), **parts)


def files_of(repo):
    """Return what lies on the main branch: each path and its content, but of releases.json, which has the time."""
    return {path: "" if path.endswith("releases.json") else entry.oid for path, entry in repo.head.files.items()}


class Target:
    """A repository that something is published in, many times: it is put back to how it was before."""

    def __init__(self, publisher, prepare, publish, tag):
        self.hub, self.publish, self.tag = publisher.hub, lambda: publish(publisher), tag
        prepare(publisher)
        self.before = copy_of(self.hub.repos[TARGET]) if TARGET in self.hub.repos else None
        self.requests = requests_of(self.hub, self.publish)
        self.after = files_of(self.hub.repos[TARGET])
        self.restore()

    def restore(self):
        """Put it back."""
        self.hub.repos.pop(TARGET, None)
        if self.before:
            self.hub.repos[TARGET] = copy_of(self.before)

    def check(self, made, where):
        """See that it has one commit more, tagged, if something was made; that nothing is half in any case."""
        repo = self.hub.repos.get(TARGET)
        if repo is None:
            assert made is None, where
            return
        count = len(repo.commits) - (len(self.before.commits) if self.before else 1)
        tags = dict(self.before.tags) if self.before else {}
        assert count in ({1} if made else {0, 1}), (where, commits(self.hub, TARGET))
        assert count == 0 or files_of(repo) == self.after, where
        if made:
            assert made.commit == repo.head.id, where
            assert repo.tags == {**tags, self.tag: made.commit}, where
        else:
            assert repo.tags in ([tags, {**tags, self.tag: repo.head.id}] if count else [tags]), where


def with_another_head(own):
    """Make a pack of two heads, and a newer version of one of them to publish there."""
    own.push("fox", f"{TARGET}/fox")
    own.push("owl", f"{TARGET}/owl")
    again(own)


PUSHES = {
    "first release": (lambda _own: None, lambda own: own.push("owl", TARGET), "v1"),
    "second release": (lambda own: [own.push("owl", TARGET), again(own)], lambda own: own.push("owl", TARGET), "v2"),
    "head of a pack": (with_another_head, lambda own: own.push("owl", f"{TARGET}/owl"), "owl-v2"),
    "backbone": (lambda _own: None, lambda own: own.push_backbone(TARGET), "v1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", PUSHES)
def test_push(publisher, hub, name, fault):
    """Whichever request of a push fails, there is one commit with its tag or an error; and a second push heals."""
    target = Target(publisher, *PUSHES[name])
    for nth in range(1, target.requests + 1):
        target.restore()
        plan = hub.faults.at(nth, FAULTS[fault])
        made = attempt(target.publish)
        assert plan.fired, nth
        assert made or fault in FINAL, nth
        target.check(made, nth)
        hub.faults.clear()
        if made is None:
            target.check(target.publish(), f"{nth}, again")


@pytest.mark.parametrize("name", PUSHES)
def test_push_for_ever(publisher, hub, name):
    """What goes wrong from some request on ends in an error, or a commit with its tag; the next push heals."""
    target = Target(publisher, *PUSHES[name])
    for fault in LASTING:
        for nth in range(1, target.requests + 1):
            target.restore()
            hub.faults.at(nth, FAULTS[fault], times=None)
            target.check(attempt(target.publish), f"{fault} from {nth} on")
            hub.faults.clear()
            target.check(target.publish(), f"{fault} from {nth} on, again")


@pytest.fixture
def shelf(publisher, puller, tmp_path):
    """Return what makes a store to pull into: a copy of one that is empty, or that has a backbone and `owl`."""
    publisher.push("owl", f"{PACK}/owl")
    empty = Puller(puller.hub, tmp_path / "empty").store
    puller.pull()
    made = iter(range(10**6))

    def make(*, is_empty):
        folder = tmp_path / f"shelf-{next(made)}"
        other = Puller(puller.hub, folder / "unused")
        other.store = copied(empty if is_empty else puller.store, folder)
        return other

    return make


COMPACT = "compact head and all that it needs"
PULLS = {
    "head": (True, lambda own: own.pull()),
    COMPACT: (True, lambda own: own.pull(f"{BAT}@v1")),
    "what is in production": (False, lambda own: own.pull(BAT)),
    "head of a pack": (False, lambda own: own.pull(f"{PACK}/owl", name="uhu")),
    "backbone": (True, lambda own: pull_backbone(BACKBONE, own.store, endpoint=own.hub.endpoint)),
}  # fmt: skip
READ = [fault for fault in FAULTS if not fault.endswith("after it was done")]  # of which nobody who reads can tell

STRUCK = [
    *(("what is in production", fault) for fault in READ),
    *(("head of a pack", fault) for fault in ("504", "dropped", "truncated", *FINAL) if fault in READ),
    *((COMPACT, fault) for fault in ("500", "412", "409", "403", "another bit")),  # test_hub_pull has the others
    *((name, fault) for name in ("head", "backbone") for fault in ("502", "409", "another bit")),
]


def is_of_a_file(request):
    """Whether the answer to a request is a file, which is proven by its listing."""
    return request.host == "cdn" or "/resolve/" in request.path


@pytest.mark.parametrize(("name", "fault"), STRUCK)
def test_pull(hub, shelf, name, fault):
    """Whichever request of a pull fails, all is there or the store is as it was; what passes is outlasted."""
    is_empty, call = PULLS[name]
    other, usual = shelf(is_empty=is_empty), shelf(is_empty=is_empty)
    before, first = other.contents(), len(hub.seen())
    done = str(call(usual))
    for nth in range(1, len(hub.seen()) - first + 1):
        first = len(hub.seen())
        hub.faults.at(nth, FAULTS[fault])
        ref = attempt(lambda: call(other))  # noqa: B023  called at once
        (struck,) = [one for one in hub.seen()[first:] if one.faults]
        hub.faults.clear()
        assert ref or (fault in FINAL and not (fault == "another bit" and is_of_a_file(struck))), struck.path
        if ref:
            assert str(ref) == done, struck.path
            other = shelf(is_empty=is_empty)
        assert other.contents() == before, struck.path
    assert str(call(other)) == done
    assert not hub.cache.exists()  # nothing was on a disk before it was checked


@pytest.mark.parametrize("name", ["what is in production", "head of a pack"])
def test_pull_for_ever(hub, shelf, name):
    """What goes wrong from some request on leaves the store as it was, unless nothing more was needed."""
    is_empty, call = PULLS[name]
    other, usual = shelf(is_empty=is_empty), shelf(is_empty=is_empty)
    before, first = other.contents(), len(hub.seen())
    done = str(call(usual))
    requests = len(hub.seen()) - first
    for fault in LASTING:
        for nth in range(1, requests + 1):
            hub.faults.at(nth, FAULTS[fault], times=None)
            ref = attempt(lambda: call(other))  # noqa: B023  called at once
            hub.faults.clear()
            assert (ref is None) or str(ref) == done, (fault, nth)
            other = shelf(is_empty=is_empty) if ref else other
            assert other.contents() == before, (fault, nth)
        assert str(call(other)) == done, fault
        other = shelf(is_empty=is_empty)


FILES = ["config.json", "releases.json", "channels.json", "beside.json", "model.safetensors"]


@pytest.mark.parametrize("file", FILES)
def test_a_body_with_another_bit(puller, hub, file):
    """Other bytes than the listed ones are asked for once more; if they come again they are refused."""
    before = puller.contents()
    where = ("GET", r"/[0-9a-f]{64}$", "cdn") if file == "model.safetensors" else ("GET", f"/{file}$", "hub")
    for times in (None, 2, 1):
        plan = hub.faults.on(Corrupt(), *where[:2], host=where[2], times=times)
        if times == 1:
            assert str(puller.pull(OWL)) == "owl@1"
        else:
            with pytest.raises(CorruptError, match="bytes came twice whose digest is not that of the commit's listing"):
                puller.pull(OWL)
            assert puller.contents() == before
        assert plan.fired == (times or 2)
        hub.faults.clear()


def test_a_body_that_breaks_off(puller, hub):
    """Weights whose connection breaks time and again go on from where they were, as long as more of them comes."""
    hub.faults.on(Truncate(40_000), "GET", host="cdn", times=None)
    assert str(puller.pull()) == "owl@1"
    sizes = [len(hub.repos[repo].content("model.safetensors")) for repo in (OWL, BACKBONE)]
    wanted = [None if start == 0 else f"bytes={start}-" for size in sizes for start in range(0, size, 40_000)]
    assert [one.headers.get("range") for one in hub.seen("GET", host="cdn")] == wanted
    assert len(wanted) > len(sizes)


def promoting(hub):
    """Put into production what is not."""
    return promote_release(f"{TARGET}@v2", endpoint=hub.endpoint)


def rolling_back(hub):
    """Put into production what was before."""
    return rollback_release(TARGET, endpoint=hub.endpoint)


@pytest.fixture
def two_releases(publisher, hub):
    """Return what puts a repository of two releases back to how it was before a change."""
    publisher.push("owl", TARGET)
    again(publisher)
    publisher.push("owl", TARGET)
    first = copy_of(hub.repos[TARGET])
    promoting(hub)
    kept = {promoting: first, rolling_back: copy_of(hub.repos[TARGET])}
    return lambda change: hub.repos.__setitem__(TARGET, copy_of(kept[change]))


def struck(hub, change, fault, nth, times):
    """Change what is in production while a request of that fails; return whether it was said to be done."""
    plan = hub.faults.at(nth, FAULTS[fault], times=times)
    made = attempt(lambda: change(hub))
    hub.faults.clear()
    assert plan.fired, (fault, nth)
    assert made or fault in FINAL or times is None, (fault, nth)
    return made is not None


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
@pytest.mark.parametrize("change", [promoting, rolling_back])
def test_what_is_in_production(publisher, hub, two_releases, change, times):
    """Whichever request fails, it is changed by one commit or not at all, and the tags stay; once more, it is done."""
    two_releases(change)
    titles, tags = commits(hub, TARGET), dict(hub.repos[TARGET].tags)
    before, after = (1, 2) if change is promoting else (2, 1)
    requests = requests_of(hub, lambda: change(hub))
    for fault in FAULTS if times else LASTING:
        for nth in range(1, requests + 1):
            two_releases(change)
            made = struck(hub, change, fault, nth, times)
            now = publisher.text(TARGET, "channels.json")["production"]
            new = commits(hub, TARGET)[len(titles) :]
            assert (now, new) in [(after, [f"v{after} in production"]), *([] if made else [(before, [])])], (fault, nth)
            assert hub.repos[TARGET].tags == tags, (fault, nth)
            if now == before:
                assert change(hub).production == after, (fault, nth)
