"""The loop: what is learnt, when it stops, which weights are kept, and what is left alone."""

import math
import random

import attrs
import numpy as np
import pytest
import torch
from training_fixtures import (
    CLASSES,
    CONFIG,
    SELECT,
    TRAIN,
    backbone,
    checkpoint,
    head,
    learn_shapes,
    shape_sample,
    shape_samples,
    task,
    weights_of,
)

from hydra_detect.data.samples import Samples
from hydra_detect.errors import InputError, TrainingError
from hydra_detect.nets.state import raw_tensors
from hydra_detect.tensors import tensors_digest
from hydra_detect.training import selection
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.loop import fit
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.tools import Tools

BY_LOSS = attrs.evolve(CONFIG, monitor="loss")
WIDE = TRAIN[[0, 1, 3, 4, 6, 7]]  # of one size: a step is one look


def fitted(folder, *, progress=None, **changes):
    """Train the tiny head in a folder of its own."""
    return fit(task(folder, **changes), checkpoint=checkpoint(folder), progress=progress)


def turned_after(steps):
    """Return a loss that says the truth throughout, and that a training goes up instead of down after some steps."""
    taken = 0

    def loss(predictions, context):
        nonlocal taken
        taken += torch.is_grad_enabled()
        parts = torchvision_loss(predictions, context)
        return {n: 2 * part.detach() - part for n, part in parts.items()} if taken > steps else parts

    return loss


def never(predictions, context):
    """Cost nothing, whatever is predicted: a head that is trained with it stays what it was."""
    return {name: part * 0 for name, part in torchvision_loss(predictions, context).items()}


def test_no_samples(tmp_path):
    """A training without samples is refused before anything is written."""
    nothing = Samples(items=[], class_names=CLASSES)
    with pytest.raises(InputError, match="there are no samples to learn from"):
        fitted(tmp_path, train=nothing)
    assert list(tmp_path.iterdir()) == []


def test_a_head_learns(tmp_path):
    """From two dozen pictures the head finds discs and squares in pictures that it never saw."""
    config = attrs.evolve(CONFIG, epochs=12, learning_rate=1e-2, ema_decay=0.8)
    learnt = learn_shapes(tmp_path, train=shape_samples(0, 24), config=config)
    first, best = learnt.fitted.history[0], learnt.fitted.best
    assert best.f1 > 0.7
    assert best.losses["total"] < first.losses["total"] / 2
    assert best.select_losses["total"] < first.select_losses["total"] / 2
    assert learnt.coverage.at_half == 1


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Two trainings of one seed have equal weights and figures; another seed, or another order, has others."""
    noisy = attrs.evolve(CONFIG, epochs=2, views=("plain", "hflip"), box_jitter=0.05, feature_noise=0.05)
    one, same, other = (
        learn_shapes(tmp_path / str(place), config=noisy, seed=seed).fitted for place, seed in enumerate((3, 3, 4))
    )
    assert weights_of(one) == weights_of(same)
    assert [attrs.evolve(e, seconds=0) for e in one.history] == [attrs.evolve(e, seconds=0) for e in same.history]
    assert all(weights_of(one)[name] != weights_of(other)[name] for name in weights_of(one))


def test_fresh_pictures_too(tmp_path):
    """So have trainings on pictures that are augmented anew each time, which run the backbone at each draw."""
    fresh = attrs.evolve(CONFIG, epochs=2, features="fresh", augmentations=("hflip", "brightness", "crop"))
    one, same = (learn_shapes(tmp_path / name, config=fresh) for name in "ab")
    assert weights_of(one.fitted) == weights_of(same.fitted)
    assert one.features.passes == 2 * len(TRAIN) + len(SELECT)


def test_the_callers_random_numbers_are_as_before(tmp_path):
    """Whatever a training draws, torch, numpy and random go on for the caller as if it had not been."""
    augmenting = attrs.evolve(CONFIG, epochs=1, features="fresh", box_jitter=0.1)
    torch.manual_seed(11)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002  whose it is
    learn_shapes(tmp_path, config=augmenting, seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002  same
    assert np.array_equal(state["key"], before[1]["state"]["key"])
    assert state["pos"] == before[1]["state"]["pos"]
    assert random.getstate() == before[2]


@pytest.mark.parametrize("features", ["cached", "fresh"])
def test_nothing_but_the_head_is_trained(tmp_path, features):
    """The backbone's weights and statistics are bit for bit as before, without gradients, in evaluation mode."""
    before = tensors_digest(raw_tensors(backbone().network.state_dict()))
    started = {name: value.clone() for name, value in head().state_dict().items()}
    result = learn_shapes(tmp_path, config=attrs.evolve(CONFIG, epochs=2, features=features)).fitted
    assert tensors_digest(raw_tensors(backbone().network.state_dict())) == before == backbone().contract.digest
    assert any(name.endswith("running_mean") for name in backbone().network.state_dict())
    assert all(p.grad is None and not p.requires_grad for p in backbone().parameters())
    assert not any(module.training for module in backbone().modules())
    assert result.tensors.keys() == started.keys()
    assert all(not torch.equal(result.tensors[name], value) for name, value in started.items())


