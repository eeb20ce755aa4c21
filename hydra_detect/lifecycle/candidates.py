"""Running heads over samples, down to what they are least sure of: the raw material of every figure.

Pictures go the way they go in a detector, one at a time and in float32, so that what is measured is what will serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect import answers
from hydra_detect.loading import Shelf
from hydra_detect.storage import heads
from hydra_detect.training.features import FeatureCache, FrozenFeatures, default_cache, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hydra_detect.data.samples import Samples
    from hydra_detect.detections import Detections
    from hydra_detect.names import HeadRef
    from hydra_detect.nets.backbones import Backbone
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store


@attrs.frozen(kw_only=True)
class Contender:
    """A head that is to be judged, published or not.

    Args:
        ref: What to call it.
        network: In evaluation mode.
        class_names: Of its labels 1, 2, ...

    """

    ref: HeadRef
    network: RCNNHead
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, version: VersionRecord) -> Contender:
        """Load a published version.

        Raises:
            CorruptError: If it is damaged.

        """
        network = Shelf(store).network(version, heads.tensors(store, version))
        return cls(ref=version.ref, network=network, class_names=version.record.class_names)


def candidates(
    backbone: Backbone,
    contenders: Sequence[Contender],
    samples: Samples,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[HeadRef, list[Detections]]:
    """Return what heads find in samples, with raw scores, down to the score below which their records drop boxes.

    Args:
        backbone: It runs once per sample, for all of them.
        contenders: The heads.
        samples: Pictures with labels, which are not looked at.
        progress: Called with samples done and in all.

    Raises:
        InputError: If a picture cannot be read.

    """
    features = FrozenFeatures(backbone, FeatureCache(default_cache(), limit=0))
    networks = [contender.network.to(features.device).whole() for contender in contenders]
    found: dict[HeadRef, list[Detections]] = {contender.ref: [] for contender in contenders}
    for done, sample in enumerate(samples, start=1):
        encoded = features.run(features.pixels(sample))
        for contender, network in zip(contenders, networks, strict=True):
            with torch.inference_mode():
                (output,) = network(stack([encoded]))
            found[contender.ref].append(
                answers.of_head(
                    output,
                    contender.class_names,
                    ref=contender.ref,
                    image_size=sample.truth.image_size,
                    source=sample.id,
                )
            )
        if progress:
            progress(done, len(samples))
    return found
