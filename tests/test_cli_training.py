"""The commands that learn and measure, as people and programs run them."""

import json
import subprocess
import sys

import attrs
import lifecycle_fixtures
import numpy as np
import pytest
from cli_fixtures import ERROR, STORE_VARIABLE, refused, said, told
from lifecycle_fixtures import QUICK, SIZE, lights, on_disk, role_of
from PIL import Image

from hydra_detect.cli import training_commands
from hydra_detect.cli.commands import run
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.data.writing import write_samples
from hydra_detect.detections import GroundTruth
from hydra_detect.storage import heads
from hydra_detect.storage.owners import ACTOR_VARIABLE
from hydra_detect.training.config import ENVIRONMENT_PREFIX
from hydra_detect.training.progress import ProgressBar

bare = lifecycle_fixtures.bare

SETTINGS = [f"{name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in QUICK.items()]
SETTINGS.append("validation=held-out")  # of twenty labelled pictures
REPORT = [
    "head", "backbone", "training", "calibration", "metrics", "version", "outcome", "reason", "run",
]  # fmt: skip
"""The keys of what programs read: a promise."""


@pytest.fixture(autouse=True)
def store(bare, monkeypatch):
    """Give a store with `moth`, named by the environment; features are kept beside it."""
    monkeypatch.setenv(STORE_VARIABLE, str(bare.root))
    monkeypatch.setenv(ACTOR_VARIABLE, "ann")
    monkeypatch.setenv("HYDRA_DETECT_CACHE", str(bare.root.parent / "cache"))
    return bare


@pytest.fixture
def labels(tmp_path):
    """Give the label file of lamps on disk."""
    return labels_of(tmp_path / "lamps", lights())


def labels_of(folder, samples, form="coco"):
    """Write samples as a data set; return what --data takes."""
    samples = on_disk(samples, folder / "images" if form == "yolo" else folder)
    if form == "yolo":
        return write_samples(samples, folder, format="yolo", pictures=folder / "images")
    return write_samples(samples, folder / "labels.json", format="coco", pictures=folder)


def train(labels, head="lamp", *more):
    """Return the arguments of a quick training."""
    return ["train", head, "--data", str(labels), "--set", *SETTINGS, "--device", "cpu", *more]


# From labels to a promoted version


def test_three_commands(store, labels, tmp_path, capsys):
    """Train, look at the figures, detect: what is said is what is in the store."""
    text = said(capsys, *train(labels))
    assert text.startswith(
        "lamp@1: promoted: no version is active yet\n  samples    13 train, 4 select, 4 calibrate, 3"
    )
    version = heads.find(store, "lamp")
    assert (version.number, version.actor) == (1, "ann")
    new = labels_of(tmp_path / "new", lights(6, 3, first=700))
    text = said(capsys, "evaluate", "lamp", "--data", str(new), "--draws", "50")
    assert text.startswith("9 samples in 9 groups, 6 labelled boxes; held-out; IoU 0.5; temperature")
    assert "lamp@1" in said(capsys, "predict", str(new.parent / "s700.png"))


def test_training_for_programs(store, labels, capsys):
    """With --json a training is one line with the whole report."""
    found = told(capsys, *train(labels))
    assert list(found) == REPORT
    assert (found["head"], found["version"], found["outcome"]) == ("lamp", 1, "promoted")
    assert found["training"]["config"]["epochs"] == QUICK["epochs"]
    assert found["metrics"]["micro"]["rates"]["f1"]["value"] == 1.0
    assert found["run"].startswith(str(store.root / "runs/lamp"))


def test_each_option_has_its_effect(store, labels, capsys):
    """What a training starts from, its seed and its backbone come from options; --no-publish makes no version."""
    seed = 2**63 - 1  # the largest
    found = told(capsys, *train(labels, "lamp", "--no-publish", "--init", "fresh", "--seed", str(seed)))
    assert (found["version"], found["outcome"]) == (None, "not published")
    assert (found["training"]["seed"], found["training"]["course"]["started_from"]) == (seed, "fresh")
    assert heads.names(store) == ["moth"]
    found = told(capsys, *train(labels, "lamp", "--backbone", "default"))
    assert found["training"]["course"]["started_from"] == "moth@1"
    assert (store.root.parent / "cache/features").is_dir()


def test_promote_anyway(store, labels, capsys):
    """A version that cannot be compared is kept; with --promote-anyway it is made active."""
    lifecycle_fixtures.give(store, "lamp", classes=("other",))
    assert told(capsys, *train(labels))["outcome"] == "kept"
    found = told(capsys, *train(labels, "lamp", "--promote-anyway"))
    assert (found["outcome"], found["version"]) == ("promoted", 3)
    assert heads.find(store, "lamp").number == 3


# Classes


def test_classes_are_chosen_and_merged(store, tmp_path, capsys):
    """--class NAME takes some classes, NEW=OLD,OLD makes one of several; the rest is background."""
    labels = labels_of(tmp_path / "both", lights(40, 0, names=("lamp", "ember")))
    found = told(capsys, *train(labels, "one", "--class", "ember"))
    assert found["training"]["samples"]["boxes"] == {"ember": 20}
    assert found["training"]["samples"]["backgrounds"] == 20
    found = told(capsys, *train(labels, "all", "--class", "light=lamp,ember"))
    assert found["training"]["samples"]["boxes"] == {"light": 40}
    assert heads.find(store, "all").record.class_names == ("light",)
    message = refused(capsys, *train(labels, "none", "--class", "embr"))
    assert "there is no class 'embr'. Did you mean 'ember'?" in message


def test_a_head_for_each_class(store, tmp_path, capsys):
    """--each-class trains a head for each class, called after it; the same again has nothing to do."""
    labels = labels_of(tmp_path / "both", lights(40, 0, names=("lamp", "ember")))
    command = train(labels, "night", "--each-class")
    assert [one["head"] for one in told(capsys, *command)] == ["night-lamp", "night-ember"]
    assert heads.names(store) == ["moth", "night-ember", "night-lamp"]
    assert [one["existing"] for one in told(capsys, *command)] == ["night-lamp@1", "night-ember@1"]
    assert said(capsys, *command).count("@1 was trained with these labels and settings before") == 2
    plots = tmp_path / "plots"
    assert [one["version"] for one in told(capsys, *command, "--seed", "1", "--plots", str(plots))] == [2, 2]
    assert sorted(folder.name for folder in plots.iterdir()) == ["night-ember", "night-lamp"]


def test_a_class_that_cannot_be_learnt(tmp_path, capsys):
    """It is told of among the others, and the exit code says that not all is well."""
    labels = labels_of(tmp_path / "both", lights(40, 0, names=("lamp", "ember")))
    lost = ("--set", "objective=recall@precision:1.0", "learning_rate=1e-7", "epochs=1")
    assert run([*train(labels, "night", "--each-class"), *lost, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["error"]["asked"] for one in found] == ["choose thresholds"] * 2


def test_other_forms_of_labels(tmp_path, capsys):
    """A YOLO folder is recognised, and read as what --format says; as something else it is refused."""
    folder = labels_of(tmp_path / "yolo", lights(), "yolo")
    for more in ([], ["--format", "yolo"]):
        found = told(capsys, *train(folder, "lamp", "--no-publish", *more))
        assert found["training"]["samples"]["boxes"] == {"lamp": 20}
    assert "cannot" in refused(capsys, *train(folder, "lamp", "--format", "voc"))


def test_pixels_counted_from_one(labels, tmp_path, capsys):
    """Labels of VOC are read so where that is said, and each command refuses it of others."""
    folder = tmp_path / "voc"
    (stated,) = samples = on_disk(lights(1, 0), folder)
    write_samples(samples, folder, format="voc", pictures=folder)
    (read,) = training_commands.DataOptions(data=folder, pictures=folder, voc_from_one=True).read()
    np.testing.assert_allclose(read.truth.boxes, stated.truth.boxes - np.float32([1, 1, 0, 0]))
    for command in (("train", "lamp"), ("evaluate", "moth"), ("calibrate", "moth")):
        assert "VOC alone" in refused(capsys, *command, "--data", str(labels), "--voc-from-one")


def test_groups_stay_together(labels, capsys):
    """--group is a regular expression on the names of pictures: what it finds alike has one role."""
    found = told(capsys, *train(labels, "lamp", "--group", "s0(.)", "--no-publish", "--set", "validation=auto"))
    assert found["training"]["method"] == "cross-validation"  # three tens of pictures are too few groups for four roles
    assert found["metrics"]["groups"] == 3


# Settings


def test_settings_from_file_environment_and_command_line(labels, tmp_path, capsys, monkeypatch):
    """A file counts for more than the preset, the environment for more than it, the command line for most."""
    file = tmp_path / "settings.toml"
    file.write_text("epochs = 3\nbatch_size = 2\nlearning_rate = 0.02\n")
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}EPOCHS", "2")
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}BATCH_SIZE", "3")
    rest = [item for item in SETTINGS if item.split("=")[0] not in {"epochs", "batch_size", "learning_rate"}]
    arguments = ["train", "lamp", "--data", str(labels), "--preset", "fast", "--config", str(file), "--no-publish"]
    found = told(capsys, *arguments, "--set", *rest, "--set", "batch-size=1")["training"]["config"]
    assert (found["epochs"], found["batch_size"], found["learning_rate"]) == (2, 1, 0.02)
    assert found["views"] == ["plain"]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--set", "epoch=3"], "the settings given has 'epoch', which is no setting. Did you mean 'epochs'"),
        (["--set", "epochs"], "'epochs' has no '='. Write --set epochs=20."),
        (["--set", "epochs=many"], "epochs"),
        (["--set", "epochs=0"], "epochs"),
        (["--set", "loss=focl"], "Did you mean 'focal'"),
        (["--set", "objective=f2"], "f2"),
        (["--preset", "quick"], "quick"),
        (["--config", "none.toml"], "none.toml"),
        (["--seed", "1.5"], "is no whole number"),
        (["--seed", "-1"], "the seed is -1. Give a whole number from 0 to"),
        (["--seed", "9223372036854775808"], "the seed is 9223372036854775808. Give a whole number from 0 to"),
        (["--init", "mothh"], "Did you mean 'moth'"),
        (["--backbone", "defualt"], "Did you mean 'default'"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--format", "coc"], "coc"),
    ],
)
def test_bad_options_exit_2_with_a_sentence(store, labels, capsys, more, found):
    """A mistyped setting or option is refused with what comes near, before anything is learnt."""
    assert found in refused(capsys, "train", "lamp", "--data", str(labels), *more)
    assert heads.names(store) == ["moth"]


