"""What a release is kept from: another who pushes the same, files that are left out, and eyes that it is not for."""

import publishing_fixtures
import pytest
from hub_faults import Hook, Status
from publishing_fixtures import OWL, commits
from test_hub_push import REQUESTS, again

from hydra_detect import HydraDetector
from hydra_detect.errors import ConflictError
from hydra_detect.hub.channels import promote_release

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
PACK = "org/pack"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_the_same_from_elsewhere_at_any_moment(publisher, hub, late):
    """Whenever somebody pushes the same release in between, both succeed: one commit and tag, made by one of them."""
    for nth in range(1, REQUESTS + 1):
        target, others = f"{OWL}-{nth}", []
        hub.faults.at(
            nth, Hook(lambda _request, repo=target, made=others: made.append(publisher.push("owl", repo)), late)
        )
        own = publisher.push("owl", target)
        hub.faults.clear()
        (other,) = others
        assert own.commit == other.commit, nth
        assert sorted([own.is_new, other.is_new]) == [False, True], nth
        assert commits(hub, target) == ["owl: release v1"], nth
        assert hub.repos[target].tags == {"v1": own.commit}, nth


def test_a_conflict_is_tried_again(publisher, hub):
    """A commit that the Hub refuses since somebody else commits just then is made after that, as one commit."""
    plan = hub.faults.on(Status(409), "POST", "/commit/", times=2)
    made = publisher.push()
    assert plan.fired == 2
    assert made.is_new
    assert commits(hub, OWL) == ["owl: release v1"]
    assert hub.repos[OWL].tags == {"v1": made.commit}


@pytest.mark.parametrize("place", ["", "heads/owl/"], ids=["top", "folder"])
def test_nothing_is_left_out_of_a_release(publisher, puller, hub, place):
    """Where a .gitignore may cover files of a release, nothing is sent until it is gone."""
    hub.repo(PACK)
    hub.add(hub.repos[PACK], {f"{place}.gitignore": b"*.safetensors\n"}, "ignored")
    before = len(hub.seen())
    with pytest.raises(ConflictError, match=rf"it holds {place}\.gitignore, .* Delete {place}\.gitignore there"):
        publisher.push("owl", f"{PACK}/owl")
    assert not [one for one in hub.seen()[before:] if one.method == "PUT" or "/preupload/" in one.path]
    assert commits(hub, PACK) == ["ignored"]
    assert hub.repos[PACK].tags == {}
    hub.api().delete_file(f"{place}.gitignore", PACK)
    assert publisher.push("owl", f"{PACK}/owl").is_new
    assert str(puller.pull(f"{PACK}/owl@v1")) == "owl@1"


def test_a_release_that_is_there_needs_no_room(publisher, hub):
    """A .gitignore that came later stops no push of what is there whole; its tag is given again."""
    made = publisher.push()
    hub.add(hub.repos[OWL], {".gitignore": b"*\n"})
    hub.repos[OWL].drop_ref("tag", "v1")
    assert publisher.push().commit == made.commit
    assert hub.repos[OWL].tags == {"v1": made.commit}


def test_a_promotion_is_not_left_out(publisher, hub):
    """Where a .gitignore would keep channels.json from changing, that is said: nobody takes it for promoted."""
    publisher.push("owl", f"{PACK}/owl")
    again(publisher)
    publisher.push("owl", f"{PACK}/owl")
    hub.add(hub.repos[PACK], {".gitignore": b"*.json\n"})
    with pytest.raises(ConflictError, match=rf"put {PACK}/owl@v2 into production: it holds \.gitignore"):
        promote_release(f"{PACK}/owl@v2", endpoint=hub.endpoint)
    assert publisher.text(PACK, "heads/owl/channels.json")["production"] == 1


def test_private_is_private(publisher, hub):
    """What is to be private goes into a repository that is made so, or is so; not into one that everybody sees."""
    publisher.push(private=True)
    assert hub.repos[OWL].private
    again(publisher)
    assert publisher.push(private=True).is_new
    hub.repos[OWL].private = False
    again(publisher)
    before = len(hub.seen())
    with pytest.raises(ConflictError, match="as private: it is there already, and everybody may see it"):
        publisher.push(private=True)
    assert not [one for one in hub.seen()[before:] if one.method == "PUT" or "/preupload/" in one.path]
    assert commits(hub, OWL) == ["owl: release v1", "owl: release v2"]
    detector = HydraDetector.from_store(publisher.store, ["fox"], device="cpu")
    with pytest.raises(ConflictError, match="everybody may see it"):
        detector.push_to_hub(OWL, private=True, endpoint=hub.endpoint)


def test_private_costs_one_request(publisher, hub):
    """Whether a repository is private is asked once, and only by those who want it to be."""
    before = len(hub.seen())
    publisher.push(private=True)
    assert len(hub.seen()) - before == REQUESTS + 1
