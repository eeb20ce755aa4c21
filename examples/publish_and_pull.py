"""A head goes to a Hub, and into another store from there: by the unchanged client, to the Hub of the tests.

On the real one leave out `endpoint`, and log in with `hf auth login` first.
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

from hydra_detect import About, HydraDetector, VersionManager, pull, push, push_backbone, split_checkpoint
from hydra_detect.demo.run import DATA

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hub_server import HubServer

PHOTOGRAPH = min((DATA / "pictures").glob("*.jpg"))


def main():
    """Publish a backbone and a head, and use them from an empty store."""
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)  # what the client itself says of uploads
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub:
        hub.accounts.add_user("me", "org")
        os.environ |= {"HF_TOKEN": hub.accounts.add_token("me"), "HF_HOME": folder, "HF_HUB_DISABLE_XET": "1"}
        store, mine, options = Path(folder) / "store", Path(folder) / "mine", {"endpoint": hub.endpoint}
        settings = json.loads((DATA / "original.json").read_text())["settings"]
        split_checkpoint(DATA / "original.pth", store, head="rbc", class_names=["RBC"], settings=settings)

        print(push_backbone(store, "default", "org/cells", **options))
        found = HydraDetector.from_store(store, device="cpu").predict(PHOTOGRAPH)
        print(push(store, "rbc", "org/hydra-rbc", about=About(license="mit", example=found), **options))

        detector = HydraDetector.from_pretrained("org/cells", ["org/hydra-rbc@v1"], store=mine, device="cpu", **options)
        print(f"{len(detector.predict(PHOTOGRAPH))} red cells in {PHOTOGRAPH.name}")

        ref = pull("org/hydra-rbc@v1", mine, **options)  # there already: nobody is asked
        print(VersionManager(mine).promote(ref.name, ref.version, reason="it finds those in our pictures, too"))


if __name__ == "__main__":
    main()
