"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
HEAVY = {"train_original", "build_demo_data"}  # an hour of training, and what turns it into package data


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in HEAVY))
def test_each_example_runs(name, tmp_path):
    """An example ends without an error, prints something, and leaves its folder clean."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning:hydra_detect"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_each_heavy_example_explains_itself(name):
    """The heavy examples start and print their usage."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "--data" in done.stdout


def test_the_original_of_the_demo_trains():
    """The training script learns from a few of the demo's photographs and writes a checkpoint that splits."""
    import random

    import torch

    sys.path.insert(0, str(EXAMPLES))
    import train_original

    from hydra_detect.demo.run import DATA, _labels
    from hydra_detect.pictures import open_picture

    torch.manual_seed(0)
    random.seed(0)
    samples = []
    for path in sorted((DATA / "pictures").iterdir())[:2]:
        pixels = torch.from_numpy(open_picture(path).pixels * 255).to(torch.uint8)
        samples.append((pixels, torch.from_numpy(_labels()[path.name].only("RBC").boxes.copy())))
    model = train_original.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    best, history = train_original.fit(model, samples, samples, epochs=1, rate=1e-3, batch=2, frozen=False)
    assert history[0]["loss"] > 0
    assert any(not torch.equal(before[name], value) for name, value in best["model"].state_dict().items())
    best["model"].backbone.requires_grad_(requires_grad=False)
    frozen = {name: value.clone() for name, value in best["model"].backbone.state_dict().items()}
    later, _ = train_original.fit(best["model"], samples, samples, epochs=1, rate=1e-3, batch=2, frozen=True)
    assert all(torch.equal(frozen[name], value) for name, value in later["model"].backbone.state_dict().items())
