"""Split the demo's original, add two further heads to its backbone, detect with all three.

Run it with `python examples/split_and_detect.py`. Needs nothing beside the installed package: checkpoint, heads and
photographs ship with the demo.
"""

import json
import pathlib
import tempfile

from hydra_detect import HeadRegistry, HydraDetector, VersionManager, split_checkpoint
from hydra_detect.demo.run import DATA, FURTHER_HEADS, read_head


def main():
    """Make a store in a temporary folder and print what its heads find."""
    facts = json.loads((DATA / "original.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        store = pathlib.Path(folder) / "store"

        # One original in; a backbone, a head and the proof that together they are the original out.
        report = split_checkpoint(
            DATA / "original.pth", store, head="rbc", class_names=["RBC"], settings=facts["settings"]
        )
        print(report)

        # Heads that were trained on the frozen backbone join it. A new version is used once it is promoted.
        manager = VersionManager(store)
        for name in FURTHER_HEADS:
            tensors, record = read_head(name)
            version = manager.create(name, tensors, record)
            manager.promote(name, version.number, reason="trained on this backbone")
        print("\nheads in the store:", ", ".join(HeadRegistry(store)))

        # The backbone runs once per picture, whatever the number of heads.
        detector = HydraDetector.from_store(store)
        for found in detector.predict(DATA / "pictures", stream=True):
            counts = ", ".join(f"{len(boxes)} by {head}" for head, boxes in found.by_head().items())
            print(f"{pathlib.Path(found.source).name}: {counts or 'nothing'}; {found.timing.total * 1000:.0f} ms")


if __name__ == "__main__":
    main()
