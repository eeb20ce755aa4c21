"""The command line, run as people and programs run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from originals import SETTINGS, save, small
from PIL import Image

from hydra_detect import HeadRegistry
from hydra_detect.cli import training_commands
from hydra_detect.cli.commands import run
from hydra_detect.formats.lines import from_json

OPTIONS = [
    "--min-size=64",
    "--max-size=128",
    "--anchor-sizes=" + "/".join(str(row[0]) for row in SETTINGS["anchor_sizes"]),
]


# The keys of what programs read: a promise, in this order.
SPLIT = [
    "head", "version", "active", "backbone", "backbone_is_new", "architecture", "class_names", "original_bytes",
    "backbone_bytes", "head_bytes", "assumed", "parity", "seconds",
]  # fmt: skip
PROOF = ["head", "version", "proven", "against", "reason", "report"]
HEAD = [
    "head", "active", "versions", "class_names", "backbone", "backbone_digest", "nbytes", "created_at", "leans_on",
    "problem",
]  # fmt: skip
PICTURE = ["source", "image_size", "detections", "seconds"]
BOX = ["head", "version", "label", "label_id", "score", "box"]
ERROR = ["error", "asked", "found", "remedy", "facts"]


@pytest.fixture(autouse=True)
def no_store_variable(monkeypatch):
    """No store is named by the environment unless a test does so."""
    monkeypatch.delenv("HYDRA_DETECT_STORE", raising=False)


@pytest.fixture
def photographs(tmp_path):
    """A folder with three small pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for place in range(3):
        pixels = (np.random.default_rng(place).random((60, 80, 3)) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    return folder


def test_split_prints_what_was_made_and_verify_proves_it(tmp_path, capsys):
    """Split exits 0 with sizes and proof, as text and as JSON; verify exits 0 with and without the original."""
    path, store = str(save(small(), tmp_path / "a.pth")), str(tmp_path / "store")
    assert run(["split", path, "--store", store, "--head", "rbc", "--class-name", "RBC", *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "equal in every number" in said
    assert "another version is active" not in said
    assert run(["split", path, "--store", store, "--head", "rbc", "--json", *OPTIONS]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == SPLIT
    assert (said["head"], said["version"], said["active"], said["backbone_is_new"]) == ("rbc", 2, False, False)
    assert said["parity"]["equal"] is True
    assert run(["split", path, "--store", store, "--head", "rbc", *OPTIONS]) == 0
    assert "  another version is active; 'hydra-detect promote rbc 3'\n" in capsys.readouterr().out
    assert run(["verify", "--store", store]) == 0
    assert "rbc@1: proven" in capsys.readouterr().out
    assert run(["verify", "--store", store, "--head", "rbc@2", "--against", path, "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert list(proof) == PROOF
    assert (proof["head"], proof["version"], proof["proven"]) == ("rbc", 2, True)


def test_verify_exits_1_without_proof(split_store, capsys):
    """Compared with another original, verify prints what differs and exits 1."""
    other = str(split_store.parent / "wbc-1.pth")
    assert run(["verify", "--store", str(split_store), "--head", "rbc", "--against", other]) == 1
    assert "NOT PROVEN" in capsys.readouterr().out


def test_merge_writes_the_original(split_store, split_original, tmp_path, capsys):
    """Merge writes a file with the original's tensors and prints its path."""
    target = tmp_path / "again.pth"
    assert run(["merge", "rbc@1", str(target), "--store", str(split_store)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    one, two = (torch.load(path, weights_only=True) for path in (split_original, target))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_heads_lists_a_store_for_people_and_programs(split_store, capsys):
    """Heads prints a table, or JSON with the same facts."""
    assert run(["heads", "--store", str(split_store)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["head", "active", "versions", "backbone", "size", "leans", "on", "classes"]
    assert run(["heads", "--store", str(split_store), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [list(item) for item in said] == [HEAD, HEAD]
    assert [(item["head"], item["active"], item["versions"]) for item in said] == [("rbc", 1, [1, 2]), ("wbc", 1, [1])]


def test_the_store_can_come_from_the_environment(split_store, capsys, monkeypatch):
    """Without --store the environment variable is used."""
    monkeypatch.setenv("HYDRA_DETECT_STORE", str(split_store))
    assert run(["heads"]) == 0
    assert "rbc" in capsys.readouterr().out


def test_predict_prints_one_json_line_per_picture(split_store, photographs, capsys):
    """With --json each picture is one line of the documented form, which reads back as detections."""
    assert run(["predict", str(photographs), "--store", str(split_store), "--json", "--score-threshold", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    first = json.loads(lines[0])
    assert list(first) == PICTURE
    assert first["image_size"] == [60, 80]
    assert list(first["detections"][0]) == BOX
    assert len(from_json(lines[0])) == len(first["detections"])


def test_predict_prints_a_table_and_saves_pictures_without_replacing_any(split_store, photographs, tmp_path, capsys):
    """There is a table per picture; --save writes annotated pictures beside, never over, what is there."""
    target = tmp_path / "out"
    files = [str(photographs / "0.png"), str(photographs / "[12].png")]
    arguments = ["predict", *files, "--store", str(split_store), "--head", "rbc@2", "--score-threshold", "0"]
    assert run([*arguments, "--save", str(target)]) == 0
    text = capsys.readouterr().out
    assert "rbc@2" in text
    assert "wbc" not in text
    assert sorted(path.name for path in target.iterdir()) == ["0.png", "1.png", "2.png"]
    before = (target / "0.png").read_bytes()
    assert run([*arguments, "--save", str(target)]) == 0
    assert (target / "0.png").read_bytes() == before
    assert (target / "0-2.png").exists()


def _bad_store(tmp_path, split_store, name):
    store = shutil.copytree(split_store, tmp_path / name)
    if name == "newer":
        text = (store / "STORE.json").read_text().replace('"min_reader": 1', '"min_reader": 9')
        (store / "STORE.json").write_text(text)
    elif name == "damaged":
        path = store / "heads/rbc/versions/000001/record.json"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-20])
    return str(store)


def _bad_splits(tmp_path, _split_store, _photographs):
    good, new = str(save(small(), tmp_path / "a.pth")), ["--store", str(tmp_path / "new"), "--head"]
    (tmp_path / "text.pth").write_text("not a checkpoint")
    return [
        (["split", str(tmp_path / "none.pth"), *new, "x"], "no such file"),
        (["split", str(tmp_path / "text.pth"), *new, "x"], "no complete torch checkpoint"),
        (["split", good, *new, "../x", *OPTIONS], "as a head name"),
        (["split", good, *new, "CON", *OPTIONS], "as a head name"),
        (["split", good, *new, "x" * 300, *OPTIONS], "300 characters"),
        (["split", good, *new, "RBC", *OPTIONS], "'rbc' would do"),
        (["split", good, *new, "x", "--min-size=0", *OPTIONS[1:]], "min_size"),
        (["split", good, *new, "x", "--min-size=abc"], "abc"),
        (["split", good, *new, "x", "--anchor-sizes=8/16"], "for 2 levels and the pyramid has 5"),
        (["split", good, *new, "x", "--anchor-sizes=a"], "--anchor-sizes"),
        (["split", good, *new, "x", "--preset=resnet"], "no preset"),
        (["split", good, *new, "x", "--class-name", "a", "b", *OPTIONS], "2 names were given"),
        (["split", "torchvision:resnet", *new, "x"], "no such Faster R-CNN"),
        (["split", good, *new, "x", "--sample-count", "-1", *OPTIONS], "sample_count"),
        (["split", good, *new, "x", "--claimed-metrics", "f1=nan", *OPTIONS], "f1"),
        (["split", good, *new, "x", "--return-layers", "a,b,c,d", *OPTIONS], "layer1"),
        (["split", "x" * 5000 + ".pth", *new, "x"], "read the checkpoint"),
        (["split", good, "--store", "x" * 5000, "--head", "x", *OPTIONS], "make a store"),
    ]


def _bad_pictures(tmp_path, split_store, photographs):
    store, picture = ["--store", str(split_store)], str(photographs / "0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt.png").write_bytes((photographs / "0.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("not a picture")
    return [
        (["predict", *store], "no input"),
        (["predict", str(tmp_path / "empty"), *store], "no file"),
        (["predict", str(tmp_path / "*.gif"), *store], "no file matches"),
        (["predict", str(tmp_path / "corrupt.png"), *store], "corrupt.png"),
        (["predict", str(tmp_path / "text.png"), *store], "text.png"),
        (["predict", picture, *store, "--max-pixels", "100"], "100"),
        (["predict", picture, *store, "--device", "cuda:99"], "cuda:99"),
        (["predict", picture, *store, "--head", "rcb"], "'rbc'"),
        (["predict", picture, *store, "--head", "rbc@9"], "no version 9"),
        (["predict", picture, *store, "--score-threshold", "2"], "from 0 to 1"),
        (["predict", picture, *store, "--device", "meta"], "meta"),
        (["predict", picture, *store, "--max-pixels", "0"], "0"),
        (["predict", picture, *store, "--head", "rbc", "rbc@2"], "named twice"),
    ]


def _bad_stores(tmp_path, split_store, photographs):
    store = ["--store", str(split_store)]
    (tmp_path / "empty").mkdir()
    return [
        (["heads"], "HYDRA_DETECT_STORE"),
        (["heads", "--store", str(tmp_path / "nowhere")], "no such folder"),
        (["heads", "--store", str(tmp_path / "empty")], "no STORE.json"),
        (["heads", "--store", _bad_store(tmp_path, split_store, "newer")], "Upgrade"),
        (["verify", *store, "--parity-input", str(photographs / "0.png")], "no original"),
        (["merge", "owl", str(tmp_path / "o.pth"), *store], "owl"),
        (["merge", "rbc", "x" * 5000 + ".pth", *store], "write"),
        (["demo", "--out", str(photographs)], "something is there"),
        (["hades"], "heads"),
        (["heads", "--stroe", *store], "--store"),
    ]


@pytest.mark.parametrize("bad", [_bad_splits, _bad_pictures, _bad_stores])
def test_every_kind_of_bad_input_exits_2_with_a_sentence(split_store, photographs, tmp_path, capsys, bad):
    """Whatever is wrong with the input, there is exit code 2, a sentence on standard error and nothing on output."""
    for arguments, match in bad(tmp_path, split_store, photographs):
        code = run(arguments)
        said = capsys.readouterr()
        assert code == 2, arguments
        assert match in said.err, (arguments, said.err)
        assert said.out == "", arguments
        assert "Traceback" not in said.err
        assert said.err.startswith("hydra-detect: "), arguments
    assert not (tmp_path / "new").exists()


def test_damage_exits_3_with_a_sentence(split_store, photographs, tmp_path, capsys):
    """What is stored and damaged is an error of its own kind, also for programs that look at the exit code alone."""
    damaged = _bad_store(tmp_path, split_store, "damaged")
    assert run(["predict", str(photographs / "0.png"), "--store", damaged]) == 3
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("hydra-detect: ")) == ("", True)
    assert "record.json" in said.err


def test_errors_are_json_for_who_reads_json(split_store, split_original, tmp_path, capsys):
    """With --json an error is one line of JSON on standard error: its kind, and its three sentences apart."""
    store, new = str(split_store), str(tmp_path / "new")
    cases = (
        (["heads", "--store", new], "StoreError"),
        (["heads"], "StoreError"),
        (["predict", str(tmp_path / "none.png"), "--store", store], "InputError"),
        (["verify", "--store", store, "--head", "rbc@9"], "NotFoundError"),
        (["split", str(split_original), "--store", new, "--head", "../x", *OPTIONS], "NameInvalidError"),
        (["split", str(split_original), "--store", new, "--head", "x", "--preset=resnet"], "RecordError"),
    )
    for arguments, kind in cases:
        assert run(arguments) == 2
        sentence = capsys.readouterr().err.removeprefix("hydra-detect: ").strip()
        assert run([*arguments, "--json"]) == 2
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        error = json.loads(line)
        assert (said.out, list(error), error["error"]) == ("", ERROR, kind)
        assert f"cannot {error['asked']}: {error['found']}. {error['remedy']}" == sentence
    assert not (tmp_path / "new").exists()


def test_a_training_that_is_stopped_by_the_user(split_store, capsys, monkeypatch):
    """Who stops a training is told that it can be taken up again."""

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_commands, "store_folder", stop)
    assert run(["train", "owl", "--data", "labels", "--store", str(split_store)]) == 130
    assert capsys.readouterr().err.endswith(
        "left behind. The same command goes on from the last epoch that was kept, if there was one.\n"
    )


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_stopped_by_the_user(split_store, capsys, monkeypatch, extra):
    """Ctrl-C ends a command with exit code 130 and a sentence, without a traceback."""

    def stop(_registry):
        raise KeyboardInterrupt

    monkeypatch.setattr(HeadRegistry, "infos", stop)
    assert run(["heads", "--store", str(split_store), *extra]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    sentence = ["cannot go on: stopped. Nothing half-written was left behind."]
    if extra:
        error = json.loads(said.err)
        assert list(error) == ERROR
        assert [f"cannot {error['asked']}: {error['found']}. {error['remedy']}"] == sentence
    else:
        assert said.err.splitlines() == [f"hydra-detect: {sentence[0]}"]


@pytest.mark.parametrize("option", ["min-size", "max-size", "size-divisor", "rpn-pre-nms-top-n", "sample-count"])
def test_whole_numbers_of_settings(split_original, tmp_path, capsys, option):
    """What is no whole number is none for a setting, and does not become one by rounding."""
    for text in ("2.6", "64.0", "0x40", "+64", "064", "6_4", "1e2", "", " 64", "\u0666\u0664", "64a", "True"):
        arguments = ["split", str(split_original), "--store", str(tmp_path / "s"), "--head", "x", f"--{option}={text}"]
        assert run(arguments) == 2, text
        said = capsys.readouterr()
        assert f"Invalid value for --{option}: {text!a} is no whole number." in said.err
        assert said.out == ""
    assert not (tmp_path / "s").exists()


def test_whole_numbers_of_pixels(split_store, photographs, capsys):
    """What is no whole number from 1 is refused as a limit of pixels before any picture is looked at."""
    picture = str(photographs / "0.png")
    for text in ("2.6", "0x40", "+64", "064", "6_4", "1e9", "", "-1", "0"):
        assert run(["predict", picture, "--store", str(split_store), f"--max-pixels={text}"]) == 2, text
        said = capsys.readouterr()
        assert "Invalid value for --max-pixels: " in said.err
        assert "is no whole number" in said.err
    assert run(["predict", picture, "--store", str(split_store), "--max-pixels=4800"]) == 0


def test_the_module_runs_as_the_command(split_store):
    """`python -m hydra_detect` is the command, its exit code included, and errors leave no traceback."""
    command = [sys.executable, "-m", "hydra_detect"]
    good = subprocess.run([*command, "heads", "--store", str(split_store)], capture_output=True, text=True, check=False)
    assert good.returncode == 0
    assert good.stderr == ""
    bad = subprocess.run([*command, "heads", "--store", "/nowhere"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith("hydra-detect: cannot open the store")
    assert "Traceback" not in bad.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_behind_the_output_is_one_sentence(split_store):
    """When standard output cannot be written, there is exit code 2 and no traceback."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hydra_detect", "heads", "--store", str(split_store)]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error_message(split_store):
    """When the program that reads the output ends, the command ends quietly, without a traceback."""
    command = [sys.executable, "-m", "hydra_detect", "heads", "--store", str(split_store)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(60) == 2
    assert said == ""


def test_help_names_every_command(capsys):
    """The help lists the commands, and the version is printed."""
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("split", "verify", "predict", "heads", "merge", "demo", "promote", "store"))
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()
