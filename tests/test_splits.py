"""Splits: a partition with named roles, that respects groups, forgets no test sample, and refuses the wrong role."""

import attrs
import numpy as np
import pytest
from data_fixtures import picture, sample, samples_of
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect import codec
from hydra_detect.data import splits
from hydra_detect.data.samples import Role, Samples
from hydra_detect.data.splits import (
    TOLD,
    TRUSTED,
    Split,
    SplitSample,
    check_enough,
    fits_four_roles,
    folds,
    needed,
    require,
    require_disjoint,
    thin_classes,
)
from hydra_detect.errors import InputError, RecordError, RoleError

CLASSES = ("owl", "fox")
label_sets = st.lists(st.sampled_from(CLASSES), max_size=2, unique=True)


@st.composite
def sets(draw, *, least=0, most=14):
    """Draw samples with up to two classes, in groups of one or more."""
    labels = draw(st.lists(label_sets, min_size=least, max_size=most))
    groups = draw(st.lists(st.integers(0, 8).map("g{}".format), min_size=len(labels), max_size=len(labels)))
    return attrs.evolve(samples_of(*labels, groups=groups), class_names=CLASSES)


def many(count, labels=lambda n: ["owl"] if n % 3 else []):
    """Return so many samples, by default a third of them background."""
    return samples_of(*(labels(n) for n in range(count)))


# The deal


def test_empty_first():
    """No samples give an empty split of no one's, which reads back."""
    nothing = splits.split(Samples())
    assert (nothing.samples, nothing.roles, set(nothing.counts.values())) == ((), {}, {0})
    assert nothing.take(Samples(), Role.TEST) == Samples().with_role(Role.TEST)
    assert splits.given(Samples(), {}).samples == ()


@given(sets(), st.integers(0, 3))
def test_a_split_is_a_partition_of_whole_groups(samples, seed):
    """Each sample has one role, takes give all of them back, and no group comes apart."""
    found = splits.split(samples, seed=seed)
    parts = [found.take(samples, role) for role in Role]
    assert sorted(s.id for part in parts for s in part) == sorted(s.id for s in samples)
    assert [len(part) for part in parts] == [found.counts[role] for role in Role]
    assert [part.role for part in parts] == list(Role)
    roles_of = {}
    for one in samples:
        roles_of.setdefault(one.group, set()).add(found.roles[one.id])
    assert all(len(roles) == 1 for roles in roles_of.values())
    assert sum(1 for part in parts if len(part)) == min(4, len(roles_of))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "7", None, True])
def test_a_seed_is_a_whole_number_from_0(seed):
    """What is none is refused wherever samples are dealt, with what to give; the largest that there is does."""
    samples = many(6)
    for deal in (splits.split, folds):
        with pytest.raises(InputError, match=r"the seed is .*Give a whole number from 0 to 9223372036854775807"):
            deal(samples, seed=seed)
    assert splits.split(samples, seed=2**63 - 1).seed == 2**63 - 1
    assert splits.split(samples, seed=np.int64(7)) == splits.split(samples, seed=7)


@given(sets(), st.data())
def test_the_order_of_the_samples_does_not_count(samples, data):
    """The same samples in any order give the same split, to the byte."""
    order = data.draw(st.permutations(range(len(samples))))
    assert splits.split(samples[list(order)], seed=7) == splits.split(samples, seed=7)
    assert splits.split(samples[list(order)]).digest == splits.split(samples).digest


def test_seeds_deal_differently_and_ids_decide():
    """Another seed is another deal; another id may be dealt otherwise, the same one never."""
    samples = many(40)
    dealt = {splits.split(samples, seed=seed).digest for seed in range(5)}
    assert len(dealt) == 5
    assert splits.split(many(40)).digest in dealt


@given(sets())
def test_splits_are_records(samples):
    """A split reads back as it was written, and its digest is that of its content."""
    found = splits.split(samples, seed=3)
    again = codec.decode(Split, codec.encode(found), "a split")
    assert again == found
    assert again.digest == found.digest
    assert all(isinstance(role, Role) for role in again.roles.values())
    assert found.digest != splits.split(samples, seed=4).digest


