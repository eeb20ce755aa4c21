"""The card of a repository: what a release is, for people, and for the Hub's own search.

All of it follows from the release, and a card that somebody has edited is never written over. Texts of others stand in
it as data: each line of the front matter is JSON, which is YAML, too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import drawing
from hydra_detect.errors import InputError
from hydra_detect.hub import layout
from hydra_detect.names import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hydra_detect.detections import Detections
    from hydra_detect.hub.documents import BackboneConfig, Glance, HeadConfig
    from hydra_detect.hub.receiving import Beside
    from hydra_detect.hub.refs import HubRef
    from hydra_detect.measure.metrics import Metrics
    from hydra_detect.records import HeadRecord

_PIPELINE = "object-detection"
_ALWAYS = {"library_name": "hydra-detect", "pipeline_tag": _PIPELINE}
_MOST_CLASSES = 20
_PNG, MOST_PICTURE = b"\x89PNG\r\n\x1a\n", 5 << 20
_FEW = 100  # samples, of which the card says how few they are
_FIGURES = (("F1", "f1"), ("precision", "precision"), ("recall", "recall"))


@attrs.frozen(kw_only=True)
class About:
    """What only whoever publishes can say.

    Args:
        license: As the Hub names it: "mit", "apache-2.0".
        data: What it was trained on, and under which licence that is.
        description: What it is for, in a sentence or two.
        picture: A PNG file that shows what it finds, of at most 5 MiB.
        example: Instead of it what the head found in a photograph: the card shows that with its boxes.

    """

    license: str = ""
    data: str = ""
    description: str = ""
    picture: bytes | None = attrs.field(default=None, repr=False)
    example: Detections | None = attrs.field(default=None, repr=False)

    @picture.validator
    def _check(self, _attribute: object, value: bytes | None) -> None:
        if value is None or (isinstance(value, bytes) and value.startswith(_PNG) and len(value) <= MOST_PICTURE):
            return
        found = f"it is no PNG file of at most {MOST_PICTURE >> 20} MiB"
        raise InputError("put a picture on a card", found, "Give the bytes of one.")

    def __attrs_post_init__(self) -> None:
        """Refuse an example whose photograph is not there to be drawn on."""
        if self.example is not None and not self.files():
            found = f"the photograph that they are of ({self.example.source or 'no file'}) cannot be read"
            raise InputError("draw detections on a card", found, "Predict from a file that is still there.")

    def files(self) -> dict[str, bytes]:
        """Return the files that lie beside the card."""
        shown = self.picture if self.example is None else drawing.png(self.example)
        return {} if shown is None else {layout.PICTURE: shown}


def of_head(config: HeadConfig, beside: Beside, target: HubRef, about: About) -> bytes:
    """Return the card of a head.

    Args:
        config: The release.
        beside: What was measured of it.
        target: Where it will lie.
        about: What its record does not say.

    """
    record = config.record
    facts = {
        **_made_on(config.backbone.repo),
        **_licence(about),
        "tags": [layout.HEAD_TAG, *_signals(record.class_names)],
        **_model_index(config.name, beside.evaluation),
    }
    lines = [
        f"# {config.name}",
        "",
        f"Detects {_named(record.class_names)}. {one_line(about.description)}".rstrip(),
        "",
        *_picture(about),
        *_use(config.backbone.repo, str(attrs.evolve(target, revision=f"v{config.release}"))),
        "## What it is",
        "",
        *_table(_facts(config)),
        "",
        *_quality(beside.evaluation),
        "## What it learnt from",
        "",
        one_line(about.data) or "Whoever published it did not say.",
        *_remembered(beside),
        "",
        "## Limits",
        "",
        *_limits(record, beside.evaluation),
        "",
    ]
    return _written(facts, lines)


def of_backbone(config: BackboneConfig, target: HubRef, about: About) -> bytes:
    """Return the card of a backbone, as `of_head` does of a head."""
    contract = config.record.contract
    sizes = contract.preprocessing
    facts = {**_ALWAYS, **_licence(about), "tags": [layout.BACKBONE_TAG]}
    levels = [f"{level.name}: {level.channels} channels, stride {level.stride}" for level in contract.levels]
    rows = {
        "architecture": contract.architecture.name,
        "levels": ", ".join(levels),
        "shorter side, longer side": f"{sizes.min_size}, {sizes.max_size} pixels",
        "mean, deviation": f"{_numbers(sizes.mean)}; {_numbers(sizes.std)}",
        "weights": f"{config.files[layout.TENSORS][0] / 1e6:.1f} MB, digest `{contract.digest}`",
    }
    told = f"A frozen backbone for many heads. {one_line(about.description)}".rstrip()
    lines = [
        *(f"# {config.name}", "", told, ""),
        *_picture(about),
        *_use(target.repo, "ORG/HEAD@v1"),
        f"`hydra-detect search --backbone {target.repo}` lists the heads that were made on it.",
        "",
        "## What it is",
        "",
        *_table(rows),
        "",
        "## What it learnt from",
        "",
        one_line(about.data) or "Whoever published it did not say.",
        "",
    ]
    return _written(facts, lines)


def of_pack(repo: str, heads: Mapping[str, Glance]) -> bytes:
    """Return the card of a repository of many heads."""
    lines = [
        f"# {repo.partition('/')[2]}",
        "",
        f"Many heads, each in a folder of its own under `{layout.HEADS}/`; `{layout.INDEX}` lists them.",
        "",
        "```python",
        "from hydra_detect import pull",
        "",
        f'pull("{repo}/NAME@v1", "store")  # downloads that head alone',
        "```",
        "",
    ]
    return _written(_many(heads), lines)


def of_whole(card: bytes, heads: Mapping[str, Glance]) -> bytes | None:
    """Return the card of a backbone in whose repository heads lie, too: a search for heads that fit it finds them.

    Args:
        card: As this module wrote it, with heads or without.
        heads: All that lie there.

    Returns:
        The card; None if this module never wrote that one.

    """
    try:
        _opening, *lines = card.decode().split("\n")
        end = lines.index("---")
        facts = {name: json.loads(value) for name, _colon, value in (line.partition(": ") for line in lines[:end])}
    except ValueError:
        return None
    more = _many(heads)
    return _written({**facts, **more, "tags": [layout.BACKBONE_TAG, *more["tags"]]}, lines[end + 2 :])


def _many(heads: Mapping[str, Glance]) -> dict[str, Any]:
    """Return what the Hub is to find the heads of a repository by: what they were made on, and what they detect."""
    signals = sorted({name for one in heads.values() for name in one.class_names})
    backbones = sorted({one.backbone_repo for one in heads.values()})
    return {**_made_on(backbones), "tags": [layout.HEAD_TAG, layout.PACK_TAG, *_signals(signals)]}


def _made_on(backbones: str | list[str]) -> dict[str, Any]:
    return {**_ALWAYS, "base_model": backbones, "base_model_relation": "adapter"}


def _licence(about: About) -> dict[str, Any]:
    return {"license": about.license} if about.license else {}


def _signals(names: Sequence[str]) -> list[str]:
    return [f"{layout.SIGNAL_TAG}{name}" for name in names[:_MOST_CLASSES]]


def _written(facts: Mapping[str, Any], lines: Sequence[str]) -> bytes:
    head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
    return "\n".join(["---", *head, "---", "", *lines]).encode()


def _picture(about: About) -> list[str]:
    return [line for name in about.files() for line in (f"![What it finds]({name})", "")]


def _named(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_CLASSES
    return ", ".join(f"`{name}`" for name in names[:_MOST_CLASSES]) + (f" and {rest} more" if rest > 0 else "")


def _use(backbone: str, head: str) -> list[str]:
    return [
        "```python",
        "from hydra_detect import HydraDetector",
        "",
        f'detector = HydraDetector.from_pretrained("{backbone}", heads=["{head}"])',
        'detections = detector.predict("picture.jpg")',
        "```",
        "",
    ]


def _facts(config: HeadConfig) -> dict[str, str]:
    record, policy = config.record, config.record.policy
    form, parity = "full", "not compared"
    if record.compact:
        ranks = "/".join(map(str, sorted(set(record.compact.ranks.values()))))
        form = f"compact: differences of rank {ranks} from the head with the weights `{record.compact.reference}`"
    if record.parity:
        equal = "equal to its original, bit for bit" if record.parity.equal else "differs from its original"
        parity = f"{equal}, in {record.parity.stages} stages, {record.parity.numbers_compared} numbers"
    return {
        "release": f"v{config.release}",
        "kind": form,
        "weights": f"{config.files[layout.TENSORS][0] / 1e6:.2f} MB, digest `{record.tensors}`",
        "backbone": f"`{config.backbone.repo}`, commit `{config.backbone.commit}`, digest `{record.backbone.digest}`",
        "proposals looked at": str(record.settings.rpn_post_nms_top_n),
        "scores": f"read at temperature {policy.temperature:.3g}, counted from {policy.score_threshold:.3g}",
        "parity": parity,
    }


def _remembered(beside: Beside) -> list[str]:
    if beside.split is None:
        return []
    told = f"The roles of {len(beside.split.samples)} samples are in {layout.BESIDE}, by the digests of their pictures"
    proof = f"digest of the split: `{beside.split.digest}`"
    return ["", f"{told} ({proof}): what it learnt from is never taken to measure it."]


def _quality(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return ["## How good it is", "", "Nobody measured it, or did not publish what was measured.", ""]
    told = f"{metrics.samples} samples, {metrics.labels} labelled boxes, IoU {metrics.iou:g}, {metrics.method}"
    digest = f"; digest of the samples `{metrics.samples_digest}`" if metrics.samples_digest else ""
    rows = {}
    for one in (*metrics.classes, metrics.micro):
        figures = [str(getattr(one.rates, name)) for _title, name in _FIGURES]
        rows[one.name] = " | ".join([*figures, str(one.average_precision.ap50 or "not known")])
    titles = " | ".join([*(title for title, _name in _FIGURES), "AP50"])
    lines = ["## How good it is", "", f"{told}; 95 % intervals{digest}.", "", f"| | {titles} |", f"|{'---|' * 5}"]
    lines += [f"| {_cell(name)} | {row} |" for name, row in rows.items()]
    if metrics.calibration:
        lines += ["", f"Scores as chances: {_cell(str(metrics.calibration))}."]
    return [*lines, *(f"\nNote: {_cell(note)}." for note in metrics.notes), ""]


def _limits(record: HeadRecord, metrics: Metrics | None) -> list[str]:
    found = [
        "- It finds what it was shown: pictures of another kind, instrument or scale have to be measured anew.",
        "- The figures are its maker's: `hydra-detect evaluate` measures it on your own labelled pictures.",
    ]
    if record.sample_count is not None:
        found.append(f"- It learnt from {record.sample_count} samples.")
    if metrics is not None and metrics.samples < _FEW:
        found.append(f"- It was measured on {metrics.samples} samples: the intervals say how much that leaves open.")
    return found


def _model_index(name: str, metrics: Metrics | None) -> dict[str, Any]:
    """Return the figures as the Hub reads them."""
    if metrics is None:
        return {}
    samples = f"held-out samples {metrics.samples_digest.short}" if metrics.samples_digest else "held-out samples"
    figures = [{"type": name, "value": round(value, 6)} for name, value in metrics.figures().items()]
    task = {"type": _PIPELINE}
    results = [{"task": task, "dataset": {"type": "private", "name": samples}, "metrics": figures}]
    return {"model-index": [{"name": name, "results": results}]}


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