def test_what_was_learnt_is_frozen(tmp_path):
    """The head that comes out is in evaluation mode, without gradients, and detects at once."""
    network = learn_shapes(tmp_path, config=attrs.evolve(CONFIG, epochs=1)).network
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    prepared = backbone().prepare(torch.rand(3, 48, 64))
    (found,) = network(backbone()([prepared]))
    assert found.boxes.shape == (len(found.scores), 4)


def test_the_weights_are_those_of_the_best_epoch(tmp_path):
    """What is returned is the state of the best epoch, though later ones moved the same tensors on."""
    job, states = task(tmp_path, config=attrs.evolve(BY_LOSS, epochs=6, ema_decay=0), loss=turned_after(10)), []

    def note(progress):
        assert progress.latest.epoch == len(states) + 1
        states.append({name: value.clone() for name, value in job.network.state_dict().items()})

    result = fit(job, checkpoint=checkpoint(tmp_path), progress=note)
    best = result.best.epoch
    assert 1 < best < 6
    assert result.best == min(result.history, key=lambda epoch: epoch.select_losses["total"])
    assert all(torch.equal(value, states[best - 1][name]) for name, value in result.tensors.items())
    assert all(not torch.equal(value, states[-1][name]) for name, value in result.tensors.items())
    assert [epoch.is_best for epoch in result.history] == [epoch.epoch <= best for epoch in result.history]


def test_the_average_is_what_is_judged_and_kept(tmp_path):
    """With a moving average the weights that are kept are not those of the last step, and those are what was judged."""
    job = task(tmp_path, config=attrs.evolve(CONFIG, epochs=1, ema_decay=0.9))
    result = fit(job, checkpoint=checkpoint(tmp_path))
    assert all(not torch.equal(result.tensors[name], value) for name, value in job.network.state_dict().items())
    again = task(tmp_path, config=attrs.evolve(CONFIG, epochs=1, ema_decay=0, learning_rate=1e-30))
    again.network.load_state_dict(result.tensors)
    judged = fit(again, checkpoint=checkpoint(tmp_path / "again")).best.select_losses
    assert judged == pytest.approx(result.best.select_losses, rel=1e-6)


def test_patience(tmp_path):
    """Without an epoch that is better by min_delta a training stops after so many epochs, and says so."""
    config = attrs.evolve(BY_LOSS, epochs=9, patience=2, min_delta=1)
    result = fitted(tmp_path, config=config)
    assert (len(result.history), result.best.epoch, result.early_stopped) == (3, 1, True)
    without = fitted(tmp_path / "b", config=attrs.evolve(config, epochs=4, patience=0))
    assert (len(without.history), without.best.epoch, without.early_stopped) == (4, 1, False)


def test_of_epochs_that_cannot_be_told_apart_the_last_is_kept(tmp_path, monkeypatch):
    """An epoch a little below the highest F1 is kept before it, one far below is not; patience counts from the peak."""
    figures = iter([0.5, 0.6, 0.58, 0.2, 0.1, 0.9])

    def judge(_head, _task):
        return selection.Judged(select_losses={"total": 1.0}, f1=next(figures), precision=0.5, recall=0.5)

    monkeypatch.setattr(selection, "judge", judge)
    job = task(tmp_path, config=attrs.evolve(CONFIG, epochs=6, patience=3, ema_decay=0))
    states = []
    result = fit(
        job,
        checkpoint=checkpoint(tmp_path),
        progress=lambda _state: states.append({n: v.clone() for n, v in job.network.state_dict().items()}),
    )
    assert [epoch.is_best for epoch in result.history] == [True, True, True, False, False]
    assert (result.best.epoch, result.early_stopped) == (3, True)
    assert all(torch.equal(value, states[2][name]) for name, value in result.tensors.items())


