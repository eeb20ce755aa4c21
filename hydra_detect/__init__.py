"""One frozen detection backbone, many small independent heads.

Public names load when they are first used (PEP 562): importing the package imports nothing else and changes nothing
in the process.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra_detect.bundles.bundle import load_bundle as load_bundle
    from hydra_detect.bundles.export import export_bundle as export_bundle
    from hydra_detect.checkpoints.merge import merge_checkpoint as merge_checkpoint
    from hydra_detect.checkpoints.merge import to_torchvision as to_torchvision
    from hydra_detect.checkpoints.proof import compare_with_original as compare_with_original
    from hydra_detect.checkpoints.proof import verify as verify
    from hydra_detect.checkpoints.settings import SplitSettings as SplitSettings
    from hydra_detect.checkpoints.split import split_checkpoint as split_checkpoint
    from hydra_detect.contracts import Preprocessing as Preprocessing
    from hydra_detect.data.reading import read_samples as read_samples
    from hydra_detect.data.samples import Samples as Samples
    from hydra_detect.detections import Detections as Detections
    from hydra_detect.detections import GroundTruth as GroundTruth
    from hydra_detect.detector import HydraDetector as HydraDetector
    from hydra_detect.errors import HydraDetectError as HydraDetectError
    from hydra_detect.hub.cards import About as About
    from hydra_detect.hub.pull import pull as pull
    from hydra_detect.hub.pull import pull_backbone as pull_backbone
    from hydra_detect.hub.push import push as push
    from hydra_detect.hub.push import push_backbone as push_backbone
    from hydra_detect.lifecycle.compressing import compress_head as compress_head
    from hydra_detect.lifecycle.compressing import expand_head as expand_head
    from hydra_detect.lifecycle.judging import calibrate as calibrate
    from hydra_detect.lifecycle.judging import evaluate as evaluate
    from hydra_detect.lifecycle.original import train_original as train_original
    from hydra_detect.lifecycle.train import train_head as train_head
    from hydra_detect.names import Digest as Digest
    from hydra_detect.names import HeadRef as HeadRef
    from hydra_detect.records import HeadRecord as HeadRecord
    from hydra_detect.records import HeadSettings as HeadSettings
    from hydra_detect.records import OperatingPolicy as OperatingPolicy
    from hydra_detect.records import VersionRecord as VersionRecord
    from hydra_detect.registry import HeadRegistry as HeadRegistry
    from hydra_detect.storage.store import Store as Store
    from hydra_detect.training.augment import list_augmentations as list_augmentations
    from hydra_detect.training.config import TrainingConfig as TrainingConfig
    from hydra_detect.training.losses import list_losses as list_losses
    from hydra_detect.versions import VersionManager as VersionManager

_HOMES = {
    "About": "hub.cards",
    "Detections": "detections",
    "Digest": "names",
    "GroundTruth": "detections",
    "HeadRecord": "records",
    "HeadRef": "names",
    "HeadRegistry": "registry",
    "HeadSettings": "records",
    "HydraDetectError": "errors",
    "HydraDetector": "detector",
    "OperatingPolicy": "records",
    "Preprocessing": "contracts",
    "Samples": "data.samples",
    "SplitSettings": "checkpoints.settings",
    "Store": "storage.store",
    "TrainingConfig": "training.config",
    "VersionManager": "versions",
    "VersionRecord": "records",
    "calibrate": "lifecycle.judging",
    "compare_with_original": "checkpoints.proof",
    "compress_head": "lifecycle.compressing",
    "evaluate": "lifecycle.judging",
    "expand_head": "lifecycle.compressing",
    "export_bundle": "bundles.export",
    "list_augmentations": "training.augment",
    "list_losses": "training.losses",
    "load_bundle": "bundles.bundle",
    "merge_checkpoint": "checkpoints.merge",
    "pull": "hub.pull",
    "pull_backbone": "hub.pull",
    "push": "hub.push",
    "push_backbone": "hub.push",
    "read_samples": "data.reading",
    "split_checkpoint": "checkpoints.split",
    "to_torchvision": "checkpoints.merge",
    "train_head": "lifecycle.train",
    "train_original": "lifecycle.original",
    "verify": "checkpoints.proof",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  one list of names, not two to keep equal

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hydra-detect")
    if name not in _HOMES:
        raise AttributeError(f"module 'hydra_detect' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hydra_detect.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
