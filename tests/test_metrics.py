"""Metrics: everything measured of a head, at its operating point and over all candidates, as one record."""

import json
import math
import time

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_fixtures import CLASSES, SIZE, crowd, detect, perfect, pictures

from hydra_detect import codec
from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.errors import InputError, RecordError
from hydra_detect.measure.average_precision import average_precisions
from hydra_detect.measure.calibration import (
    apply_temperature,
    calibration_at,
    expected_calibration_error,
    negative_log_likelihood,
)
from hydra_detect.measure.confusion import Confusion, confuse
from hydra_detect.measure.matching import Counts, count
from hydra_detect.measure.metrics import Metrics, Precisions, measure
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.policy import accepted, fit_policy
from hydra_detect.measure.promotion import NONE_ACTIVE, Measurement, decide
from hydra_detect.measure.sweep import sweep
from hydra_detect.names import Digest
from hydra_detect.records import OperatingPolicy

POLICY = OperatingPolicy(score_threshold=0.5)
SAMPLES = Digest("a" * 64)
RATES = ("precision", "recall", "f1")
policies = st.builds(
    OperatingPolicy,
    score_threshold=st.floats(0, 1),
    temperature=st.floats(0.3, 3),
    class_thresholds=st.dictionaries(st.sampled_from(CLASSES), st.floats(0, 1)),
)


def quick(both, **changes):
    """Measure with few draws."""
    arguments = {"class_names": CLASSES, "policy": POLICY, "draws": 20}
    return measure(*both, **(arguments | changes))


def counts_of(performance):
    """Return the counts of a performance."""
    return Counts(
        true_positives=performance.true_positives,
        false_positives=performance.false_positives,
        false_negatives=performance.false_negatives,
    )


def round_trip(metrics):
    """Return a record as it reads back."""
    return codec.decode(Metrics, codec.encode(metrics), "metrics")


def test_empty_first():
    """No pictures give figures of 0 counts, no average precision, no interval, nothing to claim, and a record."""
    none = quick(([], []), samples_digest=SAMPLES)
    assert (none.samples, none.labels, none.groups) == (0, 0, 0)
    assert counts_of(none.micro) == Counts()
    assert none.micro.average_precision == none.macro.average_precision == Precisions()
    assert none.macro.f1.low is None
    assert none.figures() == {}
    assert none.calibration is None
    assert "scores on these pictures" not in str(none)
    assert math.isnan(none.measurement().f1)
    assert not decide(none.measurement(), NONE_ACTIVE)
    assert round_trip(none) == none
    background = quick(([detect([], [])], [GroundTruth([], [], SIZE)]))
    assert (background.samples, background.figures()) == (1, {})
    assert quick(([], []), class_names=[]).classes == ()


@settings(max_examples=25)
@given(pictures(), policies)
def test_counts_are_those_of_matching_what_is_accepted(both, policy):
    """Per class and over all, the counts are those of matching the accepted detections alone."""
    found = quick(both, policy=policy)
    kept = [d[accepted(d.scores, d.label_names.tolist(), policy=policy)] for d in both[0]]
    assert counts_of(found.micro) == count(kept, both[1])
    for one in found.classes:
        own = count([d.filter(label_names=[one.name]) for d in kept], [t.only(one.name) for t in both[1]])
        assert counts_of(one) == own
        assert (one.rates.precision.value, one.rates.recall.value) == (own.precision, own.recall)
        assert one.rates.f1.value == own.f1
        assert one.threshold == policy.threshold(one.name)
    assert round_trip(found) == found


@settings(max_examples=25)
@given(pictures(least=1))
def test_perfect_detections_give_1(both):
    """Detections equal to the labels have precision, recall, F1 and average precisions of 1."""
    truths = both[1]
    found = quick(([perfect(truth) for truth in truths], truths))
    figures = found.figures()
    assert figures == (pytest.approx(dict.fromkeys(figures, 1.0)) if found.labels else {})
    assert len(figures) == (6 if found.labels else 0)
    if found.labels:
        assert found.macro.f1.value == 1


@settings(max_examples=25)
@given(st.integers(0, 9), st.randoms(use_true_random=False))
def test_picture_order_does_not_matter(seed, random):
    """Pictures in another order, groups with them, have the same figures and the same intervals."""
    both = crowd(seed, pictures=9)
    groups = [f"slide {place // 2}" for place in range(9)]
    order = list(range(9))
    random.shuffle(order)
    shuffled = tuple([column[place] for place in order] for column in both)
    here = quick(both, groups=groups)
    there = quick(shuffled, groups=[groups[place] for place in order])
    assert here.figures() == pytest.approx(there.figures())
    assert (here.macro, here.confusion, here.sweep) == (there.macro, there.confusion, there.sweep)
    assert here.micro.rates == there.micro.rates