def test_unknown_settings_of_file_and_environment(store, labels, tmp_path, capsys, monkeypatch):
    """A mistyped setting is an error wherever it stands, and the place is said."""
    file = tmp_path / "settings.json"
    file.write_text('{"epohcs": 3}')
    arguments = ["train", "lamp", "--data", str(labels)]
    message = refused(capsys, *arguments, "--config", str(file))
    assert "json has 'epohcs', which is no setting. Did you mean 'epochs'" in message
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}EPOCH", "3")
    assert "the environment has 'epoch', which is no setting" in refused(capsys, *arguments)
    assert heads.names(store) == ["moth"]


def test_what_is_wrong_with_the_data(labels, tmp_path, capsys):
    """Labels that are not there, pictures that are missing and samples that are too few exit 2, and say what to do."""
    assert "none.json" in refused(capsys, *train(tmp_path / "none.json"))
    (labels.parent / "s003.png").unlink()
    message = refused(capsys, *train(labels))
    assert "1 of 24 pictures or their labels are not there: 's003.png'" in message
    found = told(capsys, *train(labels, "lamp", "--missing", "skip", "--no-publish", "--set", "validation=auto"))
    assert found["training"]["samples"]["skipped"] == {"missing pictures or label files": 1}
    assert found["training"]["warnings"][-1] == "left out on reading: 1 missing pictures or label files"
    few = labels_of(tmp_path / "few", lights(4))
    assert "4 of 8 have a box, and 5 are the least" in refused(capsys, *train(few))
    assert "--data" in refused(capsys, "train", "lamp")


