"""The operating policy in the detector: calibrated scores, thresholds per class, raw scores for who wants them."""

import attrs
import lifecycle_fixtures
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lifecycle_fixtures import give, scene, with_backbone

from hydra_detect import HydraDetector
from hydra_detect.answers import LoadedHead, Reading
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.policy import accepted
from hydra_detect.records import OperatingPolicy

bare = lifecycle_fixtures.bare

FLOOR = lifecycle_fixtures.SETTINGS.score_threshold
TWO = ("lamp", "ember")
PICTURES = [scene(number, "lamp", "ember")[0] for number in range(4)]


def policy(threshold=FLOOR, **facts):
    """Return an operating policy."""
    return OperatingPolicy(score_threshold=threshold, **facts)


def detector(store, *heads):
    """Return a detector with some heads."""
    return HydraDetector.from_store(store, heads, device="cpu")


def raw(store, name="lamp"):
    """Return all that a head finds above its floor, with raw scores, for each picture."""
    return detector(store, name).predict(PICTURES, score_threshold={name: _floor(store, name)}, raw_scores=True)


def _floor(store, name):
    read = detector(store, name).heads[name].record.policy
    return float(apply_temperature([FLOOR], read.temperature)[0])


def same_boxes(one, other):
    """Tell whether two detections are the same but for their scores and the time that they took."""
    return attrs.evolve(one, scores=other.scores, timing=other.timing) == other


@pytest.fixture
def lamp(bare):
    """Return what publishes the same two-class head with a policy and makes it active."""

    def publish(own, name="lamp", seed=3):
        give(bare, name, seed=seed, classes=TWO, operating_policy=own)
        return bare

    return publish


def test_no_policy_and_one_that_changes_nothing_are_the_same(lamp):
    """With temperature 1 and the head's own threshold every bit is as it is without a policy."""
    before = detector(lamp(None), "lamp").predict(PICTURES)
    after = detector(lamp(policy()), "lamp").predict(PICTURES)
    assert all(len(found) > 10 for found in before)
    for one, other in zip(before, after, strict=True):
        assert one.scores.tobytes() == other.scores.tobytes()
        assert same_boxes(attrs.evolve(one, head_versions=other.head_versions), other)


def test_nothing_found_is_nothing_calibrated(lamp):
    """Where nothing counts there are no detections, with whatever policy."""
    found = detector(lamp(policy(1.0, temperature=2.0)), "lamp").predict(PICTURES)
    assert [len(one) for one in found] == [0] * len(PICTURES)