@settings(max_examples=25)
@given(pictures())
def test_repeating_detections_never_adds_a_hit(both):
    """The detections twice find no more than once where each lies on one label only, and raise false alarms."""
    truths = both[1]
    once = [perfect(truth) for truth in truths]
    twice = quick(([Detections.concat([found] * 2) for found in once], truths))
    assert twice.micro.true_positives == twice.labels == twice.micro.false_positives


def test_the_parts_are_those_of_their_modules():
    """Average precision, sweep and confusion look at all candidates, or at the policy, as their modules do."""
    both = crowd()
    policy = OperatingPolicy(score_threshold=0.4, temperature=1.5)
    found = quick(both, policy=policy)
    library = average_precisions(*both, class_names=CLASSES)
    for place, one in enumerate(found.classes):
        precisions = one.average_precision
        assert precisions.ap50.value == library.ap50[place]
        assert (precisions.ap75, precisions.ap) == (library.ap75[place], library.ap[place])
    for overall, expected in ((found.micro, library.pooled), (found.macro, library.means)):
        precisions = overall.average_precision
        assert (precisions.ap50.value, precisions.ap75, precisions.ap) == expected
    assert library.pooled != library.means
    assert found.sweep == sweep(judge(*both, class_names=CLASSES), temperature=1.5).on_grid(policy)
    assert found.confusion == confuse(*both, class_names=CLASSES, policy=policy)
    assert found.sweep.micro.true_positives[40] == found.micro.true_positives
    assert (found.policy, found.iou, found.micro.threshold) == (policy, 0.5, 0.4)
    own = attrs.evolve(policy, class_thresholds={"owl": 0.6})
    assert quick(both, policy=own).micro.threshold is None


def test_macro_is_the_mean_over_classes_with_labels():
    """A class without labels is noted, and is no part of the mean."""
    both = crowd()
    found = quick(both, class_names=(*CLASSES, "unseen"))
    shares = [one.rates.f1.value for one in found.classes[:2]]
    assert found.macro.f1.value == pytest.approx(sum(shares) / 2)
    precisions = [one.average_precision for one in found.classes[:2]]
    assert found.macro.average_precision.ap50.value == pytest.approx(sum(one.ap50.value for one in precisions) / 2)
    assert found.macro.average_precision.ap == pytest.approx(sum(one.ap for one in precisions) / 2)
    assert found.notes == ("no labelled box of class unseen: its figures say nothing",)
    assert found.classes[2].average_precision.ap is None
    assert found.macro == quick(both).macro


def test_intervals_hold_their_figures_and_narrow():
    """Every interval holds its figure, is narrower on more pictures, and comes again with the same seed."""
    few, many = quick(crowd(pictures=12), draws=400), quick(crowd(pictures=100), draws=400)
    pairs = [(one.rates, other.rates) for one, other in zip(few.classes, many.classes, strict=True)]
    pairs += [(few.micro.rates, many.micro.rates), (few.macro, many.macro)]
    figures = [(getattr(one, name), getattr(other, name)) for one, other in pairs for name in RATES]
    pairs = zip((*few.classes, few.micro, few.macro), (*many.classes, many.micro, many.macro), strict=True)
    figures += [(one.average_precision.ap50, other.average_precision.ap50) for one, other in pairs]
    assert len(figures) == 16
    for small, large in figures:
        assert small.low <= small.value <= small.high
        assert large.low <= large.value <= large.high
        assert large.high - large.low < small.high - small.low
    again = quick(crowd(pictures=12), draws=400)
    assert again == few
    assert quick(crowd(pictures=12), draws=400, seed=1).micro.rates != few.micro.rates


def test_intervals_need_groups():
    """Pictures of one group have no interval; few groups are noted, ten are not; no draws give no interval."""
    both = crowd(pictures=12)
    one = quick(both, groups=["slide"] * 12)
    assert (one.groups, one.micro.rates.f1.low, one.micro.average_precision.ap50.low) == (1, None, None)
    assert one.notes[0].startswith("intervals from 1 groups are too narrow")
    assert quick(both).notes == ()
    assert quick(both, groups=[str(k % 9) for k in range(12)]).notes[0].startswith("intervals from 9 groups")
    assert quick(both, draws=0).micro.rates.f1.low is None


def test_calibration_and_threshold_work_together():
    """Raw scores with a fitted policy have the F1 that the policy was chosen for."""
    both = crowd()
    policy = fit_policy(judge(*both, class_names=CLASSES), temperature=2.0, per_class=False)
    found = quick(both, policy=policy)
    raw = quick(both, policy=fit_policy(judge(*both, class_names=CLASSES), per_class=False))
    assert found.micro.rates.f1.value == pytest.approx(raw.micro.rates.f1.value)
    assert found.sweep != raw.sweep


