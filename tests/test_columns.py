"""Columns: the shares that every figure of this room is made of."""

import math

import numpy as np

from hydra_detect.measure import columns


def test_empty_first():
    """Of no parts there are no shares."""
    assert columns.shares([], []).tolist() == []


def test_shares_of_nothing():
    """Where the whole is nothing the share is what the caller says, 0 unless another is named, and nothing warns."""
    assert columns.shares([1, 0], [4, 0]).tolist() == [0.25, 0]
    np.testing.assert_array_equal(columns.shares([1, 0], [4, 0], otherwise=math.nan), [0.25, math.nan])


def test_one_share():
    """A single part of a single whole is one number."""
    assert float(columns.shares(1, 2)) == 0.5
    assert float(columns.shares(0, 0)) == 0
