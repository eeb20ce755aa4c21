"""Crosswise: what counts by the common policy is what counted by the own."""

import attrs
import numpy as np
import strategies
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.crosswise import as_read_by
from hydra_detect.measure.policy import accepted
from hydra_detect.records import OperatingPolicy


@st.composite
def policies(draw):
    """Draw a policy by which a score of 1 counts, and one of 0 does not."""
    temperature = draw(st.sampled_from([0.25, 1.0, 16.0]) | st.floats(0.01, 100))
    lowest, highest = apply_temperature([0.0, 1.0], temperature).tolist()
    between = st.floats(lowest, highest, exclude_min=True)
    return OperatingPolicy(
        score_threshold=draw(between),
        temperature=temperature,
        class_thresholds=draw(st.dictionaries(st.sampled_from(strategies.LABELS), between)),
    )


found_by_a_head = strategies.detections(names=st.sampled_from(strategies.LABELS))


@given(st.lists(found_by_a_head, max_size=3), policies(), policies())
def test_a_detection_counts_by_the_common_policy_exactly_when_it_does_by_its_own(found, own, common):
    """Whatever two policies are, what counts by a fold's own policy, and nothing else, counts by the common one."""
    read = as_read_by(own, found, common)
    for before, after in zip(found, read, strict=True):
        counts = accepted(before.scores, before.label_names, policy=own)
        assert accepted(after.scores, after.label_names, policy=common).tolist() == counts.tolist()
        assert attrs.evolve(after, scores=before.scores) == before


@given(found_by_a_head, policies(), policies())
def test_reading_keeps_the_order_of_each_class(found, own, common):
    """Of two detections of one class the better is never the worse one afterwards: precision is taken in that order."""
    (read,) = as_read_by(own, [found], common)
    for name in set(found.label_names):
        chosen = found.label_names == name
        order = np.argsort(found.scores[chosen], kind="stable")
        assert (np.diff(read.scores[chosen][order]) >= 0).all()


@given(found_by_a_head, policies())
def test_reading_by_the_same_policy_changes_nothing(found, own):
    """Where a fold's policy is the common one, scores stay what they are."""
    (read,) = as_read_by(own, [found], own)
    np.testing.assert_allclose(read.scores, found.scores, atol=1e-6)