def test_calibration_is_judged_on_these_pictures():
    """The errors of calibration are those of the judged pictures, raw and as the policy reads them."""
    outcomes = judge(*crowd(1), class_names=CLASSES)
    policy = fit_policy(judge(*crowd(0), class_names=CLASSES), temperature=0.7)
    found = quick(crowd(1), policy=policy)
    assert found.calibration == calibration_at(outcomes, 0.7)
    assert found.calibration.before.ece == expected_calibration_error(outcomes.scores, outcomes.hits)
    read = apply_temperature(outcomes.scores, 0.7)
    assert found.calibration.after.nll == negative_log_likelihood(read, outcomes.hits)
    assert f"ECE {found.calibration.before.ece:.3f} raw, {found.calibration.after.ece:.3f} calibrated" in str(found)


def test_cross_validated_scores_are_not_raw():
    """By cross-validation the scores are those of several heads on one scale: of their calibration nothing is said."""
    found = quick(crowd(), method="cross-validation")
    assert found.calibration is None
    assert "scores on these pictures" not in str(found)
    assert attrs.evolve(found, method="held-out", calibration=quick(crowd()).calibration) == quick(crowd())


# For promotion, records and people


def test_short_figures_are_those_of_all_classes():
    """The figures to claim are numbers under short names, each as JSON has it."""
    found = quick(crowd())
    figures = found.figures()
    assert list(figures) == ["precision", "recall", "f1", "ap50", "ap75", "ap"]
    assert figures["f1"] == found.micro.rates.f1.value
    assert figures["ap"] == found.macro.average_precision.ap  # COCO's: the mean over the classes
    assert figures["ap50"] == found.macro.average_precision.ap50.value != found.micro.average_precision.ap50.value
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_what_a_promotion_is_decided_by():
    """The measurement is F1 over all classes and the digest of the samples, without which there is none."""
    found = quick(crowd(), samples_digest=SAMPLES)
    assert found.measurement() == Measurement(f1=found.micro.rates.f1.value, samples=SAMPLES)
    with pytest.raises(InputError, match="do not say on which samples"):
        quick(crowd()).measurement()


def test_it_is_a_record():
    """It reads back as it was written, digest and method too, and is plain JSON values."""
    found = quick(crowd(), samples_digest=SAMPLES, method="cross-validation")
    assert round_trip(found) == found
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (plain["method"], plain["samples_digest"]) == ("cross-validation", str(SAMPLES))
    with pytest.raises(RecordError, match=r"the method is 'guessed'\. Give one of: held-out, cross-validation"):
        quick(crowd(), method="guessed")


def test_a_record_of_before_is_read():
    """What was stored without errors of calibration and without a mean of average precision is read, as not known."""
    plain = quick(crowd()).to_dict()
    del plain["calibration"], plain["macro"]["average_precision"]
    found = codec.from_dict(Metrics, plain, "metrics")
    assert (found.calibration, found.macro.average_precision) == (None, Precisions())
    assert list(found.figures()) == ["precision", "recall", "f1"]
    assert attrs.evolve(found, calibration=quick(crowd()).calibration, macro=quick(crowd()).macro) == quick(crowd())


def test_it_prints_a_table():
    """A line says what was measured, then a line per class and for all, and every number stands in its column."""
    truth = GroundTruth([(0, 0, 10, 10), (50, 50, 90, 90)], ["owl", "fox"], SIZE)
    found = detect([(0, 0, 10, 10), (200, 200, 300, 300)], ["owl", "owl"], [0.9, 0.8])
    lines = str(quick(([found], [truth]))).splitlines()
    assert lines[0] == ("1 samples in 1 groups, 2 labelled boxes; held-out; IoU 0.5; temperature 1.000; 95 % intervals")
    assert [line.split() for line in lines[1:6]] == [
        ["threshold", "labels", "TP", "FP", "FN", "precision", "recall", "F1", "AP50", "AP75", "AP"],
        ["owl", "0.500", "1", "1", "1", "0", "0.500", "1.000", "0.667", "1.000", "1.000", "1.000"],
        ["fox", "0.500", "1", "0", "0", "1", "0.000", "0.000", "0.000", "0.000", "0.000", "0.000"],
        ["all", "classes", "0.500", "2", "1", "1", "1", "0.500", "0.500", "0.500", "0.505", "0.505", "0.505"],
        ["mean", "of", "classes", "0.250", "0.500", "0.333", "0.500", "0.500", "0.500"],
    ]
    raw = -(math.log(0.9) + math.log(0.2)) / 2  # of a hit at 0.9 and a false alarm at 0.8
    said = f"ECE 0.450 raw, 0.450 calibrated; NLL {raw:.3f} raw, {raw:.3f} calibrated"
    assert lines[6:11] == [
        "confusion: a row is what was labelled, a column what it was detected as",
        "            owl  fox  background",
        "owl           1    0           0",
        "fox           0    0           1",
        "background    1    0           0",
    ]
    assert lines[11] == f"scores on these pictures: {said}"
    assert lines[12].startswith("note: intervals from 1 groups")


