"""The moving average of weights."""

import pytest
import torch
from torch import nn

from hydra_detect.training.average import follow


def modules():
    """Return a module with weights of 1 and statistics of 2, and an average of it that is 0 everywhere."""
    both = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    for module, weight, statistic in zip(both, (1.0, 0.0), (2.0, 0.0), strict=True):
        for value in module.parameters():
            nn.init.constant_(value, weight)
        module.running_mean.fill_(statistic)
        module.running_var.fill_(statistic)
    both[0].num_batches_tracked.fill_(5)
    return both


@pytest.mark.parametrize(
    ("step", "decay", "kept"), [(1, 0.99, 0.1), (1, 0.05, 0.05), (41, 0.99, 0.82), (9999, 0.9, 0.9)]
)
def test_how_much_is_kept(step, decay, kept):
    """An average keeps its share of itself, and less of it in the first steps; statistics go the same way."""
    module, average = modules()
    follow(average, module, step=step, decay=decay)
    assert average.weight.tolist() == pytest.approx([1 - kept] * 2)
    assert average.bias.tolist() == pytest.approx([1 - kept] * 2)
    assert average.running_var.tolist() == pytest.approx([2 * (1 - kept)] * 2)


def test_without_decay_it_is_a_copy():
    """A decay of 0 copies, and whole numbers are always copied; what is followed is not changed."""
    module, average = modules()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    follow(average, module, step=7, decay=0.0)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(average.state_dict()[name], value)
    follow(average, module, step=1, decay=0.99)
    assert average.num_batches_tracked == 5
    assert average.weight.grad_fn is None
