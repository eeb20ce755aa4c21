"""What a temperature costs that is fitted to few candidates, with and without what is known of temperatures beforehand.

    python benchmarks/temperature.py

Scores are drawn so that a known T is right; 300 temperatures are fitted to so many candidates each, and judged by the
mean negative log-likelihood of 20,000 others. No data set is needed. The figures are in docs/decisions/0020.
"""

import numpy as np

from hydra_detect.measure import calibration
from hydra_detect.measure.calibration import LOWEST_TEMPERATURE, apply_temperature, negative_log_likelihood


def drawn(source, right, count):
    """Return scores for which this T is right, and whether each is a hit."""
    chances = np.clip(source.beta(0.15, 0.15, count), 0.001, 0.999)
    return apply_temperature(chances, 1 / right), source.random(count) < chances


def cost(right, count, spread):
    """Return the loss without calibration, the mean loss with it, and the share of fits that end at the lowest T."""
    source, kept = np.random.default_rng(count), calibration.USUAL_SPREAD
    calibration.USUAL_SPREAD = spread
    scores, hits = drawn(source, right, 20_000)
    fitted = [calibration.fit_temperature(*drawn(source, right, count)) for _ in range(300)]
    calibration.USUAL_SPREAD = kept
    losses = [negative_log_likelihood(apply_temperature(scores, one), hits) for one in fitted]
    ended = np.isclose(fitted, LOWEST_TEMPERATURE, rtol=1e-3).mean()
    return negative_log_likelihood(scores, hits), np.mean(losses), ended


def main():
    """Print a line for each right T and number of candidates."""
    for right in (1.0, 2.0, 0.5):
        for count in (10, 20, 30, 300):
            untouched, alone, ended = cost(right, count, 1e9)
            _same, usual, ends = cost(right, count, calibration.USUAL_SPREAD)
            print(
                f"T {right} is right, {count:>3} candidates: NLL {untouched:.3f} uncalibrated; by likelihood alone "
                f"{alone:.3f}, {ended:.0%} at the end; with what is usual {usual:.3f}, {ends:.0%}"
            )


if __name__ == "__main__":
    main()