def test_it_prints_the_confusion_of_one_class_or_of_many_in_a_line():
    """One class needs no table, and of many it would be too wide: a line says what was found, missed and false."""

    def said(counts):
        names = [f"owl {number}" for number in range(len(counts) - 1)]
        shown = attrs.evolve(quick(crowd(pictures=3)), confusion=Confusion(class_names=names, counts=counts))
        return [line for line in str(shown).splitlines() if "confusion" in line or line.startswith("background")]

    many = np.zeros((12, 12), dtype=int)
    many[0, 0], many[0, 3], many[1, -1], many[-1, 2] = 5, 2, 3, 4
    assert said(many.tolist()) == ["confusion: 5 found, 2 taken for another class, 3 missed, 4 false"]
    assert said([[5, 3], [4, 0]]) == ["confusion: 5 found, 3 missed, 4 false"]
    assert said([[0]]) == ["confusion: 0 found, 0 missed, 0 false"]


@pytest.mark.parametrize(("count", "share"), [(1, "95%"), (3, "63%"), (12, "22%"), (59, "5%")])
def test_nothing_wrong_in_a_few_groups(count, share):
    """An interval from 1 to 1 is no certainty: the figures say how often something may be wrong all the same."""
    right = (*[detect([(0, 0, 10, 10)], ["owl"], [0.9]) for _ in range(count)],)
    truths = [GroundTruth([(0, 0, 10, 10)], ["owl"], SIZE)] * count
    note = f"nothing is wrong in {count} groups: in up to {share} of others like them something may be"
    assert quick((right, truths)).notes[-1] == note
    missed = [*truths[1:], GroundTruth([(0, 0, 10, 10), (20, 20, 40, 40)], ["owl", "owl"], SIZE)]
    assert not any("nothing is wrong" in one for one in quick((right, missed)).notes)


def test_what_cannot_be_measured_is_refused():
    """Unequal lengths, unknown classes and less than no draws are errors."""
    with pytest.raises(InputError, match="detections of 1 pictures and labels of 0"):
        quick(([detect([], [])], []))
    with pytest.raises(InputError, match="is of class 'owl'"):
        quick(crowd(pictures=3), class_names=["fox"])
    with pytest.raises(InputError, match="the number of draws is -5"):
        quick(crowd(pictures=3), draws=-5)


def test_a_thousand_pictures_are_measured_within_a_second():
    """Everything but the bootstrap, of 1,000 pictures, takes less than a second of a core: the best of three runs."""
    both = crowd(pictures=1000, most=25)

    def seconds():
        began = time.process_time()  # which no other process adds to
        quick(both, draws=0)
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) < 1


def test_draws_are_of_groups():
    """Pictures of one slide are drawn together: their interval is wider than of pictures drawn one by one."""
    source = np.random.default_rng(3)
    truths, found = [], []
    for slide in range(12):
        for _ in range(6):
            corner = source.uniform(0, 800, 2)
            truths.append(GroundTruth([(*corner, *(corner + 50))], ["owl"], SIZE))
            found.append(perfect(truths[-1]) if slide % 2 else detect([], []))
    slides = [str(place // 6) for place in range(72)]
    together = measure(found, truths, class_names=["owl"], policy=POLICY, groups=slides, draws=500)
    alone = measure(found, truths, class_names=["owl"], policy=POLICY, draws=500)
    for name in ("recall", "f1"):
        wide, narrow = getattr(together.micro.rates, name), getattr(alone.micro.rates, name)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    wide, narrow = together.micro.average_precision.ap50, alone.micro.average_precision.ap50
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_group_is_drawn_whole():
    """Of two slides, one found and one missed, a draw has both, the first twice or the second twice."""
    truths = [GroundTruth([(0, 0, 10, 10)], ["owl"], SIZE)] * 12
    found = [perfect(truth) for truth in truths[:6]] + [detect([], [])] * 6
    slides = ["good"] * 6 + ["bad"] * 6
    one = measure(found, truths, class_names=["owl"], policy=POLICY, groups=slides, draws=100).micro
    for figure in (one.rates.recall, one.average_precision.ap50):
        assert (figure.low, figure.high) == (0, pytest.approx(1))
        assert figure.value == pytest.approx(0.5, abs=0.01)