def test_patience_at_the_last_epoch(tmp_path):
    """A training that ran out of patience at its last epoch did not stop early."""
    result = fitted(tmp_path, config=attrs.evolve(BY_LOSS, epochs=3, patience=2, min_delta=1))
    assert (len(result.history), result.early_stopped) == (3, False)


def test_patience_begins_anew_with_each_better_epoch(tmp_path):
    """Epochs without anything better are counted since the last that was."""
    config = attrs.evolve(BY_LOSS, epochs=40, patience=2, ema_decay=0)
    result = fitted(tmp_path, config=config, loss=turned_after(14))
    assert result.early_stopped
    assert len(result.history) == result.best.epoch + 2
    assert result.best.epoch >= 3


def test_f1_of_nothing_still_has_a_best(tmp_path):
    """Where F1 is 0 at each epoch, the one with the lowest loss is the best, and its weights are returned."""
    empty = Samples(items=[shape_sample(f"e{n}", seed=n) for n in range(3)], class_names=CLASSES)
    config = attrs.evolve(CONFIG, epochs=5, ema_decay=0)
    result = fitted(tmp_path, config=config, select=empty, loss=turned_after(5))
    assert [epoch.f1 for epoch in result.history] == [0.0] * 5
    assert result.best.epoch == min(result.history, key=lambda epoch: epoch.select_losses["total"]).epoch
    assert 1 < result.best.epoch < 5
    assert result.tensors.keys() == head().state_dict().keys()


def test_a_head_that_learns_nothing(tmp_path):
    """A loss that asks for nothing is better at no epoch after the first, and patience ends it."""
    config = attrs.evolve(CONFIG, epochs=9, patience=1, weight_decay=0)
    result = fitted(tmp_path, config=config, loss=never)
    assert (len(result.history), result.early_stopped) == (2, True)
    assert all(torch.equal(result.tensors[name], value) for name, value in head().state_dict().items())


def test_without_a_select_role_the_last_epoch_is_kept(tmp_path):
    """Without samples to select by there are no figures of theirs, no patience, and the last weights are returned."""
    job = task(tmp_path, select=None, config=attrs.evolve(CONFIG, patience=1, ema_decay=0))
    result = fit(job, checkpoint=checkpoint(tmp_path))
    assert (result.best, result.early_stopped) == (result.history[-1], False)
    assert [(epoch.f1, dict(epoch.select_losses)) for epoch in result.history] == [(None, {})] * 3
    assert all(torch.equal(result.tensors[name], value) for name, value in job.network.state_dict().items())


def test_backgrounds_alone_never_crash(tmp_path):
    """Pictures without any box train and are judged; the box loss is 0 and nothing is found."""
    empty = Samples(items=[shape_sample(f"e{n}", seed=n) for n in range(4)], class_names=CLASSES)
    for place, (train, select) in enumerate(((empty, empty), (empty, SELECT), (TRAIN[:3], empty))):
        result = fitted(tmp_path / str(place), train=train, select=select, config=attrs.evolve(CONFIG, epochs=2))
        assert all(math.isfinite(value) for epoch in result.history for value in epoch.losses.values())
        assert (result.history[0].losses["box"] == 0) == (train is empty)


def test_a_box_at_the_border_and_no_background(tmp_path):
    """One picture with one box that touches two borders, and none without a box, is enough to run."""
    one = Samples(items=[shape_sample("corner", ("disc", 40, 24, 64, 48))], class_names=CLASSES)
    assert one.backgrounds == 0
    result = fitted(tmp_path, train=one, select=one, config=attrs.evolve(CONFIG, epochs=2, box_jitter=0.2))
    assert len(result.history) == 2