def test_what_is_no_split_is_refused():
    """A role that there is not, a share beyond 1, and an id that stands twice are refused by name."""
    (row,) = splits.split(many(1)).samples
    data = codec.encode(splits.split(many(1))).replace(b'"role": "train"', b'"role": "trian"')
    with pytest.raises(RecordError, match="samples: use a role: there is none named 'trian'"):
        codec.decode(Split, data, "a split")
    with pytest.raises(RecordError, match=r"'train' is 1\.5"):
        Split(samples=(), shares={"train": 1.5})
    with pytest.raises(InputError, match="stands twice"):
        Split(samples=(row, attrs.evolve(row, role="test")), shares={})
    assert SplitSample(id="a", picture=row.picture, digest=row.digest, group="a", role="test").role is Role.TEST


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": float("nan")}])
def test_shares_that_are_none(shares):
    """Shares that do not add up to 1 are refused."""
    with pytest.raises(InputError, match="Give shares from 0 to 1 that add up to 1"):
        splits.split(many(3), shares=shares)


def test_shares_of_ones_own():
    """A role that is not named gets nothing; names may be texts."""
    found = splits.split(many(10), shares={"train": 0.8, Role.TEST: 0.2})
    assert [found.counts[role] for role in Role] == [8, 0, 0, 2]
    assert found.shares == {"train": 0.8, "test": 0.2}
    with pytest.raises(InputError, match="none named 'tests'"):
        splits.split(many(3), shares={"tests": 1.0})


def test_classes_and_backgrounds_are_balanced():
    """At the default shares each role has its part of a common class, a rare one (2 %), and background."""
    samples = many(300, lambda n: [["owl"], ["owl"], []][n % 3] + (["fox"] if n % 50 == 0 else []))
    found = splits.split(samples)
    parts = [found.take(samples, role) for role in Role]
    assert all(part.box_counts["fox"] >= 1 for part in parts)
    for part, share in zip(parts, (0.6, 0.15, 0.15, 0.1), strict=True):
        for held, whole in (
            (len(part), 300),
            (part.backgrounds, samples.backgrounds),
            (part.box_counts["owl"], 200),
            (part.box_counts["fox"], 6),
        ):
            assert abs(held - share * whole) <= 1


