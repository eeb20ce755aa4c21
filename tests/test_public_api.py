"""The public names: there, lazy, typed, documented, and quiet on import."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hydra_detect

ROOT = Path(hydra_detect.__file__).parent

NAMES = """
    About Detections Digest GroundTruth HeadRecord HeadRef HeadRegistry HeadSettings HydraDetectError HydraDetector
    OperatingPolicy Preprocessing SplitSettings Store VersionManager VersionRecord Samples TrainingConfig calibrate
    compare_with_original compress_head evaluate expand_head export_bundle list_augmentations list_losses load_bundle
    merge_checkpoint pull pull_backbone push push_backbone read_samples split_checkpoint to_torchvision train_head
    train_original verify
"""


def python(code, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout.strip()


def test_the_public_names():
    """The names at the top are these: one that goes or comes is a change that users are told of."""
    assert hydra_detect.__all__ == sorted(NAMES.split())


@pytest.mark.parametrize("name", hydra_detect.__all__)
def test_each_public_name_loads_and_is_documented(name):
    """Every public name can be imported, has a docstring, and every argument of a function is named in it."""
    value = getattr(hydra_detect, name)
    assert value.__doc__
    assert name in dir(hydra_detect)
    if inspect.isfunction(value):
        for argument in inspect.signature(value).parameters:
            assert f"{argument}:" in value.__doc__, argument


def test_the_types_name_the_same_things():
    """What type checkers see is exactly what is there when it runs."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.asname: f"{node.module}" for node in block.body for alias in node.names}
    assert typed == {name: f"hydra_detect.{home}" for name, home in hydra_detect._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error():
    """A name that is not there fails as in any module, and the version is that of the distribution."""
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = hydra_detect.nothing_of_the_kind
    assert hydra_detect.__version__.count(".") == 2


def test_importing_is_quick_and_loads_nothing_heavy():
    """Importing takes under 0.15 s of the processor (the best of five), and brings in neither torch nor numpy."""
    code = "import time; t = time.process_time(); import hydra_detect; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(5)) < 0.15
    assert (
        python("import sys, hydra_detect; print([m for m in ('torch', 'numpy', 'attrs', 'PIL') if m in sys.modules])")
        == "[]"
    )


def test_importing_changes_nothing_in_the_process():
    """Environment, folder, warning filters, signal handlers, root logger and torch's settings stay as they were."""
    code = """
import os, sys, warnings, logging, signal, torch
# what these change is not ours
import torchvision.models.detection, safetensors.torch, PIL.Image, cattrs, filelock
def state():
    return (dict(os.environ), os.getcwd(), list(warnings.filters), logging.root.level, list(logging.root.handlers),
            signal.getsignal(signal.SIGINT), torch.get_num_threads(), torch.get_default_dtype(),
            torch.is_grad_enabled(), torch.random.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled())
before = state()
import hydra_detect
for name in hydra_detect.__all__:
    getattr(hydra_detect, name)
print([a == b for a, b in zip(before, state())])
"""
    assert python(code) == str([True] * 11)


def test_the_torch_free_rooms_stay_free_of_torch():
    """Heads, versions, formats and the command line's listing work without torch being imported."""
    code = """
import sys
import hydra_detect.registry, hydra_detect.versions, hydra_detect.storage.store, hydra_detect.drawing
import hydra_detect.formats.coco, hydra_detect.formats.lines, hydra_detect.formats.voc, hydra_detect.formats.yolo
import hydra_detect.measure.matching, hydra_detect.measure.promotion, hydra_detect.pictures
import hydra_detect.storage.check, hydra_detect.storage.repair, hydra_detect.storage.usage
import hydra_detect.storage.renaming, hydra_detect.overview, hydra_detect.comparison, hydra_detect.history
import hydra_detect.watching, hydra_detect.cli.commands, hydra_detect.arriving
import hydra_detect.hub.push, hydra_detect.hub.pull, hydra_detect.hub.searching, hydra_detect.hub.pretrained
print([m for m in ('torch', 'torchvision', 'huggingface_hub') if m in sys.modules])
"""
    assert python(code) == "[]"


def processor_seconds():
    """Return the processor time of all child processes that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def test_listing_heads_takes_under_half_a_second(split_store):
    """`hydra-detect heads` takes under 0.5 s of the processor (the best of three): the rest is what others do."""
    seconds = []
    for _ in range(3):
        begin = processor_seconds()
        subprocess.run(
            [sys.executable, "-m", "hydra_detect", "heads", "--store", str(split_store), "--json"],
            check=True,
            capture_output=True,
        )
        seconds.append(processor_seconds() - begin)
    assert min(seconds) < 0.5, seconds


def test_every_test_says_in_one_sentence_what_it_holds():
    """Each test function has a docstring of one sentence."""
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = ast.get_docstring(node)
                assert said, f"{path.name}: {node.name}"
                assert said.rstrip().endswith("."), f"{path.name}: {node.name}"