def test_errors_for_programs(tmp_path, capsys):
    """With --json an error is one line of JSON on standard error, with the facts."""
    few = labels_of(tmp_path / "few", lights(4))
    (line,) = refused(capsys, *train(few), "--json").splitlines()
    error = json.loads(line)
    assert list(error) == ERROR
    assert (error["error"], error["facts"]) == ("InputError", {"labelled": 4})


# Stopped


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_stopped_by_the_user(store, labels, capsys, monkeypatch, extra):
    """Ctrl-C ends a training with exit code 130 and a sentence; there is no version, and the next call goes on."""

    def stop(_self, state):
        if state.latest.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "__call__", stop)
    message = refused(capsys, *train(labels), *extra, code=130)
    assert "stopped" in message
    assert heads.names(store) == ["moth"]
    monkeypatch.undo()
    monkeypatch.setenv("HYDRA_DETECT_CACHE", str(store.root.parent / "cache"))
    assert told(capsys, *train(labels), "--store", str(store.root))["version"] == 1


# Measure and calibrate


def test_plots_and_pictures(labels, tmp_path, capsys):
    """Plots of a training and of an evaluation go to a new folder, with pictures of what was missed."""
    curves = ["f1.png", "precision_recall.png", "reliability.png"]
    said(capsys, *train(labels), "--plots", str(tmp_path / "trained"))
    assert sorted(path.name for path in (tmp_path / "trained").iterdir()) == curves
    new = labels_of(tmp_path / "new", lights(6, 3, first=700, names=("lamp", "ember")))
    measure = ["evaluate", "lamp", "--data", str(new), "--class", "lamp=lamp,ember", "--draws", "0"]
    told(capsys, *measure, "--plots", str(tmp_path / "measured"))
    found = sorted(path.name for path in (tmp_path / "measured").iterdir())
    assert [name for name in found if not name.startswith("miss")] == curves
    for path in (tmp_path / "measured").iterdir():
        assert Image.open(path).convert("RGB").getextrema() != ((255, 255),) * 3
    message = refused(capsys, *measure, "--plots", str(tmp_path / "measured"))
    assert "something lies there already" in message
    assert "something lies there already" in refused(capsys, *train(labels), "--plots", str(tmp_path / "trained"))