def test_one_picture_is_never_in_two_roles():
    """Samples with the same picture under other names are one group."""
    items = [sample(f"s{n:02}", ["owl"], seed=n // 2) for n in range(40)]
    found = splits.split(Samples(items=items))
    assert all(found.roles[f"s{n:02}"] == found.roles[f"s{n + 1:02}"] for n in range(0, 40, 2))


# Samples are added


@given(sets(), sets(), st.integers(0, 2))
def test_what_had_a_role_keeps_it(old, new, seed):
    """When samples are added, every role of before stays, and new samples of a known group join it."""
    more = Samples(
        items=[*old, *(attrs.evolve(s, id=f"new {s.id}", picture=picture(n)) for n, s in enumerate(new))],
        class_names=CLASSES,
    )
    before = splits.split(old, seed=seed)
    after = splits.split(more, seed=seed + 1, previous=before)
    assert {name: after.roles[name] for name in before.roles} == before.roles
    known = {s.group: before.roles[s.id] for s in old}
    assert all(after.roles[s.id] == known[s.group] for s in more if s.group in known)


def test_a_renamed_picture_keeps_its_role():
    """A sample is known by its picture too, so that a test picture under another name does not become train."""
    old = many(30)
    before = splits.split(old)
    renamed = attrs.evolve(old, items=[attrs.evolve(s, id=f"x{s.id}", group=f"x{s.id}") for s in old])
    after = splits.split(renamed, previous=before, seed=5)
    assert after.roles == {f"x{name}": role for name, role in before.roles.items()}


def test_what_a_sample_is_known_by():
    """A sample keeps its role by its id alone, and joins that of its group though no other of the group is left."""
    old = attrs.evolve(many(30), items=[attrs.evolve(s, group=f"g{s.id}") for s in many(30)])
    before = splits.split(old)
    edited = [attrs.evolve(s, picture=picture(n), group="new " + s.id) for n, s in enumerate(old)]
    assert splits.split(attrs.evolve(old, items=edited), previous=before, seed=5).roles == before.roles
    others = [attrs.evolve(s, picture=picture(n), id="new " + s.id) for n, s in enumerate(old)]
    after = splits.split(attrs.evolve(old, items=others), previous=before, seed=5)
    assert after.roles == {f"new {name}": role for name, role in before.roles.items()}


def test_added_samples_bring_the_whole_near_the_shares():
    """Twice as many samples give twice as many of each role, whatever the former deal was."""
    old, more = many(50), many(100)
    before = splits.split(old, shares={"train": 1.0})
    after = splits.split(more, previous=before)
    assert [after.counts[role] for role in Role] == [60, 15, 15, 10]
    assert before.roles.items() <= after.roles.items()
    unshared = splits.split(more, shares={"test": 1.0}, previous=before)
    assert (unshared.counts[Role.TRAIN], unshared.counts[Role.TEST]) == (50, 50)


def test_a_group_that_links_two_roles_is_refused():
    """What was train and what was test cannot become one group afterwards: both are named."""
    old = many(20)
    before = splits.split(old)
    one = next(s for s in old if before.roles[s.id] == Role.TRAIN)
    other = next(s for s in old if before.roles[s.id] == Role.TEST)
    joined = [attrs.evolve(s, group="both") if s in (one, other) else s for s in old]
    with pytest.raises(RoleError, match="belong together") as caught:
        splits.split(attrs.evolve(old, items=joined), previous=before)
    assert set(caught.value.facts["samples"]) == {one.id, other.id}


# Taking


def test_only_what_was_split_is_taken():
    """A sample that is new, or whose picture was exchanged, has no role; corrected labels and chosen classes have."""
    samples = many(12)
    found = splits.split(samples)
    with pytest.raises(InputError, match=r"1 samples were not split.*'s012'"):
        found.take(many(13), "train")
    exchanged = [attrs.evolve(samples[0], picture=picture(999)), *samples[1:]]
    with pytest.raises(InputError, match="pictures are others now: 's000'"):
        found.take(attrs.evolve(samples, items=exchanged), "train")
    fewer = found.take(samples.choose({"bird": "owl"})[:6], "train")
    assert (fewer.class_names, fewer.role) == (("bird",), Role.TRAIN)
    assert {s.id for s in fewer} == {s.id for s in samples[:6] if found.roles[s.id] == Role.TRAIN}


def test_an_authors_own_lists():
    """Given ids have the given roles, and the shares are what they amount to."""
    samples = many(4)
    found = splits.given(samples, {"train": ["s000", "s001"], Role.TEST: ("s002", "s003")})
    assert found.roles == {"s000": "train", "s001": "train", "s002": "test", "s003": "test"}
    assert found.shares == {"train": 0.5, "select": 0, "calibrate": 0, "test": 0.5}
    assert codec.decode(Split, codec.encode(found), "a split") == found


@pytest.mark.parametrize(
    ("roles", "kind", "found"),
    [
        ({"train": ["s000", "s001", "s9"]}, InputError, "no sample has: 's9'; samples in no list: none"),
        ({"train": ["s000"]}, InputError, "no sample has: none; samples in no list: 's001'"),
        ({"train": ["s000", "s001"], "test": ["s001"]}, RoleError, "'s001' is in train and in test"),
        ({"train": ["s000"], "tset": ["s001"]}, InputError, "none named 'tset'"),
    ],
)
def test_lists_that_are_no_split(roles, kind, found):
    """Unknown ids, samples in no list, ids in two roles and unknown roles are refused by name."""
    with pytest.raises(kind, match=found):
        splits.given(many(2), roles)


def test_lists_that_tear_a_group_apart():
    """A recording, or one picture under two names, in two roles is refused."""
    grouped = samples_of(["owl"], ["owl"], groups=["day 1", "day 1"])
    same_picture = Samples(items=[sample("s000", seed=1), sample("s001", seed=1)])
    for samples in (grouped, same_picture):
        with pytest.raises(RoleError, match="'s001' is in test and 's000' in train, and they belong together"):
            splits.given(samples, {"train": ["s000"], "test": ["s001"]})


# Who may use what


def test_a_role_serves_its_own_work():
    """Samples of another role are refused; samples without a role, which nobody has split, are not."""
    samples = many(3)
    require(samples, Role.TRAIN, asked="train a head")
    require(samples.with_role(Role.TEST), Role.CALIBRATE, Role.TEST, asked="look")
    with pytest.raises(RoleError, match=r"cannot train a head: the samples have the role test\. Give .* role train"):
        require(samples.with_role("test"), Role.TRAIN, asked="train a head")
    with pytest.raises(RoleError, match="the role train or select, as"):
        require(samples.with_role("test"), Role.TRAIN, Role.SELECT, asked="train a head")


def test_two_sets_that_share_a_sample():
    """Sets share a sample by its id, and by its picture under another name."""
    samples = many(6)
    require_disjoint(samples[:3], samples[3:], asked="measure a head")
    renamed = attrs.evolve(samples[0], id="other", group="other")
    for one, name in ((samples[0], "s000"), (renamed, "other"), (attrs.evolve(samples[0], picture=picture(9)), "s000")):
        with pytest.raises(RoleError, match="cannot measure a head: 1 samples are in both sets") as caught:
            require_disjoint(samples[:3], Samples(items=[one]), asked="measure a head")
        assert caught.value.facts == {"shared": [name]}


# Few samples


def test_fewer_than_five_are_refused():
    """Five labelled samples of two groups are the least; background does not count."""
    check_enough(samples_of(*[["owl"]] * 5))
    for labels in ([], [["owl"]] * 4, [["owl"]] * 4 + [[]] * 9):
        with pytest.raises(InputError, match="have a box, and 5 are the least"):
            check_enough(samples_of(*labels))
    with pytest.raises(InputError, match="belong to one group"):
        check_enough(samples_of(*[["owl"]] * 6, [], groups=["day"] * 6 + ["night"]))


@pytest.mark.parametrize(("each", "least"), [(TOLD, 20), (TRUSTED, 50)])
def test_what_four_roles_need_of_each_class(each, least):
    """The smallest role, a tenth of all, has two of each class from 20 labelled groups on, and five from 50 on."""
    assert needed(each) == least
    assert fits_four_roles(samples_of(*[["owl"]] * least), each)
    assert not fits_four_roles(samples_of(*[["owl"]] * (least - 1), [], []), each)
    listed = attrs.evolve(samples_of(*[["owl"]] * least), class_names=("owl", "unused"))
    assert fits_four_roles(listed, each)  # what a data set lists and nobody labelled needs nothing
    assert not fits_four_roles(samples_of(*[["owl"]] * 60, *[["fox"]] * (least - 1)), each)
    assert thin_classes(samples_of(*[["owl"]] * 60, *[["fox"]] * (least - 1)), each) == {"fox": least - 1}
    assert not fits_four_roles(samples_of(*[["owl"]] * 60, groups=[f"g{n % (least - 1)}" for n in range(60)]), each)
    assert not fits_four_roles(Samples(class_names=["owl"]), each)
    assert not fits_four_roles(Samples(), each)
    dealt = splits.split(samples_of(*[["owl"]] * least))
    assert min(dealt.counts.values()) == each


@given(sets(least=1), st.integers(2, 6))
def test_folds_hold_each_sample_out_once(samples, count):
    """Every sample is held out exactly once, with its whole group, and learnt from in all other folds."""
    groups = {s.group for s in samples}
    if len(groups) < 2:
        with pytest.raises(InputError, match="of 1 groups were asked for"):
            folds(samples, count=count)
        return
    made = folds(samples, count=count)
    assert len(made) == min(count, len(groups))
    assert sorted(s.id for _train, held_out in made for s in held_out) == sorted(s.id for s in samples)
    for train, held_out in made:
        assert (train.role, held_out.role) == (Role.TRAIN, None)
        assert not {s.group for s in train} & {s.group for s in held_out}
        assert len(train) + len(held_out) == len(samples)
        assert len(train)
        assert len(held_out)


def test_folds_are_balanced_and_depend_on_the_seed():
    """Each of five folds holds a fifth of each class and of the background; order does not matter, the seed does."""
    samples = many(50, lambda n: [["owl"], ["owl", "fox"], [], [], ["fox"]][n % 5])
    made = folds(samples)
    assert all((len(part), part.box_counts, part.backgrounds) == (10, {"fox": 4, "owl": 4}, 4) for _train, part in made)
    again = folds(samples[np.random.default_rng(0).permutation(50)])
    assert [{s.id for s in part} for _train, part in again] == [{s.id for s in part} for _train, part in made]
    assert [part for _train, part in folds(samples, seed=1)] != [part for _train, part in made]
    with pytest.raises(InputError, match="1 folds of 50 groups"):
        folds(samples, count=1)