@pytest.mark.parametrize("temperature", [0.25, 0.7, 1.0, 2.0, 16.0])
def test_scores_are_calibrated(lamp, temperature):
    """Scores are sigmoid(logit(raw) / T); boxes, their order and what else is known of them stay."""
    store = lamp(policy(0.0, temperature=temperature))
    for one, other in zip(raw(store), detector(store, "lamp").predict(PICTURES), strict=True):
        assert other.scores.tobytes() == apply_temperature(one.scores, temperature).tobytes()
        assert same_boxes(one, other)
        assert (np.diff(one.scores) <= 0).all()
        assert (np.diff(other.scores) <= 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_each_class_counts_from_its_own_threshold(lamp, temperature):
    """A box counts if its calibrated score is at least its class's threshold: as `accepted` has it in measuring."""
    plain = np.concatenate([one.scores for one in raw(lamp(None))])
    low, high = apply_temperature(np.quantile(plain, [0.4, 0.8]), temperature).tolist()
    own = policy(low, temperature=temperature, class_thresholds={"ember": high})
    store = lamp(own)
    for one, other in zip(raw(store), detector(store, "lamp").predict(PICTURES), strict=True):
        counts = accepted(one.scores, one.label_names, policy=own)
        assert same_boxes(one[counts], other)
        assert 0 < len(other) < len(one)
    assert {name for one in raw(store) for name in one.label_names} == set(TWO)


def test_raw_scores_are_of_the_same_boxes(lamp):
    """With `raw_scores` the same boxes come with the network's own scores."""
    store = lamp(policy(0.4, temperature=2.0))
    both = detector(store, "lamp")
    read, own = both.predict(PICTURES[0]), both.predict(PICTURES[0], raw_scores=True)
    assert len(read) > 0
    assert same_boxes(read, own)
    assert read.scores.tolist() == apply_temperature(own.scores, 2.0).tolist()
    assert read.scores.tolist() != own.scores.tolist()
    none = detector(lamp(None), "lamp")
    assert none.predict(PICTURES[0], raw_scores=True).scores.tolist() == none.predict(PICTURES[0]).scores.tolist()


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("given_threshold", [0.3, 0.5, 0.55])
def test_a_given_threshold_is_of_calibrated_scores(lamp, temperature, given_threshold):
    """A threshold that is given takes the place of the policy's, for all classes: calibrated scores above it count."""
    store = lamp(policy(0.9, temperature=temperature, class_thresholds={"ember": 0.95}))
    loaded = detector(store, "lamp")
    for asked in (given_threshold, {"lamp": given_threshold}):
        for one, other in zip(raw(store), loaded.predict(PICTURES, score_threshold=asked), strict=True):
            counts = apply_temperature(one.scores, temperature) > given_threshold
            assert same_boxes(one[counts], other)
    assert loaded.predict(PICTURES[0], score_threshold={}) == loaded.predict(PICTURES[0])


@pytest.mark.parametrize("temperature", [0.25, 1.0, 16.0])
def test_a_threshold_of_0_gives_all_that_there_is(lamp, temperature):
    """With 0 nothing is held back, whatever the temperature: also what is calibrated to all but nothing."""
    every = detector(lamp(None), "lamp").predict(PICTURES, score_threshold=0.0)
    store = lamp(policy(0.5, temperature=temperature))
    found = detector(store, "lamp").predict(PICTURES, score_threshold=0.0, raw_scores=True)
    assert [len(one) for one in found] == [len(one) for one in every]


def test_policies_of_two_heads_do_not_disturb_each_other(lamp):
    """What a head finds is the same alone and beside one with another policy, in whatever order."""
    store = lamp(policy(0.2, temperature=0.5))
    lamp(policy(0.45, temperature=4.0, class_thresholds={"lamp": 0.46}), "owl", seed=5)
    alone = {name: detector(store, name).predict(PICTURES[0]) for name in ("lamp", "owl")}
    assert all(len(found) for found in alone.values())
    for order in (("lamp", "owl"), ("owl", "lamp")):
        found = detector(store, *order).predict(PICTURES[0]).by_head()
        assert {name: found[name] for name in order} == alone
    both = detector(store, "lamp", "owl").predict(PICTURES[0], score_threshold={"owl": 0.9}).by_head()
    assert both["lamp"] == alone["lamp"]


def test_one_by_one_in_batches_and_streamed(lamp):
    """Batches and streams are read by the same policy as a picture alone."""
    store = lamp(policy(0.22, temperature=0.6, class_thresholds={"ember": 0.25}))
    loaded = detector(store, "lamp")
    alone = [loaded.predict(one) for one in PICTURES]
    assert list(loaded.predict(PICTURES, stream=True)) == alone
    for one, other in zip(alone, loaded.predict(PICTURES, batch_size=3), strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_swapping_a_version_swaps_its_policy(lamp):
    """A detector that goes to another version of a head reads its scores by that version's policy."""
    store = lamp(policy(0.0, temperature=0.5))
    lamp(policy(0.0, temperature=2.0))
    loaded = detector(store, "lamp@1")
    one = loaded.predict(PICTURES[0])
    loaded.swap("lamp@2")
    other = loaded.predict(PICTURES[0])
    assert apply_temperature(loaded.predict(PICTURES[0], raw_scores=True).scores, 0.5).tolist() == one.scores.tolist()
    assert other.scores.tolist() != one.scores.tolist()


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A published version, whose record a test gives other policies."""
    store = with_backbone(tmp_path_factory.mktemp("one"))
    return give(store, "lamp", classes=TWO)


def loaded_with(version, own):
    """Return a head as a detector holds it, but for its network, with a policy."""
    record = attrs.evolve(version.record, operating_policy=own)
    return LoadedHead(attrs.evolve(version, record=record), None, follows=False)


@given(
    st.floats(0.0101, 1),
    st.floats(0.05, 50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.none() | st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-7]),
)
def test_every_box_that_counts_is_above_what_the_network_looks_at(version, score, temperature, low, high, asked):
    """The network may pass over boxes early, and never over one that would count."""
    own = policy(low, temperature=temperature, class_thresholds={"ember": high})
    loaded = loaded_with(version, own)
    score = float(np.float32(score))
    calibrated = float(apply_temperature([score], temperature)[0])
    counts = accepted([score], ["ember"], policy=own)[0] if asked is None else calibrated > asked
    assume(counts)
    assert score > Reading(asked).least_raw("lamp", loaded)


@pytest.mark.parametrize("own", [policy(0.0), policy(0.4, temperature=16.0), policy(0.001, temperature=2.0)])
def test_what_lies_below_the_floor_was_never_measured(version, own):
    """Where a threshold means less than the head's floor, the network looks no further, unless it is asked to."""
    loaded = loaded_with(version, own)
    assert Reading().least_raw("lamp", loaded) == FLOOR
    assert Reading(0.0).least_raw("lamp", loaded) == 0.0
