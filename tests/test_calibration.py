"""Calibration: one temperature that never changes an order, and errors of calibration as others compute them."""

import math
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from measure_fixtures import CLASSES, crowd, table

from hydra_detect import codec
from hydra_detect.errors import ExtraMissingError, InputError
from hydra_detect.measure import calibration
from hydra_detect.measure.calibration import (
    Calibration,
    apply_temperature,
    calibrate,
    calibration_at,
    detection_calibration_error,
    expected_calibration_error,
    fit_temperature,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability,
)
from hydra_detect.measure.outcomes import judge

ENDS = [0.0, 1.0, 2.0**-149, 2.0**-24, 2.0**-25, 1 - 2.0**-24, 1 - 2.0**-23, 0.5]
score = st.floats(0, 1, width=32) | st.sampled_from(ENDS)
scores = arrays.arrays(np.float32, st.integers(0, 60), elements=score)
temperatures = st.floats(calibration.LOWEST_TEMPERATURE, calibration.HIGHEST_TEMPERATURE)
anything_above_0 = st.floats(1e-3, 1e3)


@st.composite
def judged(draw):
    """Draw scores and whether each is a hit."""
    drawn = draw(scores)
    return drawn, np.array(draw(st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn))), dtype=bool)


def graded(count=2000, *, temperature=2.0):
    """Return scores that are too sure (or not sure enough) by this temperature, and hits."""
    source = np.random.default_rng(0)
    chances = source.uniform(0.02, 0.98, count)
    return apply_temperature(chances, 1 / temperature), source.random(count) < chances


# Applying a temperature


@given(scores)
def test_a_temperature_of_one_is_identity(values):
    """At T = 1 every bit of every score stays."""
    assert apply_temperature(values, 1.0).tobytes() == values.tobytes()
    assert apply_temperature(values, 1).dtype == np.float32


@given(scores, anything_above_0)
def test_the_order_never_changes(values, temperature):
    """No two scores change places, whatever the temperature and however extreme they are."""
    calibrated = apply_temperature(np.sort(values), temperature)
    assert calibrated.dtype == np.float32
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


@given(st.floats(0, 1, width=32), temperatures)
def test_neighbours_in_float32_never_change_places(value, temperature):
    """Two scores that differ by the last bit do not change places either."""
    pair = [value, min(float(np.nextafter(np.float32(value), np.float32(2))), 1.0)]
    assert np.diff(apply_temperature(pair, temperature))[0] >= 0


@given(scores, temperatures)
def test_there_and_back(values, temperature):
    """One over T undoes T, as far as float32 can tell, which near 1 is not far; half stays half."""
    inner = values[(values > 0.05) & (values < 0.95)]
    back = apply_temperature(apply_temperature(inner, temperature), 1 / temperature)
    np.testing.assert_allclose(back, inner, atol=1e-4)
    assert apply_temperature([0.5], temperature).tolist() == [0.5]


def test_a_temperature_softens_or_sharpens():
    """Above 1 scores move towards one half, below 1 away from it, by sigmoid(logit(s) / T)."""
    expected = 1 / (1 + math.exp(-math.log(0.9 / 0.1) / 2))
    np.testing.assert_allclose(apply_temperature([0.9, 0.1], 2.0), [expected, 1 - expected], rtol=1e-6)
    assert apply_temperature([0.9], 0.5)[0] > 0.9
    assert apply_temperature([], 2.0).tolist() == []


def test_the_ends_count_as_the_resolution_of_float32():
    """0 and 1 have no logit: they count as 2**-24 from the ends."""
    assert apply_temperature([0, 1], 2.0).tolist() == apply_temperature([2.0**-24, 1 - 2.0**-24], 2.0).tolist()
    assert 0 < apply_temperature([0], 2.0)[0] < 1e-3


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_impossible_temperatures(temperature):
    """A temperature that is no positive number is refused."""
    with pytest.raises(InputError, match="the temperature is"):
        apply_temperature([0.5], temperature)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_impossible_scores(value):
    """A score that is no probability is refused by every function."""
    for function in (
        lambda: apply_temperature([value], 2),
        lambda: fit_temperature([value], [True]),
        lambda: negative_log_likelihood([value], [True]),
        lambda: expected_calibration_error([value], [True]),
    ):
        with pytest.raises(InputError, match=r"a score is NaN or outside \[0, 1\]"):
            function()


