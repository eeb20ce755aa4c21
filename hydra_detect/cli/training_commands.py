"""The commands that learn and measure: train, train-original, evaluate, calibrate, runs."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003  cyclopts reads annotations as it runs
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
from cyclopts import App, Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import (
    EndpointOption,
    Flag,
    Integer,
    JsonOption,
    LongInteger,
    StoreOption,
    WholeNumber,
    progress_bar,
    store_folder,
)
from hydra_detect.codec import to_dict
from hydra_detect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hydra_detect.data.samples import Samples
    from hydra_detect.training.config import TrainingConfig

_SETTING = "one of the settings of hydra_detect.TrainingConfig, as epochs=20; counts for most"


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DataOptions:
    """Which labelled samples."""

    data: Annotated[Path, Parameter(help="labels: a COCO json, a folder of VOC xml, a YOLO data.yaml or folder, a CSV")]
    format: Annotated[
        Literal["coco", "voc", "yolo", "csv"] | None, Parameter(help="what the labels are; recognised if left out")
    ] = None
    pictures: Annotated[Path | None, Parameter(help="folder that picture names are relative to")] = None
    class_: Annotated[
        list[str],
        Parameter(
            name="--class",
            negative=(),
            consume_multiple=True,
            help="a class to use, or NEW=OLD,OLD to merge; all if none",
        ),
    ] = attrs.field(factory=list)
    group: Annotated[
        str | None, Parameter(help="regular expression: samples whose ids match alike never come apart")
    ] = None
    near_duplicates: Annotated[
        bool, Parameter(negative=(), help="keep pictures that look alike together; a minute for thousands")
    ] = False
    missing: Annotated[Literal["refuse", "skip"], Parameter(help="what to do about missing pictures")] = "refuse"
    voc_from_one: Annotated[
        bool, Parameter(negative=(), help="VOC whose pixels are counted from 1, as its own devkit does")
    ] = False

    def read(self) -> Samples:
        """Read them."""
        from hydra_detect.data.classes import parse_classes
        from hydra_detect.data.reading import read_samples

        samples = read_samples(
            self.data,
            format=self.format,
            pictures=self.pictures,
            classes=parse_classes(self.class_) if self.class_ else None,
            group=self.group,
            missing=self.missing,
            voc_from_one=self.voc_from_one,
        )
        if self.near_duplicates:
            from hydra_detect.data.duplicates import group_near_duplicates

            samples = group_near_duplicates(samples)
        return samples


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ConfigOptions:
    """How to learn."""

    preset: Annotated[Literal["fast", "balanced", "quality", "extreme"], Parameter(help="settings by name")] = (
        "balanced"
    )
    config: Annotated[Path | None, Parameter(help="a .toml or .json file of settings")] = None
    set_: Annotated[
        list[str],
        Parameter(name="--set", negative=(), consume_multiple=True, help=_SETTING),
    ] = attrs.field(factory=list)
    seed: Annotated[LongInteger, Parameter(help="of every random choice")] = 0
    device: Annotated[str, Parameter(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")] = "auto"
    cache: Annotated[Path | None, Parameter(help="folder for features that are computed once")] = None

    def resolve(self, **options: str | None) -> TrainingConfig:
        """Return the settings: preset, file, environment, command line, in that order; options of their own last."""
        from hydra_detect.training.config import resolve_config

        given: dict[str, Any] = {}
        for item in self.set_:
            name, equals, value = item.partition("=")
            if not equals:
                raise InputError("read --set", f"{item!r:.80} has no '='", "Write --set epochs=20.")
            given[name.strip().replace("-", "_")] = value
        given |= {name: value for name, value in options.items() if value is not None}
        return resolve_config(self.preset, file=self.config, environment=os.environ, given=given)


def train(  # noqa: PLR0913  each is an option that a person may give
    head: str,
    /,
    *,
    data: DataOptions,
    store: StoreOption = None,
    each_class: Annotated[bool, Flag] = False,
    how: ConfigOptions = ConfigOptions(),
    init: str = "auto",
    kind: Literal["full", "compact"] | None = None,
    rank: str | None = None,
    reference: str | None = None,
    backbone: str | None = None,
    publish: bool = True,
    promote_anyway: Annotated[bool, Flag] = False,
    plots: Path | None = None,
    json: JsonOption = False,
) -> int:
    """Train a head on a frozen backbone; measure, calibrate and publish it; promote it if it is better.

    Parameters
    ----------
    head
        Name of the head; with --each-class what the heads' names begin with.
    each_class
        Make one head for each class.
    init
        What the weights start from: auto, active, fresh, or NAME@VERSION.
    kind
        full, or compact: low-rank differences from a reference head; the same as --set kind=compact.
    rank
        Of a compact head's differences: such as 16 for every layer (32 where it is left out), or
        rpn:8,fc6:32,fc7:whole; the same as --set rank=16.
    reference
        The full head that a compact one leans on, as NAME@VERSION; the one that others lean on where it is left out.
    backbone
        Name of the backbone of a new head; needed only where the store has several.
    publish
        Make a version of it.
    promote_anyway
        Make it active whatever the figures say.
    plots
        A new or empty folder for plots of its figures and its calibration; needs the extra plot.

    """
    from hydra_detect.lifecycle.each_class import ClassOutcome, train_each_class
    from hydra_detect.lifecycle.plots import check_plots, save_plots
    from hydra_detect.lifecycle.train import train_head
    from hydra_detect.training.tools import Tools

    folder, config, samples = store_folder(store), how.resolve(kind=kind, rank=rank), data.read()
    if plots:
        check_plots(plots)
    options: dict[str, Any] = {
        "config": config,
        "seed": how.seed,
        "init": init,
        "reference": reference,
        "backbone": backbone,
        "publish": publish,
        "promote_anyway": promote_anyway,
        "device": how.device,
        "tools": Tools(cache=how.cache),
    }
    outcomes: Iterable[ClassOutcome] = (
        train_each_class(folder, head, samples, **options)
        if each_class
        else [ClassOutcome(head=head, report=train_head(folder, head, samples, **options))]
    )
    done = []
    for outcome in outcomes:
        done.append(outcome)
        if not json:
            output.say(str(outcome))
        if plots and outcome.report:
            save_plots(plots / outcome.head if each_class else plots, outcome.report.metrics)
    if json:
        told = [outcome.to_dict() for outcome in done]
        output.say(output.as_json(told if each_class else told[0]))
    return int(any(outcome.error for outcome in done))


def train_original(  # noqa: PLR0913  same
    head: str,
    /,
    *,
    data: DataOptions,
    store: StoreOption = None,
    architecture: str = "resnet18",
    weights: str | None = None,
    min_size: WholeNumber = 800,
    max_size: WholeNumber = 1333,
    pyramid_channels: WholeNumber = 256,
    box_width: WholeNumber = 1024,
    backbone: str = "default",
    endpoint: EndpointOption = None,
    how: ConfigOptions = ConfigOptions(),
    json: JsonOption = False,
) -> int:
    """Train a whole detector where there is no checkpoint yet, and split it: a store's first backbone and head.

    Parameters
    ----------
    head
        Name of the head.
    architecture
        resnet18, resnet34, resnet50, resnet101, resnet152 or mobilenet_v3_large.
    weights
        imagenet for torchvision's classifier; a detector's file, torchvision:NAME or an hf://; random ones if left out.
    min_size
        Shorter side of the resized picture, pixels.
    max_size
        Limit of its longer side, pixels.
    pyramid_channels
        Channels of every level.
    box_width
        Width of the box head's linear layers.
    backbone
        Name of the new backbone.
    endpoint
        Address of the Hub that weights at an hf:// are on; else $HF_ENDPOINT, or the public one.

    """
    from hydra_detect.lifecycle.original import train_original as train_whole
    from hydra_detect.training.original import OriginalSettings
    from hydra_detect.training.tools import Tools

    folder, config, samples = store_folder(store), how.resolve(), data.read()
    report = train_whole(
        folder,
        head,
        samples,
        settings=OriginalSettings(
            architecture=architecture,
            weights=weights,
            min_size=min_size,
            max_size=max_size,
            pyramid_channels=pyramid_channels,
            box_width=box_width,
        ),
        backbone=backbone,
        config=config,
        seed=how.seed,
        device=how.device,
        endpoint=endpoint,
        tools=Tools(cache=how.cache),
    )
    output.say(output.as_json(report.to_dict()) if json else str(report))
    return 0


def evaluate(
    head: str,
    /,
    *,
    data: DataOptions,
    store: StoreOption = None,
    allow_seen: Annotated[bool, Flag] = False,
    own_test: Annotated[bool, Flag] = False,
    draws: Integer = 1000,
    plots: Path | None = None,
    device: str = "auto",
    json: JsonOption = False,
) -> int:
    """Measure a version on labelled samples, at its operating point.

    Parameters
    ----------
    head
        Head, or NAME@VERSION.
    allow_seen
        Measure on samples that it was made from, too; no evidence of quality, and the answer says so.
    own_test
        Measure only on those that were for testing when it was made: give the data that it was trained with.
    draws
        How often groups are drawn for the 95 % intervals.
    plots
        A new or empty folder for plots and pictures of the worst misses; needs the extra plot.
    device
        cpu, cuda, ...

    """
    from hydra_detect.lifecycle.judging import evaluate as measure_version

    folder, samples = store_folder(store), data.read()
    with progress_bar("samples") as progress:
        metrics = measure_version(
            folder,
            head,
            samples,
            allow_seen=allow_seen,
            own_test=own_test,
            draws=draws,
            plots=plots,
            device=device,
            progress=progress,
        )
    output.say(output.as_json(metrics.to_dict()) if json else str(metrics))
    return 0


def calibrate(
    head: str,
    /,
    *,
    store: StoreOption = None,
    objective: str = "f1",
    data: DataOptions | None = None,
    device: str = "auto",
    json: JsonOption = False,
) -> int:
    """Make a version with the same weights and another operating policy; it is not promoted.

    Parameters
    ----------
    head
        Head, or NAME@VERSION.
    objective
        What thresholds are chosen for: f1, fbeta:2, mcc, recall@precision:0.9.
    data
        Labelled samples that it never saw; without them the scores that were kept with the version are used.
    device
        cpu, cuda, ...

    """
    from hydra_detect.lifecycle.judging import calibrate as fit_policy

    samples = None if data is None else data.read()
    with progress_bar("samples") as progress:
        version = fit_policy(store_folder(store), head, samples, objective=objective, device=device, progress=progress)
    policy = version.record.operating_policy
    told = "" if policy is None else f": {policy.objective}, threshold {policy.score_threshold:.3f}"
    facts = {"head": version.head, "version": version.number, "policy": to_dict(policy)}
    output.say(output.as_json(facts) if json else f"{version}{told}; not active yet")
    return 0


runs = App(name="runs", help="What trainings left: their figures side by side.")


@runs.command
def compare(*heads: str, store: StoreOption = None, json: JsonOption = False) -> int:
    """Show finished trainings side by side; figures of different samples do not compare.

    The exit code is 1 if a report is damaged.

    Parameters
    ----------
    heads
        Only those of these heads.

    """
    from hydra_detect.lifecycle.runs import DAMAGED, compare_runs

    found = compare_runs(store_folder(store), heads)
    output.say(output.as_json([run.to_dict() for run in found]) if json else output.runs_table(found))
    return int(any(run.outcome == DAMAGED for run in found))


COMMANDS = (train, train_original, evaluate, calibrate)