@pytest.mark.parametrize("at", [1, 5])
def test_a_loss_that_is_no_number_stops_the_training(tmp_path, at):
    """A loss of NaN raises at once, and says at which step, of which epoch, on which samples, and in which part."""
    taken = 0

    def loss(predictions, context):
        nonlocal taken
        taken += torch.is_grad_enabled()
        return {**torchvision_loss(predictions, context), "mine": torch.tensor(math.nan if taken == at else 1.0)}

    where = f"at step {at}, epoch {1 + at // 3}, .* no finite number .*mine nan"
    with pytest.raises(TrainingError, match=where) as caught:
        fitted(tmp_path, loss=loss, train=WIDE)
    error = caught.value
    assert error.facts["step"] == at
    assert error.asked == f"train on {error.facts['samples']}"
    assert set(error.facts["samples"].split(", ")) <= {sample.id for sample in WIDE}
    assert "learning_rate" in error.remedy
    assert (tmp_path / "run").exists() is (at > 3)  # the epoch before it is kept


def test_a_loss_that_is_nothing_but_no_number(tmp_path):
    """So does a loss that depends on no weight: it is told as what it is, not as torch would."""
    with pytest.raises(TrainingError, match=r"at step 1, .*mine nan"):
        fitted(tmp_path, loss=lambda _predictions, _context: {"mine": torch.tensor(math.nan)})


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "it returned None"), (0.5, "it returned float"), ({}, "it returned dict without any part"),
        (torch.tensor(0.5), r"it returned Tensor \[\] float32"), ([torch.tensor(0.5)], "it returned list"),
        ({"mine": 0.5, "other": torch.tensor(0.5)}, r"it returned parts of which 'mine' is float\."),
        ({"mine": torch.zeros(3), "o": None}, r"it returned .* 'mine' is Tensor \[3\] float32, 'o' is None\."),
        ({1: torch.tensor(0.5)}, r"it returned parts of which 1 is Tensor \[\] float32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["train", "select"])
def test_a_loss_of_another_form_stops_the_training(tmp_path, returned, said, role):
    """What a loss returns that is no scalars by name is told with its name, wherever it is asked."""

    def loss(predictions, context):
        is_right = torch.is_grad_enabled() == (role == "select")
        return torchvision_loss(predictions, context) if is_right else returned

    tools = Tools(losses={"own": loss})
    with pytest.raises(TrainingError, match=f"cannot train with loss 'own': {said}") as caught:
        learn_shapes(tmp_path, config=attrs.evolve(CONFIG, epochs=1, loss="own"), tools=tools)
    assert "Return a mapping" in caught.value.remedy
    assert caught.value.facts["loss"] == "own"


def test_a_loss_without_a_gradient_stops_the_training(tmp_path):
    """A loss of detached values is told with its name; where nothing is learnt it need not have a gradient."""

    def detached(predictions, context):
        return {name: part.detach() for name, part in torchvision_loss(predictions, context).items()}

    with pytest.raises(TrainingError, match=r"train with loss 'torchvision': no part .* has a gradient"):
        fitted(tmp_path, loss=detached)

    def learning(predictions, context):
        return (torchvision_loss if torch.is_grad_enabled() else detached)(predictions, context)

    judged = fitted(tmp_path / "b", loss=learning)
    assert judged.best.select_losses["total"] > 0


@pytest.mark.parametrize("clip", [0.0, 5.0])
def test_a_gradient_that_is_no_number_stops_the_training(tmp_path, clip):
    """So does a gradient of NaN under a loss that is a number: no weight becomes NaN, not even at the last step."""

    def loss(predictions, context):
        logits = predictions.class_logits
        return {**torchvision_loss(predictions, context), "mine": (logits - logits).sum().abs().sqrt()}

    job = task(tmp_path, loss=loss, config=attrs.evolve(CONFIG, gradient_clip=clip))
    with pytest.raises(TrainingError, match=r"at step 1, epoch 1, .*mine 0\.0.*gradient nan"):
        fit(job, checkpoint=checkpoint(tmp_path))
    assert all(torch.equal(value, head().state_dict()[name]) for name, value in job.network.state_dict().items())


def test_a_selection_loss_that_is_no_number_stops_the_training(tmp_path):
    """A loss that is NaN on a sample of the select role alone raises, and names that sample."""

    def loss(predictions, context):
        objects = (predictions.labels > 0).sum()
        mine = torch.zeros(()) if torch.is_grad_enabled() else objects.clamp(max=1) / objects
        return {**torchvision_loss(predictions, context), "mine": mine}

    empty = next(sample.id for sample in SELECT if not len(sample.truth))
    with pytest.raises(TrainingError, match=f"judge weights on {empty}: .*mine nan"):
        fitted(tmp_path, loss=loss)


def test_a_loss_and_an_augmentation_of_your_own(tmp_path):
    """Callables given under names are used where the settings name them; their parts are in the history."""
    pictures = []

    def gentle(predictions, context):
        assert context.frequencies == tuple(TRAIN.box_counts.values())
        return {"gentle": torchvision_loss(predictions, context)["class"] * 0.5}

    def watch(picture, target):
        pictures.append(tuple(picture.shape))
        return picture, target

    config = attrs.evolve(CONFIG, epochs=1, loss="gentle", features="fresh", augmentations=("watch", "hflip"))
    tools = Tools(losses={"gentle": gentle}, augmentations={"watch": watch})
    result = learn_shapes(tmp_path, config=config, tools=tools).fitted
    assert set(result.history[0].losses) == set(result.history[0].select_losses) == {"gentle", "total"}
    assert len(pictures) == len(TRAIN)
    with pytest.raises(InputError, match=r"find 'gentle' among losses"):
        learn_shapes(tmp_path / "b", config=config)


def test_progress(tmp_path):
    """After each epoch the callback is told the latest, the best, how long it took, and what remains at that pace."""
    told = []
    result = fitted(tmp_path, progress=told.append, config=attrs.evolve(BY_LOSS, epochs=3), stage="fold 1 of 2")
    assert [state.latest for state in told] == list(result.history)
    assert [state.best for state in told] == [
        next(epoch for epoch in reversed(result.history[: n + 1]) if epoch.is_best) for n in range(3)
    ]
    assert [(state.epochs, state.stage) for state in told] == [(3, "fold 1 of 2")] * 3
    assert told[0].elapsed < told[1].elapsed < told[2].elapsed <= result.seconds
    assert told[0].remaining == pytest.approx(2 * told[0].elapsed, rel=0.01)
    assert told[2].remaining == 0
    for epoch in result.history:
        assert epoch.losses["total"] == pytest.approx(sum(v for n, v in epoch.losses.items() if n != "total"), rel=1e-5)


def test_the_rate_rises_and_falls(tmp_path):
    """The rate grows in a line over the warm-up and falls by half a cosine to its last share."""
    config = TrainingConfig(
        epochs=10, batch_size=8, learning_rate=0.5, warmup=0.3, final_rate=0.1, patience=0, gradient_clip=1.0
    )
    result = fitted(tmp_path, config=config, select=None, loss=never)
    rates = [epoch.learning_rate for epoch in result.history]  # one step an epoch

    def cosine(step):
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10))

    assert rates[:3] == pytest.approx([0.5 * (n + 1) / 3 * cosine(n) for n in range(3)])
    assert rates[3:] == pytest.approx([0.5 * cosine(n) for n in range(3, 10)])