def test_near_duplicates_stay_together(store, tmp_path, capsys):
    """With --near-duplicates a picture and its copy under another name, slightly changed, have one role."""
    items = []
    for number, sample in enumerate(lights(24)):
        blocks = np.random.default_rng(number).integers(0, 120, (6, 8, 1), dtype=np.uint8)
        picture = np.maximum(sample.picture, blocks.repeat(8, axis=0).repeat(8, axis=1))
        items.append(attrs.evolve(sample, picture=picture))
        items.append(attrs.evolve(sample, id=f"twin-{sample.id}", picture=np.clip(picture, 3, 252)))
    both = labels_of(tmp_path / "twins", Samples(items=items, class_names=("lamp",)))

    def pairs_in_one_role(head, *more):
        report = told(capsys, *train(both, head, "--set", "epochs=1", *more))
        roles = role_of(store, heads.find(store, f"{head}@{report['version']}"))
        return [
            roles[f"{one.id}.png"] == roles[f"{other.id}.png"]
            for one, other in zip(items[::2], items[1::2], strict=True)
        ]

    assert all(pairs_in_one_role("lamp", "--near-duplicates"))
    assert not all(pairs_in_one_role("owl"))


def test_evaluate(labels, tmp_path, capsys):
    """Evaluate measures on new samples, as text and JSON; on seen ones it has to be told to, and says that it was."""
    said(capsys, *train(labels))
    new = labels_of(tmp_path / "new", lights(6, 3, first=700))
    found = told(capsys, "evaluate", "lamp@1", "--data", str(new), "--draws", "0")
    assert (found["samples"], found["labels"]) == (9, 6)
    assert found["micro"]["rates"]["f1"]["low"] is None
    message = refused(capsys, "evaluate", "lamp", "--data", str(labels))
    assert "21 of 24 samples were used to make it: s0" in message
    text = said(capsys, "evaluate", "lamp", "--data", str(labels), "--allow-seen")
    assert "note: 21 of these samples were used to make lamp@1: no evidence of quality" in text
    assert "no such head" in refused(capsys, "evaluate", "lmap", "--data", str(new))


def test_calibrate(store, labels, tmp_path, capsys):
    """Calibrate fits another policy to the scores that were kept, or to new samples; neither is active yet."""
    said(capsys, *train(labels))
    for sample in labels.parent.glob("*.png"):
        sample.unlink()
    found = told(capsys, "calibrate", "lamp", "--objective", "fbeta:2")
    assert list(found) == ["head", "version", "policy"]
    assert (found["head"], found["version"], found["policy"]["objective"]) == ("lamp", 2, "fbeta:2.0")
    new = labels_of(tmp_path / "new", lights(6, 3, first=700))
    text = said(capsys, "calibrate", "lamp@1", "--data", str(new), "--objective", "recall@precision:0.8")
    assert text.startswith("lamp@3 (lamp; ")
    assert ": recall@precision:0.8, threshold 0." in text
    assert text.endswith("; not active yet\n")
    assert heads.find(store, "lamp").number == 1
    metrics = told(capsys, "evaluate", "lamp@2", "--data", str(new), "--draws", "0")
    assert metrics["policy"] == found["policy"]
    assert "9 of 9 samples were used" in refused(capsys, "evaluate", "lamp@3", "--data", str(new))
    assert "read 'f2' as an objective" in refused(capsys, "calibrate", "lamp", "--objective", "f2")
    assert "no calibration scores" in refused(capsys, "calibrate", "moth")


