"""The select role: what weights are worth, what is better, and in which order samples come."""

from collections import Counter

import attrs
import numpy as np
import pytest
import torch
from training_fixtures import CLASSES, CONFIG, SELECT, TRAIN, head, learn_shapes, shape_sample, task

from hydra_detect import answers
from hydra_detect.data.samples import Samples
from hydra_detect.measure.matching import count
from hydra_detect.names import HeadRef
from hydra_detect.training import selection
from hydra_detect.training.features import stack
from hydra_detect.training.progress import EpochRecord
from hydra_detect.training.selection import Judged, is_better, judge, order


def judged(f1, total):
    """Return what weights are worth."""
    return Judged(select_losses={"total": total}, f1=f1, precision=0.0, recall=0.0)


def best(f1, total):
    """Return the best epoch so far."""
    return EpochRecord(epoch=1, losses={}, f1=f1, select_losses={"total": total}, is_best=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Give a folder with features, and a head that has learnt a little."""
    folder = tmp_path_factory.mktemp("trained")
    config = attrs.evolve(CONFIG, epochs=8, learning_rate=1e-2)
    network = head()
    network.load_state_dict(learn_shapes(folder, config=config).network.state_dict())
    return folder, network.eval()


def test_the_first_epoch_is_the_best_so_far():
    """Whatever the first epoch came to, it is better than nothing, and than one without figures."""
    for monitor in ("f1", "loss"):
        config = attrs.evolve(CONFIG, monitor=monitor, min_delta=1)
        assert is_better(judged(0.0, 1e9), None, config)
        assert is_better(judged(0.0, 1e9), EpochRecord(epoch=1, losses={}), config)


@pytest.mark.parametrize(
    ("monitor", "min_delta", "f1", "total", "expected"),
    [
        ("f1", 0.0, 0.6, 9.0, True), ("f1", 0.0, 0.4, 0.1, False), ("f1", 0.0, 0.5, 1.0, False),
        ("f1", 0.0, 0.5, 0.9, True), ("f1", 0.0, 0.5, 1.1, False), ("f1", 0.05, 0.54, 0.1, False),
        ("f1", 0.05, 0.56, 9.0, True), ("f1", 0.05, 0.5, 0.1, False), ("loss", 0.0, 0.1, 0.99, True),
        ("loss", 0.0, 0.9, 1.0, False), ("loss", 0.2, 0.9, 0.9, False), ("loss", 0.2, 0.1, 0.7, True),
    ],
)  # fmt: skip
def test_what_is_better(monitor, min_delta, f1, total, expected):
    """Better is a higher F1, or a lower loss, by more than min_delta; of equal F1 the lower loss, where that is 0."""
    config = attrs.evolve(CONFIG, monitor=monitor, min_delta=min_delta)
    assert is_better(judged(f1, total), best(0.5, 1.0), config) is expected


@pytest.mark.parametrize("min_delta", [0.0, 0.05])
def test_while_nothing_is_found_the_loss_decides(min_delta):
    """As long as F1 is nothing the lower loss is better, however much F1 is asked to gain."""
    config = attrs.evolve(CONFIG, min_delta=min_delta)
    assert is_better(judged(0.0, 0.9), best(0.0, 1.0), config)
    assert not is_better(judged(0.0, 1.1), best(0.0, 1.0), config)
    assert is_better(judged(0.06, 1.1), best(0.0, 1.0), config)


def history(*figures):
    """Return epochs with these F1s, each with the loss 1."""
    return [EpochRecord(epoch=n, losses={}, f1=f1, select_losses={"total": 1.0}) for n, f1 in enumerate(figures, 1)]


def test_the_highest_of_all_epochs():
    """It is the first epoch with the highest F1, or with min_delta the first that nothing beats by so much."""
    assert selection.highest([], CONFIG) is None
    assert selection.highest(history(None, None), CONFIG) is None
    assert selection.highest(history(0.2, 0.6, 0.5, 0.6, 0.1), CONFIG).epoch == 2
    patient = attrs.evolve(CONFIG, min_delta=0.05)
    assert selection.highest(history(0.2, 0.6, 0.64, 0.66, 0.1), patient).epoch == 4
    assert selection.highest(history(0.2, 0.6, 0.64, 0.649, 0.1), patient).epoch == 2


@pytest.mark.parametrize("labels", [1, 4, 25, 100])
def test_what_cannot_be_told_from_the_best(tmp_path, labels):
    """Near is a standard error of the highest F1 over the labels; of an F1 of 1 that is nothing, and of a loss too."""
    things = ("disc", 4, 4, 20, 20)
    select = Samples(items=[shape_sample("many", *[things] * labels)], class_names=CLASSES)
    job, best_one = attrs.evolve(task(tmp_path), select=select), history(0.6)[0]
    error = (0.6 * 0.4 / labels) ** 0.5
    assert selection.is_as_good(judged(0.6 - error + 1e-9, 9.0), best_one, job)
    assert not selection.is_as_good(judged(0.6 - error - 1e-9, 0.1), best_one, job)
    assert not selection.is_as_good(judged(0.999, 1.0), history(1.0)[0], job)
    assert selection.is_as_good(judged(1.0, 1.0), history(1.0)[0], job)
    by_loss = attrs.evolve(job, config=attrs.evolve(job.config, monitor="loss"))
    assert not selection.is_as_good(judged(0.6, 1.0), best_one, by_loss)
    assert not selection.is_as_good(judged(0.0, 1.0), history(0.0)[0], job)
    assert not selection.is_as_good(judged(0.6, 1.0), None, job)


def detected(network, sample, job):
    """Return what a head detects in a sample, down to scores of 0.02."""
    seen = job.source.plain(sample)
    (output,) = network(stack([seen.encoded]), score_threshold=0.02)
    size = seen.encoded.original_size
    return answers.of_head(output, CLASSES, ref=HeadRef("candidate"), image_size=size, source=seen.sample)


def test_figures_are_those_of_the_best_threshold(trained):
    """F1, precision and recall are those of matching at the one score threshold where F1 is highest."""
    folder, network = trained
    job = task(folder)
    found = judge(network, job)
    with torch.no_grad():
        detections = [detected(network, sample, job) for sample in SELECT]
    scores = np.unique(np.concatenate([one.scores for one in detections]))
    assert len(scores) > 5

    truths = [sample.truth for sample in SELECT]
    counts = [count(detections, truths, score=float(score)) for score in scores]
    best_count = max(counts, key=lambda one: one.f1)
    assert found.f1 == pytest.approx(best_count.f1) != 0
    assert found.precision == pytest.approx(best_count.precision)
    assert found.recall == pytest.approx(best_count.recall)


def test_judging_is_repeatable_and_changes_nothing(trained):
    """The same weights are worth the same, whatever was drawn before; mode, weights and chance are as they were."""
    folder, network = trained
    job, before = task(folder), {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    first = judge(network, job)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert judge(network, job) == first
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_selection_loss_is_that_of_a_step(trained):
    """It is the mean over the samples of what a step would take, over the proposals that detections are chosen from."""
    folder, network = trained
    one = Samples(items=[SELECT[0]], class_names=CLASSES)
    job = task(folder, select=one)
    found = judge(network, job).select_losses
    with torch.no_grad():
        torch.manual_seed(0)
        expected = {name: float(value) for name, value in job.losses(network, [job.source.plain(SELECT[0])]).items()}
    assert found == pytest.approx({**expected, "total": sum(expected.values())})
    assert found["box"] > 0
    both = judge(network, task(folder, select=SELECT)).select_losses
    assert both["total"] == pytest.approx(sum(value for name, value in both.items() if name != "total"))


def test_a_sample_is_looked_at_once(trained):
    """One pass of encoder, first stage and box head gives loss and detections; the labels are none of what is found."""
    folder, network = trained
    seen_by = Counter()

    def encoder(_network, features):
        seen_by["encoder"] += 1
        return features

    job = attrs.evolve(task(folder), encoder=encoder)
    parts = {"first stage": network.rpn.head, "box head": network.roi_heads.box_head}
    hooks = [part.register_forward_hook(lambda *_, name=name: seen_by.update([name])) for name, part in parts.items()]
    judge(network, job)
    for hook in hooks:
        hook.remove()
    assert seen_by == dict.fromkeys(("encoder", *parts), len(SELECT))
    for sample in SELECT:
        with torch.no_grad():
            _losses, output = job.judged(network, job.source.plain(sample), score_threshold=0.02)
            own = selection._detections(output, job.source.plain(sample), job)
            expected = detected(network, sample, job)
        assert len(own) == len(expected)
        assert own.boxes == pytest.approx(expected.boxes, abs=1e-4)
        assert own.scores == pytest.approx(expected.scores, abs=1e-6)


def test_nothing_to_find_and_nothing_found(trained):
    """On backgrounds F1 is 0 though nothing is missed, and where nothing is found at all too."""
    folder, network = trained
    empty = Samples(items=[shape_sample("e0")], class_names=CLASSES)
    found = judge(network, task(folder, select=empty))
    assert (found.f1, found.recall) == (0, 0)
    silent = head(settings=attrs.evolve(network.settings, detections_per_image=1, nms_threshold=0.0)).eval()
    for parameter in silent.roi_heads.box_predictor.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        silent.roi_heads.box_predictor.cls_score.bias[0] = 50.0  # background everywhere
    found = judge(silent, task(folder))
    assert (found.f1, found.precision, found.recall) == (0, 0, 0)
    assert found.select_losses["total"] > 0


def test_shuffled_order(tmp_path):
    """Each sample comes once, in an order of chance that the seed decides."""
    job = task(tmp_path)
    torch.manual_seed(0)
    first, second = order(job), order(job)
    assert sorted(first) == sorted(second) == list(range(len(TRAIN)))
    assert first != second
    torch.manual_seed(0)
    assert order(job) == first


def test_balanced_order_draws_rare_classes_more_often(tmp_path):
    """A sample weighs the inverse root of its rarest class's frequency; a background as much as the least of them."""
    disc, square = ("disc", 2, 2, 20, 20), ("square", 30, 2, 50, 20)
    items = [shape_sample(f"d{n}", disc) for n in range(16)]
    items += [shape_sample("both", disc, square), shape_sample("empty")]
    job = task(
        tmp_path,
        train=Samples(items=items, class_names=(*CLASSES, "ring")),  # of which there is none
        config=attrs.evolve(CONFIG, sampler="balanced"),
    )
    torch.manual_seed(0)
    drawn = Counter(place for _ in range(400) for place in order(job))
    assert all(len(order(job)) == len(items) for _ in range(3))
    common = np.mean([drawn[place] for place in range(16)])
    assert drawn[16] / common == pytest.approx(17**0.5, rel=0.1)
    assert drawn[17] / common == pytest.approx(1, rel=0.15)


def test_balanced_order_of_backgrounds_alone(tmp_path):
    """Without any label all samples weigh the same, and a training set of one is drawn again and again."""
    empty = Samples(items=[shape_sample(f"e{n}") for n in range(3)], class_names=CLASSES)
    job = task(tmp_path, train=empty, config=attrs.evolve(CONFIG, sampler="balanced"))
    torch.manual_seed(0)
    assert {place for _ in range(20) for place in order(job)} == {0, 1, 2}


def test_training_on_a_balanced_order(tmp_path):
    """The loop trains on whatever the order holds, twice the same sample too."""
    learnt = learn_shapes(tmp_path, config=attrs.evolve(CONFIG, epochs=2, sampler="balanced"))
    assert len(learnt.fitted.history) == 2
    assert learnt.fitted.best.f1 is not None