def test_long_gradients_are_clipped(tmp_path):
    """A step's gradient is shortened to the limit: with AdamW's first moments that shows in what is kept of it."""

    def steep(predictions, context):
        return {name: 1e4 * part for name, part in torchvision_loss(predictions, context).items()}

    def length(clip):
        path = tmp_path / str(clip)
        config = attrs.evolve(CONFIG, epochs=1, batch_size=8, gradient_clip=clip)  # one step
        fitted(path, config=config, loss=steep, select=None)
        state = checkpoint(path).read()
        moments = [v for n, v in state.tensors.items() if n.startswith("optimizer.exp_avg.")]
        return 10 * float(torch.cat([m.flatten() for m in moments]).norm())  # a tenth of the first gradient

    assert length(2.0) == pytest.approx(2.0, rel=1e-3)
    assert length(0.0) > 1000


def test_matrices_decay_and_biases_do_not(tmp_path):
    """Weight decay takes from matrices and kernels alone."""
    config = attrs.evolve(CONFIG, epochs=1, batch_size=8, weight_decay=0.5, learning_rate=0.1, ema_decay=0, warmup=0)
    job = task(tmp_path, loss=never, select=None, config=config)
    for parameter in job.network.parameters():
        torch.nn.init.ones_(parameter)
    tensors = fit(job, checkpoint=checkpoint(tmp_path)).tensors
    for name, value in tensors.items():
        expected = 1 - 0.1 * 0.5 if value.dim() > 1 else 1.0
        assert value.unique().tolist() == pytest.approx([expected]), name
