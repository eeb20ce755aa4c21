"""The examples run as they stand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "labels_to_promoted_version.ipynb"
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


RUN_NOTEBOOK = """
import sys
import nbclient, nbformat
book = nbformat.read(sys.argv[1], as_version=4)
place = {"metadata": {"path": sys.argv[2]}}
nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
nbformat.write(book, sys.argv[3])
"""


def test_the_notebook_goes_from_labels_to_a_promoted_version(tmp_path):
    """Each cell of the notebook runs; a version is promoted; plots, boxes and misses are drawn."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, str(NOTEBOOK), str(EXAMPLES), str(tmp_path / "run.ipynb")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "HYDRA_DETECT_CACHE": str(tmp_path / "cache"), "IPYTHONDIR": str(tmp_path / "ipython")},
    )
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads((tmp_path / "run.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    assert "wbc@1: promoted" in "".join("".join(output.get("text", "")) for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3 + 1 + 3


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
