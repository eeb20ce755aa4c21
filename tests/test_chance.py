"""Chance: random numbers from a seed, and the caller's as they were."""

import pytest
import torch

from hydra_detect.training.chance import restore, seeded, states

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="about the state of a GPU")


def test_the_caller_goes_on_as_if_nothing_was_drawn():
    """However much is drawn inside, and even if it ends in an error, the numbers outside go on."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = torch.rand(2)
    with seeded(5):
        torch.rand(100)
    with pytest.raises(KeyError, match="owl"), seeded(6):
        raise KeyError("owl")
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_inside_numbers_come_from_the_seed():
    """Inside they are those that torch gives for that seed, nested or not."""
    torch.manual_seed(8)
    expected = torch.rand(3)
    with seeded(8):
        first = torch.rand(1)
        with seeded(8):
            assert torch.equal(torch.rand(3), expected)
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


@NEEDS_GPU
def test_a_gpu_that_is_not_named_is_left_alone():
    """The numbers of a GPU are drawn from the seed where it is named, and untouched where it is not."""
    cuda, before = CUDA, torch.cuda.get_rng_state(CUDA)
    with seeded(1):
        assert torch.equal(torch.cuda.get_rng_state(cuda), before)
    with seeded(1, cuda):
        one = torch.rand(3, device=cuda)
    assert torch.equal(torch.cuda.get_rng_state(cuda), before)
    with seeded(1, cuda):
        assert torch.equal(torch.rand(3, device=cuda), one)


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=NEEDS_GPU)])
def test_numbers_go_on_from_where_they_stood(device):
    """What is kept of the random numbers, restored, gives the same numbers again, on the CPU and on the device."""

    def draw():
        return torch.rand(3).tolist(), torch.rand(3, device=device).tolist()

    kept = states(device)
    expected = draw()
    assert draw() != expected
    restore(kept, device)
    assert draw() == expected
    restore({"cpu": kept["cpu"]}, device)
    assert draw()[0] == expected[0]
