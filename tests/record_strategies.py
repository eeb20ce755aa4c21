"""Hypothesis strategies for names, tensors and records."""

import string

import attrs
import numpy as np
from hypothesis import strategies as st

from hydra_detect.contracts import Architecture, BackboneContract, Level, Preprocessing
from hydra_detect.names import Digest
from hydra_detect.records import (
    BackboneRecord,
    Environment,
    HeadRecord,
    HeadSettings,
    OperatingPolicy,
    ParitySummary,
    SourceRecord,
)
from hydra_detect.tensors import RawTensor

DEVICES = ("con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)))
FIRST = string.ascii_lowercase + string.digits

names = st.builds(str.__add__, st.sampled_from(FIRST), st.text(FIRST + "-_", max_size=63)).filter(
    lambda name: name not in DEVICES
)
versions = st.integers(1, 999_999_999)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
labels = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
shares = st.floats(0, 1)
positives = st.floats(1e-6, 1e6)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
unknowns = st.dictionaries(texts.map(lambda text: f"later {text}"), json_values, max_size=2)


@st.composite
def raw_tensors(draw):
    """Draw a RawTensor of float32 with up to three axes, some of them empty."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = int(np.prod(shape, dtype=int))
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=size, max_size=size))
    return RawTensor.of(np.array(values, dtype=np.float32).reshape(shape))


tensor_names = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).filter(lambda name: name[:2] != "__")
tensor_sets = st.dictionaries(tensor_names, raw_tensors(), max_size=4)


@st.composite
def preprocessings(draw):
    """Draw a Preprocessing."""
    low, high = sorted(draw(st.tuples(*[st.integers(1, 1_000_000)] * 2)))
    channels = draw(st.integers(0, 4))
    return Preprocessing(
        min_size=low,
        max_size=high,
        mean=draw(st.lists(finite, min_size=channels, max_size=channels)),
        std=draw(st.lists(positives, min_size=channels, max_size=channels)),
        size_divisor=draw(st.integers(1, 4096)),
        unknown=draw(unknowns),
    )


architectures = st.builds(
    Architecture,
    body=st.sampled_from(["resnet", "mobilenet_v3_large"]),
    in_channels=st.integers(1, 1024),
    return_layers=st.lists(texts, min_size=1, max_size=4),
    body_channels=st.lists(st.integers(1, 4096), max_size=4),
    pyramid_channels=st.integers(1, 65536),
    norm=st.sampled_from(["frozen", "batch"]),
    norm_eps=shares,
    pyramid_norm=st.booleans(),
    pyramid_norm_eps=shares,
    block=st.sampled_from([None, "basic", "bottleneck"]),
    layers=st.lists(st.integers(1, 200), max_size=4),
    groups=st.integers(1, 1024),
    width_per_group=st.integers(1, 4096),
    unknown=unknowns,
)
levels = st.builds(Level, name=texts, channels=st.integers(1, 4096), stride=st.integers(1, 4096), unknown=unknowns)
contracts = st.builds(
    BackboneContract,
    digest=digests,
    architecture=architectures,
    preprocessing=preprocessings(),
    levels=st.lists(levels, min_size=1, max_size=3).map(tuple),
    unknown=unknowns,
)
sources = st.builds(
    SourceRecord,
    file=texts,
    sha256=digests,
    renamed=st.dictionaries(texts, texts, max_size=2),
    assumed=st.lists(texts, max_size=2).map(tuple),
    unknown=unknowns,
)
parities = st.builds(
    ParitySummary,
    equal=st.booleans(),
    stages=st.integers(0, 99),
    numbers_compared=st.integers(0, 2**60),
    max_absolute_difference=finite,
    outputs=st.dictionaries(texts, digests, max_size=2),
    environment=st.builds(Environment, torch=texts, torchvision=texts, cpu=texts, threads=st.integers(1, 64)),
    unknown=unknowns,
)
policies = st.builds(
    OperatingPolicy,
    score_threshold=shares,
    chosen_on=texts,
    temperature=st.floats(1e-3, 1e3),
    class_thresholds=st.dictionaries(texts, shares, max_size=2),
    objective=texts,
    unknown=unknowns,
)
backbone_records = st.builds(
    BackboneRecord,
    contract=contracts,
    source=st.none() | sources,
    libraries=st.dictionaries(texts, texts, max_size=2),
    unknown=unknowns,
)


@st.composite
def head_settings(draw, label_count):
    """Draw HeadSettings for so many labels."""
    levels_count, sizes, ratios = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))

    def rows(length):
        row = st.lists(positives, min_size=length, max_size=length)
        return draw(st.lists(row, min_size=levels_count, max_size=levels_count))

    return HeadSettings(
        label_count=label_count,
        anchor_sizes=rows(sizes),
        aspect_ratios=rows(ratios),
        box_head=draw(st.sampled_from(["mlp", "conv_fc"])),
        box_widths=draw(st.lists(st.integers(1, 4096), min_size=1, max_size=3)),
        roi_levels=draw(st.lists(texts, min_size=1, max_size=3)),
        score_threshold=draw(shares),
        box_coder_weights=draw(st.lists(positives, min_size=4, max_size=4)),
        unknown=draw(unknowns),
    )


@st.composite
def head_records(draw):
    """Draw a HeadRecord."""
    classes = draw(st.lists(labels, min_size=1, max_size=4))
    policy = draw(st.none() | policies)
    if policy:
        own = draw(st.dictionaries(st.sampled_from(classes), shares, max_size=2))
        policy = attrs.evolve(policy, class_thresholds=own)
    return HeadRecord(
        tensors=draw(digests),
        backbone=draw(contracts),
        backbone_name=draw(names),
        settings=draw(head_settings(len(classes) + 1)),
        class_names=classes,
        operating_policy=policy,
        source=draw(st.none() | sources),
        parity=draw(st.none() | parities),
        sample_count=draw(st.none() | st.integers(0, 2**60)),
        claimed_metrics=draw(st.dictionaries(texts, finite | st.integers(-9, 9), max_size=2)),
        notes=draw(texts),
        unknown=draw(unknowns),
    )
