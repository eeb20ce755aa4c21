"""Hostile safetensors files: each is decoded to something that holds together, or refused as damaged, and soon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import headers
import pytest

from hydra_detect.errors import CheckpointError, CorruptError
from hydra_detect.storage import artifacts
from hydra_detect.tensors import RawTensor

HERE = Path(__file__).parent
CORPUS = {
    "axis-is-true": "an entry that an artifact cannot hold",
    "axis-of-four-thousand-digits": "9999 is no size",
    "axis-that-wraps-to-one": "4611686018427387905 is no size",
    "byte-order-mark": "BOM",
    "empty-tensor-inside-another": "overlap or leave a hole",
    "half-a-surrogate": "surrogates not allowed",
    "hole-filled-by-nothing": "overlap or leave a hole",
    "length-of-all-ones": "claims 18446744073709551615 bytes",
    "name-twice-once-escaped": "a key stands twice",
    "not-a-number": "NaN is not JSON",
    "offset-is-a-float": "4.0 is no size",
    "offset-is-a-power": "4e0 is no size",
    "seventy-deep": "nests deeper than 64",
    "trailing-byte": "1 bytes follow its last tensor",
    "zero-beside-eighteen-digits": "an entry that an artifact cannot hold",
    "zero-beside-two-to-the-63rd": "9223372036854775808 is no size",
    "zero-beside-two-to-the-70th": "1180591620717411303424 is no size",
}
"""Files that once were accepted by us or by other readers, or cost too much: name to what is now said of them."""
LEGAL = {
    "legal-blanks-behind": {"a": RawTensor("F32", (1,), b"1234")},
    "legal-empty-and-scalar": {"a": RawTensor("F32", (0, 7), b""), "b": RawTensor("F32", (), b"1234")},
    "legal-metadata": {"a": RawTensor("F32", (1,), b"1234")},
}
SLOWEST = 0.05
"""Seconds of processor time for one file, the fastest of several tries: a machine is busy with other things, too."""
NO_STRIDE = 5372
"""Number of a made-up file with a shape that torch refuses in a way of its own."""
GROWTH = 64 << 20
MEMORY = 1 << 30


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name):
    """A file that did harm once is refused for what is wrong with it."""
    with pytest.raises(CorruptError, match="cannot read it: ") as caught:
        artifacts.decode_tensors((HERE / "corpus" / f"{name}.bin").read_bytes(), "it")
    assert CORPUS[name] in caught.value.found


@pytest.mark.parametrize("name", LEGAL)
def test_legal_corpus(name):
    """A file that only looks odd is read."""
    assert artifacts.decode_tensors((HERE / "corpus" / f"{name}.bin").read_bytes(), "it") == LEGAL[name]


def test_the_corpus_is_replayed_whole():
    """Each file of the corpus has its expectation here, and there are at least a dozen of them."""
    names = {path.stem for path in (HERE / "corpus").iterdir()}
    assert names == {*CORPUS, *LEGAL}
    assert len(CORPUS) >= 12


def test_a_shape_that_no_digest_can_hold():
    """An axis beyond 64 bits is refused at birth too, although a 0 beside it makes the size right."""
    for shape in [(0, 1 << 63), (1 << 70, 0), (0, 10**400), (-1, -1)]:
        with pytest.raises(CorruptError, match="cannot read a tensor: its shape is "):
            RawTensor("F32", shape, b"")
    assert RawTensor("F32", (0, (1 << 63) - 1), b"").nbytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc and limited by RLIMIT_AS")
def test_hostile_files(tally, exhaustive):
    """Thousands of made-up and mutated files are decoded or refused, each soon, all in little memory."""
    cases = tally("hostile safetensors files, each decoded whole or refused as damaged")
    count = 200_000 if exhaustive else 20_000
    # A process of its own, with a limit: what a file makes us allocate is then this test's failure, not the machine's.
    surroundings = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, HERE / "headers.py", str(count), str(MEMORY)],
        capture_output=True,
        text=True,
        env=surroundings,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert not found["failures"]
    assert found["longest"] < SLOWEST, f"{found['which']} took {found['longest'] * 1000:.0f} ms"
    assert found["growth"] < GROWTH
    assert count > found["accepted"] > count // 100  # neither is everything refused, nor everything let through
    cases.what += f" (slowest {found['longest'] * 1000:.0f} ms, memory +{found['growth'] / 1e6:.0f} MB)"
    for number in range(found["cases"]):
        cases.case(number)
    cases.require(count)


def test_hostile_originals(tmp_path, tally, exhaustive):
    """As originals to be split the same files are read, or refused by the error of a checkpoint that is none."""
    from hydra_detect.checkpoints.reader import read_checkpoint

    cases = tally("hostile safetensors files as originals, each read or refused as no checkpoint")
    path, sources, accepted = tmp_path / "original.safetensors", headers.whole_files(), 0
    numbers = [NO_STRIDE, *range(20_000 if exhaustive else 2_000)]
    for number in numbers:
        data = headers.mutated(number, sources) if number % 2 else headers.made_up(number)
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert str(error).startswith("cannot read the checkpoint "), number  # noqa: PT017  most are read, or refused
        else:
            accepted += 1
        cases.case(number)
    assert len(numbers) > accepted > len(numbers) // 100
    cases.require(2_000)


def test_the_same_number_is_the_same_file():
    """A failure can be looked at by its number: it makes the same bytes each time."""
    sources = headers.whole_files()
    for number in (0, 1, 40, 77):
        assert headers.made_up(number) == headers.made_up(number)
        assert headers.mutated(number, sources) == headers.mutated(number, headers.whole_files())
    assert headers.made_up(7) != headers.made_up(22)