def test_runs_side_by_side(store, labels, capsys):
    """Runs compare shows finished trainings as a table, and as one line of JSON; none is an ordinary case."""
    assert said(capsys, "runs", "compare") == "No training has finished yet.\n"
    assert told(capsys, "runs", "compare") == []
    said(capsys, *train(labels))
    said(capsys, *train(labels, "lamp", "--seed", "1", "--no-publish"))
    lines = said(capsys, "runs", "compare").splitlines()
    assert [line.split()[:2] for line in lines] == [["head", "outcome"], ["lamp@1", "promoted"], ["lamp", "not"]]
    found = told(capsys, "runs", "compare", "lamp")
    assert [(one["version"], one["outcome"]) for one in found] == [(1, "promoted"), (None, "not published")]
    assert found[0]["figures"]["f1"] == 1.0
    assert said(capsys, "runs", "compare", "moth") == "No training has finished yet.\n"
    assert "Did you mean 'lamp'" in refused(capsys, "runs", "compare", "lmap")
    (store.layout.runs("lamp") / found[0]["name"] / "report.json").write_text("{")
    assert run(["runs", "compare", "--store", str(store.root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines[1:]) == ["damaged", "not"]


# Originals


def flooded(number):
    """Return a sample that is all light, which any head can learn to find."""
    pixels = np.random.default_rng(number).integers(200, 256, (*SIZE, 3), dtype=np.uint8)
    return Sample(id=f"f{number:03}", picture=pixels, truth=GroundTruth([(0, 0, SIZE[1], SIZE[0])], ["lamp"], SIZE))


def test_train_original(store, tmp_path, capsys):
    """Train-original makes a store with a backbone and a head of it, and says from which file they were split."""
    samples = Samples(items=[*map(flooded, range(20)), *lights(0, 4)], class_names=("lamp",))
    labels, new = labels_of(tmp_path / "floods", samples), str(tmp_path / "new")
    arguments = ["train-original", "lamp", "--data", str(labels), "--store", new, "--device", "cpu", "--architecture"]
    arguments += ["mobilenet_v3_large", "--min-size", "48", "--max-size", "96", "--pyramid-channels", "16"]
    arguments += ["--box-width", "32", "--set", "epochs=2", "batch_size=2", "box_batch=32", "augmentations=hflip"]
    found = told(capsys, *arguments)
    assert (found["head"], found["version"], found["backbone"]) == ("lamp", 1, "default")
    assert found["settings"]["architecture"] == "mobilenet_v3_large"
    assert found["original"].startswith(new)
    assert [one["outcome"] for one in told(capsys, "runs", "compare", "--store", new)] == ["original"]
    assert "the store has a head 'lamp' in use" in refused(capsys, *arguments)
    assert heads.names(store) == ["moth"]


def test_bad_originals(labels, capsys):
    """An architecture that is none, or a backbone's name that is taken, exits 2 before anything is learnt."""
    arguments = ["train-original", "owl", "--data", str(labels)]
    assert "make a backbone 'default': the store has one" in refused(capsys, *arguments)
    arguments += ["--backbone", "new"]
    assert "Did you mean 'resnet18'" in refused(capsys, *arguments, "--architecture", "resnet81")
    assert "min-size" in refused(capsys, *arguments, "--min-size", "0")
    assert "the seed is -1" in refused(capsys, *arguments, "--seed", "-1")


# Cost


@pytest.mark.parametrize("command", ["train", "train-original", "evaluate", "calibrate", "runs compare", "bundle"])
def test_help_loads_no_torch(command):
    """The help of every command is there without torch being imported."""
    code = (
        "import sys\nfrom hydra_detect.cli.commands import run\ncode = run(sys.argv[1:])\n"
        "sys.exit('torch was loaded' if {'torch', 'numpy'} & set(sys.modules) else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--store" in done.stdout


def test_every_command_is_there(capsys):
    """Each command that learns is offered by the command line's help."""
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for command in (*training_commands.COMMANDS, training_commands.runs):
        name = command.name[0] if command is training_commands.runs else command.__name__.replace("_", "-")
        assert name in text
