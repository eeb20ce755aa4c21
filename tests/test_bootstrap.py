"""Bootstrap: whole groups drawn with replacement, the same for the same seed, and the intervals that follow."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect import codec
from hydra_detect.errors import InputError
from hydra_detect.measure.bootstrap import Figure, Groups, figure, rates
from hydra_detect.measure.matching import Counts

names = st.lists(st.sampled_from("abcd"), max_size=12)


def test_empty_first():
    """No pictures are no groups; of fewer than two groups nothing is drawn."""
    none = Groups.of([])
    assert (none.count, none.draw(5, seed=0).shape, none.add_up(np.zeros((0, 2, 3), dtype=int)).shape) == (
        0, (0, 0), (0, 2, 3),
    )  # fmt: skip
    assert Groups.of(["a", "a"]).draw(5, seed=0).shape == (0, 1)
    assert Groups.of(["a", "b"]).draw(0, seed=0).shape == (0, 2)


@given(names, st.integers(0, 20), st.integers(0, 9))
def test_draws_are_as_many_groups_as_there_are(pictures, draws, seed):
    """Each draw has as many groups as there are, none a fraction or less than nothing; a seed repeats itself."""
    groups = Groups.of(pictures)
    drawn = groups.draw(draws, seed=seed)
    assert groups.count == len(set(pictures))
    assert (drawn.sum(axis=1) == groups.count).all()
    assert (drawn >= 0).all()
    assert np.array_equal(drawn, groups.draw(draws, seed=seed))


@given(names)
def test_counts_add_up_by_group(pictures):
    """The counts of pictures of one name are added up, and nothing is lost."""
    counts = np.arange(len(pictures) * 2).reshape(-1, 2)
    total = Groups.of(pictures).add_up(counts)
    for place, name in enumerate(sorted(set(pictures))):
        assert total[place].tolist() == counts[[other == name for other in pictures]].sum(axis=0).tolist()
    assert total.sum() == counts.sum()


def test_drawing_is_drawing_with_replacement():
    """Each group is drawn once on average and is missing from a share (1 - 1/G)^G of the draws."""
    drawn = Groups.of([str(k) for k in range(10)]).draw(20_000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose((drawn == 0).mean(axis=0), 0.9**10, atol=0.015)
    assert not np.array_equal(drawn[:100], Groups.of([str(k) for k in range(10)]).draw(100, seed=2))


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 3), max_size=5))
def test_rates_are_those_of_counts(rows):
    """Precision, recall and F1 are those of `Counts`, and NaN where that has 0 for want of anything."""
    found = rates(np.array(rows).reshape(-1, 3))
    for place, (hits, alarms, missed) in enumerate(rows):
        counts = Counts(true_positives=hits, false_positives=alarms, false_negatives=missed)
        wholes = (hits + alarms, hits + missed, hits + alarms + missed)
        expected = (counts.precision, counts.recall, counts.f1)
        for values, share, whole in zip(found, expected, wholes, strict=True):
            assert values[place] == share if whole else math.isnan(values[place])


def test_an_interval_holds_95_percent_of_the_draws():
    """The interval is from the 2.5th to the 97.5th percentile, draws without a figure left out."""
    found = figure(0.5, np.append(np.linspace(0, 1, 1001), [np.nan] * 500))
    assert (found.value, found.low, found.high) == (0.5, pytest.approx(0.025), pytest.approx(0.975))
    for draws in (np.zeros(0), np.array([np.nan])):
        assert figure(0.5, draws) == Figure(value=0.5)


def test_intervals_are_right_about_19_times_in_20():
    """Of many samples of a known share, about 95 % of the intervals hold it."""
    source = np.random.default_rng(0)
    groups = Groups.of([str(k) for k in range(60)])
    holding = 0
    for trial in range(200):
        hits = source.binomial(5, 0.7, 60)
        counts = np.stack([hits, np.zeros(60, dtype=int), 5 - hits], axis=1)
        recall = figure(hits.sum() / 300, rates(groups.draw(300, seed=trial) @ counts)[1])
        holding += recall.low <= 0.7 <= recall.high
    assert 180 <= holding <= 199


def test_alike_pictures_make_an_interval_wider():
    """Pictures drawn in groups of alike ones give a wider interval than drawn one by one."""
    counts = np.repeat([(1, 0, 0), (0, 0, 1)] * 5, 10, axis=0)  # ten groups of ten pictures, found all or none

    def width(names):
        groups = Groups.of(names)
        found = figure(0.5, rates(groups.draw(2000, seed=0) @ groups.add_up(counts))[1])
        return found.high - found.low

    assert width([str(k // 10) for k in range(100)]) > 2 * width([str(k) for k in range(100)])


def test_it_prints_as_people_write():
    """A figure prints with its interval, or without where there is none; it is a record."""
    assert str(Figure(value=0.9534, low=0.915, high=0.986)) == "0.953 (0.915 to 0.986)"
    assert str(Figure(value=1)) == "1.000"
    found = Figure(value=0.5, low=0.25, high=1.0)
    assert codec.decode(Figure, codec.encode(found), "a figure") == found


def test_draws_are_counted():
    """Less than no draws are refused."""
    with pytest.raises(InputError, match="the number of draws is -1"):
        Groups.of(["a", "b"]).draw(-1, seed=0)


def test_a_seed_below_nothing_is_none():
    """It is refused with what to give, as where samples are dealt."""
    with pytest.raises(InputError, match=r"the seed is -1\. Give a whole number from 0"):
        Groups.of(["a", "b"]).draw(5, seed=-1)


def test_ten_thousand_draws_are_quick():
    """10,000 draws of 100 groups, counts of three classes, take well under a second of a core: best of three runs."""
    groups = Groups.of([str(k) for k in range(100)])
    counts = np.random.default_rng(0).integers(0, 9, (100, 9))

    def seconds():
        began = time.process_time()  # which no other process adds to
        rates((groups.draw(10_000, seed=0) @ counts).reshape(-1, 3, 3))
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) < 1