def test_one_hit_or_miss_per_score():
    """Columns of different lengths are refused."""
    with pytest.raises(InputError, match="2 scores and 1 hits"):
        fit_temperature([0.5, 0.5], [True])
    with pytest.raises(InputError, match=r"1 scores, and places of shape \[2, 4\]"):
        detection_calibration_error([0.5], [True], np.zeros((2, 4)))


# Fitting


@given(judged())
def test_the_likelihood_never_gets_worse(both):
    """On what it was fitted on, the fitted temperature is never worse than none."""
    values, hits = both
    temperature = fit_temperature(values, hits)
    before = calibration._loss(calibration.logits(values.astype(np.float64)), hits)
    after = calibration._loss(calibration.logits(values.astype(np.float64)) / temperature, hits)
    assert after <= before or math.isnan(before)
    assert temperature == 1 or calibration.LOWEST_TEMPERATURE <= temperature <= calibration.HIGHEST_TEMPERATURE


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_a_known_temperature_is_found(temperature):
    """Scores that are too sure by T are calibrated by about T, and nothing near serves better: there are many."""
    values, hits = graded(20_000, temperature=temperature)
    found = fit_temperature(values, hits)
    assert found == pytest.approx(temperature, rel=0.1)
    best = negative_log_likelihood(apply_temperature(values, found), hits)
    for other in (0.98, 1.02):
        assert negative_log_likelihood(apply_temperature(values, found * other), hits) > best


def test_float32_scores_fit_as_well_as_float64():
    """Scores in float32 give the temperature that they give in float64."""
    values, hits = graded()
    assert fit_temperature(values.astype(np.float32), hits) == fit_temperature(values.astype(np.float64), hits) != 1


def test_the_search_has_an_end():
    """Where hits and misses are parted without error, or by nothing at all, the search ends at its bounds."""
    parted = np.array([0.4] * 100 + [0.6] * 100)
    assert fit_temperature(parted, parted > 0.5) == pytest.approx(calibration.LOWEST_TEMPERATURE, rel=1e-4)
    sure = np.array([0.001] * 1000 + [0.999] * 1000)
    assert fit_temperature(sure, [True, False] * 1000) == pytest.approx(calibration.HIGHEST_TEMPERATURE, rel=1e-4)


@pytest.mark.parametrize("count", [10, 20, 30, 100])
def test_few_candidates_make_no_head_sure_of_itself(count):
    """Where scores are chances already, fitting to a few of them costs next to nothing on all others.

    The likelihood alone, of candidates that few labels separate by chance, would end at 0.25 for four in ten sets.
    """
    source = np.random.default_rng(count)

    def drawn(number):
        values = np.clip(source.beta(0.15, 0.15, number), 0.001, 0.999)
        return values, source.random(number) < values

    others = drawn(20_000)
    untouched = negative_log_likelihood(*others)
    fitted = [fit_temperature(*drawn(count)) for _ in range(100)]
    losses = [negative_log_likelihood(apply_temperature(others[0], found), others[1]) for found in fitted]
    assert np.mean(losses) < 1.05 * untouched
    assert min(fitted) > 0.4


def test_what_is_parted_cleanly_by_few_is_made_little_surer():
    """Eight hits well above ten misses, as a good head has on a few pictures: no sign of certainty where none was."""
    values = np.array([*np.linspace(0.9, 0.98, 8), *np.linspace(0.05, 0.3, 10)])
    temperature = fit_temperature(values, values > 0.5)
    assert 0.5 < temperature < 1
    assert apply_temperature([0.6], temperature)[0] < 0.7


def test_nothing_to_learn_from():
    """Without candidates, with fewer than ten, with only hits or with none, the temperature is 1."""
    assert fit_temperature([], []) == 1
    assert fit_temperature([0.9] * 9, [True, False, False] * 3) == 1
    assert fit_temperature([0.9] * 10, [True, False] * 5) != 1
    assert fit_temperature([0.9] * 50, [True] * 50) == 1
    assert fit_temperature([0.9] * 50, [False] * 50) == 1


