"""Stratify: each part gets its share of every class, groups stay whole, and nothing is random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.data.groups import connected
from hydra_detect.data.stratify import _count, _Table, deal

SHARES = [0.6, 0.15, 0.15, 0.1]


def alone(count):
    """Return groups of one sample each."""
    return [[n] for n in range(count)]


def counts(present, groups, parts):
    """Return [part, class] samples."""
    part_of = {sample: part for group, part in zip(groups, parts, strict=True) for sample in group}
    return np.array([present[[part_of[n] == part for n in range(len(present))]].sum(axis=0) for part in range(4)])


@st.composite
def tables(draw):
    """Draw [sample, class] and groups of the samples."""
    samples, classes = draw(st.integers(0, 40)), draw(st.integers(0, 4))
    rows = st.lists(st.booleans(), min_size=classes, max_size=classes)
    present = draw(st.lists(rows, min_size=samples, max_size=samples))
    names = draw(st.lists(st.integers(0, 12), min_size=samples, max_size=samples))
    groups = [[n for n, name in enumerate(names) if name == one] for one in sorted(set(names))]
    return np.array(present, dtype=bool).reshape(samples, classes), groups


def test_empty_first():
    """No samples are dealt to no part, and samples without classes by number alone."""
    assert deal(np.zeros((0, 0), dtype=bool), [], shares=SHARES) == []
    assert deal(np.zeros((0, 3), dtype=bool), [], shares=[1.0]) == []
    assert sorted(deal(np.zeros((10, 0), dtype=bool), alone(10), shares=[0.5, 0.5])) == [0] * 5 + [1] * 5


@given(tables())
def test_every_group_gets_one_open_part(table):
    """Each group is dealt to one part that has a share; with as many groups as parts, none stays empty."""
    present, groups = table
    parts = deal(present, groups, shares=[0.7, 0, 0.2, 0.1])
    assert len(parts) == len(groups)
    assert set(parts) <= {0, 2, 3}
    assert len(set(parts)) == min(3, len(groups))
    assert deal(present, groups, shares=[0.7, 0, 0.2, 0.1]) == parts


@given(tables())
def test_what_is_left_is_counted_as_it_goes(table):
    """The running counts of what waits are those of a fresh count, so that no deal has to look at the whole again."""
    counts, plain = _count(*table)
    laid = _Table.of(counts, plain, SHARES)
    for group in range(len(counts)):
        assert laid.left.tolist() == (counts[laid.waiting] > 0).sum(axis=0).tolist()
        laid.put(group, group % 4)
    assert not laid.left.any()


@given(tables(), st.data())
def test_what_is_fixed_stays(table, data):
    """Groups that are in a part already stay there, even in one that has no share."""
    present, groups = table
    fixed = data.draw(st.lists(st.integers(-1, 3), min_size=len(groups), max_size=len(groups)))
    parts = deal(present, groups, shares=[0.7, 0, 0.2, 0.1], fixed=fixed)
    assert all(part == before for part, before in zip(parts, fixed, strict=True) if before >= 0)
    assert all(part != 1 for part, before in zip(parts, fixed, strict=True) if before < 0)


@pytest.mark.parametrize("groups", range(1, 9))
def test_the_fewest_groups(groups):
    """Four groups fill four parts, fewer the largest parts first, and each further one goes where it lacks."""
    parts = deal(np.ones((groups, 1), dtype=bool), alone(groups), shares=SHARES)
    expected = {1: [1, 0, 0, 0], 2: [1, 1, 0, 0], 3: [1, 1, 1, 0], 4: [1, 1, 1, 1], 5: [2, 1, 1, 1]}
    assert np.bincount(parts, minlength=4).tolist() == expected.get(groups, [groups - 3, 1, 1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_comes_to_every_part(seed):
    """Of 400 samples with a class in 2 % and others in up to 60 %, every part has its share of each to one or two."""
    chance = np.random.default_rng(seed)
    present = chance.random((400, 4)) < [0, 0.1, 0.3, 0.6]
    present[chance.choice(400, 8, replace=False), 0] = True
    found = counts(present, alone(400), deal(present, alone(400), shares=SHARES))
    assert found[:, 0].min() >= 1
    assert np.abs(found - np.outer(SHARES, present.sum(axis=0))).max() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_classes_are_balanced(seed):
    """Where half of the samples of two classes have both, every part has its share of those with both."""
    both, one, other = (np.tile(row, (60, 1)) for row in ([True, True], [True, False], [False, True]))
    present = np.random.default_rng(seed).permutation(np.concatenate([both, one, other]))
    parts = np.array(deal(present, alone(180), shares=SHARES))
    held = [int(present[parts == part].all(axis=1).sum()) for part in range(4)]
    assert held == [36, 9, 9, 6]


@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_are_balanced(seed):
    """Recordings of 1 to 12 samples keep together, and every part has its share of each class within a recording."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 13, 60)
    groups = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    present = chance.random((int(sizes.sum()), 3)) < [0.05, 0.3, 0.5]
    found = counts(present, groups, deal(present, groups, shares=SHARES))
    assert np.abs(found - np.outer(SHARES, present.sum(axis=0))).max() <= 6


def test_backgrounds_are_a_class():
    """Every part gets its share of the pictures without a box."""
    present = np.array([[True]] * 60 + [[False]] * 40)
    parts = np.array(deal(present, alone(100), shares=SHARES))
    assert np.bincount(parts[60:]).tolist() == [24, 6, 6, 4]
    rare = np.random.default_rng(0).random((400, 3)) < 0.5
    rare[~rare.any(axis=1), 0] = True
    rare[:4] = False
    assert sorted(deal(rare, alone(400), shares=SHARES)[:4]) == [0, 1, 2, 3]


def test_many_classes_are_dealt_all_the_same():
    """More pairs of classes than are balanced do no harm to the classes themselves."""
    present = np.random.default_rng(0).random((300, 40)) < 0.2
    found = counts(present, alone(300), deal(present, alone(300), shares=SHARES))
    assert (found > 0).all()
    assert np.abs(found - np.outer(SHARES, present.sum(axis=0))).max() <= 5


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=15))
def test_connected_is_the_finest_partition_that_keeps_shared_keys(keys):
    """Items that share a key are together, items of different groups share none, and no group falls into two."""
    groups = connected(keys)
    assert sorted(item for group in groups for item in group) == list(range(len(keys)))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    own = [{key for item in group for key in keys[item]} for group in groups]
    assert sum(map(len, own)) == len(set().union(*own))
    for group in groups:
        reached, left = set(keys[group[0]]), set(group[1:])
        while joined := {item for item in left if reached & set(keys[item])}:
            reached |= {key for item in joined for key in keys[item]}
            left -= joined
        assert not left
