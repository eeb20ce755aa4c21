"""Pushing and pulling against the client's own time for the same bytes, over loopback.

    python benchmarks/hub.py --rounds 5 --json hub.json

A head of 58 MB (torchvision's default on 256 channels, random weights) goes to the Hub of the tests and comes back, by
`push` and `pull`; and the same bytes by the client alone, `create_commit` with a tag, and `snapshot_download`. Every
round takes each once, ratios are taken within rounds; the first round only warms up. Neither deletes what it wrote
before: memory that the other side has just given back would be had for less. What `pull` does more is what it is for:
digests of every byte and of the weights, whether all are finite, the network built and run once, and a durable file in
the store. Then the requests are counted of listing a pack of 300 heads and pulling one.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
import warnings

os.environ["HF_HUB_DISABLE_XET"] = "1"  # the Hub of the tests speaks LFS
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))

from hub_server import HubServer

from hydra_detect import HeadRecord, HeadSettings, Store, VersionManager, pull, pull_backbone, push, push_backbone
from hydra_detect.contracts import Architecture, BackboneContract, Preprocessing
from hydra_detect.hub.searching import list_pack
from hydra_detect.nets.backbones import build_network, levels_of
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import BackboneRecord
from hydra_detect.storage import backbones
from hydra_detect.tensors import tensors_digest

HEADS = 300


def a_store(folder, turns):
    """A store with a ResNet-18 of 256 channels and so many default heads, all with random weights."""
    architecture = Architecture(
        body="resnet",
        in_channels=3,
        return_layers=("layer1", "layer2", "layer3", "layer4"),
        body_channels=(64, 128, 256, 512),
        pyramid_channels=256,
        norm="frozen",
        norm_eps=1e-5,
        block="basic",
        layers=(2, 2, 2, 2),
    )
    network = raw_tensors(build_network(architecture, device="cpu").state_dict())
    levels = levels_of(architecture)
    contract = BackboneContract(
        digest=tensors_digest(network), architecture=architecture, preprocessing=Preprocessing(), levels=levels
    )
    store = Store.create(folder)
    backbones.publish(store, "default", BackboneRecord(contract=contract), network)
    settings = HeadSettings(
        label_count=2, anchor_sizes=((32,), (64,), (128,), (256,), (512,)), aspect_ratios=((0.5, 1.0, 2.0),) * 5
    )
    network = RCNNHead(settings, levels, device="cpu")
    manager = VersionManager(store)
    for turn in range(turns):  # each with other weights: a Hub is not sent what it has
        network.roi_heads.box_predictor.bbox_pred.bias.data[:] = turn
        weights = raw_tensors(network.state_dict())
        record = HeadRecord(
            tensors=tensors_digest(weights),
            backbone=contract,
            backbone_name="default",
            settings=settings,
            class_names=("owl",),
        )
        manager.promote(f"owl-{turn}", manager.create(f"owl-{turn}", weights, record).number)
    return store


def timed(act):
    """Seconds that one call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def of_the_client(api, repo, contents, cache):
    """Seconds that the client alone takes to publish files with a tag, and to download them."""
    from huggingface_hub import CommitOperationAdd

    def up():
        api.create_repo(repo)
        added = [CommitOperationAdd(path, data) for path, data in contents.items()]
        made = api.create_commit(repo, added, commit_message="files")
        api.create_tag(repo, tag="v1", revision=made.oid)

    pushing = timed(up)
    return pushing, timed(lambda: api.snapshot_download(repo, revision="v1", cache_dir=cache))


def rounds(hub, store, folder, count):
    """Run them; the first only warms up."""
    from huggingface_hub import HfApi

    api, options, found = HfApi(endpoint=hub.endpoint), {"endpoint": hub.endpoint}, []
    target = pathlib.Path(folder) / "target"
    pull_backbone("org/backbone", target, **options)
    for turn in range(count + 1):
        pushing = timed(lambda turn=turn: push(store, f"owl-{turn}", f"org/owl-{turn}", **options))
        repo = hub.repos[f"org/owl-{turn}"]
        contents = {path: repo.content(path) for path in repo.head.files if path != ".gitattributes"}
        pulling = timed(lambda turn=turn: pull(f"org/owl-{turn}@v1", target, **options))
        theirs = of_the_client(api, f"org/plain-{turn}", salted(contents, turn), pathlib.Path(folder) / f"cache-{turn}")
        found.append({"push": pushing, "client push": theirs[0], "pull": pulling, "client pull": theirs[1]})
    return found[1:]


def salted(contents, turn):
    """The same bytes but for the last few of the weights, so that none is there already."""
    weights = contents["model.safetensors"]
    return {**contents, "model.safetensors": weights[:-8] + turn.to_bytes(8, "little")}


def requests_of_a_pack(hub, store, folder):
    """How many requests it takes to list a pack of 300 heads, and to pull one."""
    options = {"endpoint": hub.endpoint}
    push(store, "owl-0", "org/pack/owl", **options)
    pack = hub.repos["org/pack"]
    own = {path: pack.content(path) for path in pack.head.files if path.startswith("heads/owl/")}
    others = {path.replace("/owl/", f"/n{n}/"): data for n in range(HEADS - 1) for path, data in own.items()}
    index = json.loads(pack.content("index.json"))
    index["heads"] |= {f"n{n}": index["heads"]["owl"] for n in range(HEADS - 1)}
    hub.add(pack, {**others, "index.json": json.dumps(index).encode()})
    pull_backbone("org/backbone", pathlib.Path(folder) / "packed", **options)
    before = len(hub.requests)
    count = len(list_pack("org/pack", **options))
    listing = len(hub.requests) - before
    pull("org/pack/owl@v1", pathlib.Path(folder) / "packed", **options)
    return {"heads": count, "listing": listing, "pulling": len(hub.requests) - before - listing}


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub:
        hub.accounts.add_user("me", "org")
        os.environ |= {"HF_TOKEN": hub.accounts.add_token("me"), "HF_HOME": folder}
        store = a_store(pathlib.Path(folder) / "store", args.rounds + 1)
        push_backbone(store, "default", "org/backbone", endpoint=hub.endpoint)
        found = rounds(hub, store, folder, args.rounds)
        report = {
            "rounds": args.rounds,
            **{name: statistics.median(one[name] for one in found) for name in found[0]},
            **{f"{way} ratio": statistics.median(one[way] / one[f"client {way}"] for one in found)
               for way in ("push", "pull")},
            "requests": requests_of_a_pack(hub, store, folder),
        }  # fmt: skip
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