def test_scipy_is_an_extra(monkeypatch):
    """Without scipy the error tells which extra to install."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ExtraMissingError, match=r"cannot fit a temperature: .*hydra-detect\[train\]"):
        fit_temperature([0.5], [True])


def test_the_end_of_the_search_is_told():
    """Whoever reads a calibration sees that the best temperature may lie beyond."""
    outcomes = judge(*crowd(4), class_names=CLASSES)
    assert "where the search ends" in str(calibration_at(outcomes, calibration.LOWEST_TEMPERATURE))
    assert "where the search ends" not in str(calibration_at(outcomes, 0.3))


# Errors of calibration


@pytest.mark.parametrize("bins", [0, -1])
def test_no_bins(bins):
    """Without a bin there is no error of calibration to tell."""
    with pytest.raises(InputError, match=f"there are {bins} bins. Give at least 1"):
        expected_calibration_error([0.5], [True], bins=bins)
    with pytest.raises(InputError, match=f"there are {bins} bins"):
        detection_calibration_error([0.5], [True], np.zeros((1, 4)), bins=bins)


def plain_errors(values, hits, bins):
    """ECE and MCE, written slowly from their definition."""
    gaps, shares = [], []
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        here = [k for k, v in enumerate(values) if low <= v < high or (place == bins - 1 and v == 1)]
        if here:
            gaps.append(abs(sum(values[k] for k in here) - sum(bool(hits[k]) for k in here)) / len(here))
            shares.append(len(here) / len(values))
    return sum(gap * share for gap, share in zip(gaps, shares, strict=True)), max(gaps)


@given(judged(), st.sampled_from([1, 4, 8, 16]))
def test_they_are_what_their_definitions_give(both, bins):
    """ECE and MCE equal a slow reference; bins of powers of two have exact edges."""
    values, hits = both
    assume(len(values))
    ece, mce = plain_errors(values.astype(np.float64).tolist(), hits.tolist(), bins)
    assert expected_calibration_error(values, hits, bins=bins) == pytest.approx(ece, abs=1e-12)
    assert maximum_calibration_error(values, hits, bins=bins) == pytest.approx(mce, abs=1e-12)


def test_they_equal_torchmetrics_and_netcal():
    """The figures that torchmetrics 1.9.0 (ECE, MCE) and netcal 1.4.0 (all, in float64) gave for these numbers."""
    numbers = range(60)
    values = [round(((k * 37) % 101) / 101, 6) for k in numbers]
    hits = [(k * k) % 7 < 3 for k in numbers]
    places = [[((k * 13) % 17) / 17, ((k * 5) % 19) / 19, ((k * 3) % 11) / 23, ((k * 7) % 13) / 29] for k in numbers]
    assert expected_calibration_error(values, hits) == pytest.approx(0.3660065, abs=1e-14)
    assert maximum_calibration_error(values, hits) == pytest.approx(0.9683168, abs=1e-14)
    assert detection_calibration_error(values, hits, places, least=1) == pytest.approx(0.5221121666666666, abs=1e-14)
    assert detection_calibration_error(values, hits, places, bins=2, least=1) == pytest.approx(0.3498348, abs=1e-14)


@given(judged())
def test_without_place_d_ece_is_ece(both):
    """Where all boxes lie in one place, D-ECE is ECE with as many bins."""
    values, hits = both
    places = np.full((len(values), 4), 0.3)
    found = detection_calibration_error(values, hits, places, bins=5, least=1)
    assert found == pytest.approx(expected_calibration_error(values, hits, bins=5), nan_ok=True)


def test_d_ece_sees_what_ece_averages_out():
    """Too sure on the left and not sure enough on the right: ECE is 0, D-ECE is not."""
    values, hits = [0.5] * 40, [True] * 20 + [False] * 20
    places = [(0.1, 0.5, 0.1, 0.1)] * 20 + [(0.9, 0.5, 0.1, 0.1)] * 20
    assert expected_calibration_error(values, hits) == 0
    assert detection_calibration_error(values, hits, places) == 0.5
    beyond = [(-0.2, 0.5, 0.1, 0.1)] * 20 + [(1.3, 0.5, 0.1, 0.1)] * 20
    assert detection_calibration_error(values, hits, beyond) == 0.5


def test_thin_bins_are_left_out():
    """Bins of fewer candidates than `least` say nothing; where none is left there is no figure."""
    values, hits = [0.5] * 8 + [0.9], [False] * 8 + [False]
    places = np.zeros((9, 4))
    assert detection_calibration_error(values, hits, places) == 0.5
    assert math.isnan(detection_calibration_error(values, hits, places, least=9))


def test_no_candidates_have_no_error():
    """Without candidates there is no figure, and a diagram without bins."""
    for error in (expected_calibration_error, maximum_calibration_error, negative_log_likelihood):
        assert math.isnan(error([], []))
    assert math.isnan(detection_calibration_error([], [], np.zeros((0, 4))))
    assert reliability([], []) == ()


def test_likelihood_of_known_chances():
    """The loss is the mean of -log of what was given to what happened; a certain error costs 24 log 2."""
    expected = -(math.log(0.9) + math.log(0.8)) / 2
    assert negative_log_likelihood([0.9, 0.2], [True, False]) == pytest.approx(expected)
    assert negative_log_likelihood([1.0], [False]) == pytest.approx(24 * math.log(2))


@given(judged())
def test_bins_of_a_diagram(both):
    """The bins hold every candidate once, in order, and each mean lies in its bin."""
    values, hits = both
    found = reliability(values, hits)
    assert sum(one.candidates for one in found) == len(values)
    assert sum(one.candidates * one.precision for one in found) == pytest.approx(hits.sum())
    assert [one.low for one in found] == sorted({one.low for one in found})
    for one in found:
        assert one.low - 1e-12 <= one.confidence <= one.high + 1e-12


def test_edges_belong_to_the_bin_above():
    """A score on an edge falls into the bin that begins there, and 1 into the last one."""
    found = reliability([0, 0.25, 0.5, 0.75, 1], [True] * 5, bins=4)
    assert [(one.low, one.candidates) for one in found] == [(0, 1), (0.25, 1), (0.5, 1), (0.75, 2)]


# As one record


def test_calibrating_a_head():
    """The record says what was fitted on, and that calibration is better after than before."""
    found = judge(*crowd(), class_names=CLASSES)
    record = calibrate(found)
    assert (record.candidates, record.hits) == (len(found), found.hits.sum())
    assert record.temperature == fit_temperature(found.scores, found.hits) != 1
    assert record.after.nll < record.before.nll
    assert record.after.ece < record.before.ece
    assert record.before.ece == expected_calibration_error(found.scores, found.hits)
    assert record.before.d_ece == detection_calibration_error(found.scores, found.hits, found.places)
    assert codec.decode(Calibration, codec.encode(record), "a calibration") == record
    assert str(record).startswith(f"temperature {record.temperature:.3f} on {len(found)} candidates, ")
    assert f"NLL {record.before.nll:.4f} to {record.after.nll:.4f}" in str(record)


def test_a_temperature_on_other_candidates():
    """Of a temperature from elsewhere the record tells what it changes here, be it for the worse."""
    found = judge(*crowd(), class_names=CLASSES)
    record = calibration_at(found, 8.0)
    assert (record.temperature, record.candidates) == (8, len(found))
    assert record.before == calibrate(found).before
    assert record.after.ece == expected_calibration_error(apply_temperature(found.scores, 8.0), found.hits)
    assert record.after.nll > record.before.nll


def test_calibrating_nothing():
    """A head that found nothing has temperature 1 and figures that are not known."""
    record = calibrate(table([], [], missed=2))
    assert (record.temperature, record.candidates, record.before.ece) == (1, 0, None)
    assert codec.decode(Calibration, codec.encode(record), "a calibration") == record
    assert str(record) == (
        "temperature 1.000 on 0 candidates, 0 of them hits: ECE unknown to unknown, MCE unknown to unknown, "
        "D-ECE unknown to unknown, NLL unknown to unknown"
    )
