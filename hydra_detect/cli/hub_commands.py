"""The commands that talk to a Hub. The token is that of its own login; none is ever an argument."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  cyclopts reads annotations as it runs
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import App, Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import EndpointOption, JsonOption, Several, StoreOption, WholeNumber, store_folder
from hydra_detect.errors import InputError
from hydra_detect.names import one_line

if TYPE_CHECKING:
    from hydra_detect.detections import Detections
    from hydra_detect.hub.cards import About
    from hydra_detect.names import HeadRef


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class PushOptions:
    """How to publish, and what the card is to say that no record does."""

    private: Annotated[
        bool, Parameter(negative=(), help="only its owners may see the repository: it is made so, or is so")
    ] = False
    message: Annotated[str, Parameter(help="title of the commit")] = ""
    license: Annotated[str, Parameter(help="for the card, as the Hub names it: mit, apache-2.0")] = ""
    data: Annotated[str, Parameter(help="for the card: what it was trained on, under which licence")] = ""
    description: Annotated[str, Parameter(help="for the card: what it is for")] = ""
    picture: Annotated[Path | None, Parameter(help="for the card: a PNG file that shows what it finds")] = None
    example: Annotated[Path | None, Parameter(help="in its place: a photograph that the head is run on")] = None
    sign_with: Annotated[Path | None, Parameter(help="file with the private key to sign it (extra signing)")] = None
    endpoint: EndpointOption = None

    def about(self, store: Path, ref: HeadRef | None) -> About:
        """Return what the card is to say; an example is looked at by the head that is published."""
        from hydra_detect.hub.cards import MOST_PICTURE, About
        from hydra_detect.storage import files

        asked, shown = f"read {self.picture}", None
        if self.picture is not None and self.example is not None:
            raise InputError("publish with a picture", "two are given", "Give --picture or --example, not both.")
        if self.picture is not None:
            shown = files.read_whole(self.picture, limit=MOST_PICTURE, asked=asked)
        return About(
            license=self.license,
            data=self.data,
            description=self.description,
            picture=shown,
            example=None if self.example is None or ref is None else self._found(store, ref),
        )

    def _found(self, store: Path, ref: HeadRef) -> Detections:
        from hydra_detect.detector import HydraDetector
        from hydra_detect.storage import heads
        from hydra_detect.storage.store import Store

        backbone = heads.find(Store.open(store), ref).record.backbone_name
        found: Detections = HydraDetector.from_store(store, [ref], backbone=backbone).predict(str(self.example))
        return found


def push(
    name: str,
    repo: str,
    /,
    *,
    version: WholeNumber | None = None,
    backbone: Annotated[bool, Parameter(negative=())] = False,
    needs: Several | None = None,
    options: PushOptions = PushOptions(),
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Publish a version of a head, or a backbone, on a Hub: one commit and one tag.

    Parameters
    ----------
    name
        Head in the store, or with --backbone backbone.
    repo
        ORG/REPO, or ORG/PACK/NAME in a repository of many heads.
    version
        Number of the version; else the active one. Version 3 becomes release v3.
    backbone
        It is a backbone.
    needs
        Where its backbone lies, and what it leans on; else where they were pushed to or pulled from.

    """
    from hydra_detect.hub import push as pushing
    from hydra_detect.names import HeadRef

    if backbone and (version is not None or needs or options.example is not None):
        found = "a backbone has one content for ever, needs nothing, and finds nothing in a photograph"
        raise InputError(f"push backbone {name!r}", found, "Leave out --version, --needs and --example.")
    where, own = store_folder(store), options
    about = own.about(where, None if backbone else HeadRef(name, version))
    if backbone:
        made = pushing.push_backbone(
            where,
            name,
            repo,
            private=own.private,
            message=own.message,
            about=about,
            sign_with=own.sign_with,
            endpoint=own.endpoint,
        )
    else:
        made = pushing.push(
            where,
            name,
            repo,
            version=version,
            private=own.private,
            message=own.message,
            about=about,
            needs=needs or (),
            sign_with=own.sign_with,
            endpoint=own.endpoint,
        )
    output.say(output.as_json(made.to_dict()) if json else str(made))
    return 0


def pull(
    ref: str,
    /,
    *,
    name: str | None = None,
    backbone: Annotated[bool, Parameter(negative=())] = False,
    allow_older: Annotated[bool, Parameter(negative=())] = False,
    endpoint: EndpointOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Check a release of a head, or a backbone, and put it into a store; a head is not promoted by that.

    Parameters
    ----------
    ref
        ORG/REPO@v3, or ORG/PACK/NAME@v3; after the @ any tag, branch or commit, without it what is in production.
    name
        What to call it here; else what it is called there.
    backbone
        It is a backbone.
    allow_older
        Take a release that is older than one which was pulled before.

    """
    from hydra_detect.hub import pull as pulling
    from hydra_detect.names import check_name

    where = store_folder(store)
    if name is not None:
        check_name(name, "backbone" if backbone else "head")
    if backbone and allow_older:
        found = "a backbone has one content for ever: there is no older one"
        raise InputError(f"pull backbone {ref}", found, "Leave out --allow-older.")
    if backbone:
        made = pulling.pull_backbone(ref, where, name=name, endpoint=endpoint)
        output.say(output.as_json({"backbone": made}) if json else f"{ref} is backbone {made!r} here")
        return 0
    version = pulling.pull(ref, where, name=name, allow_older=allow_older, endpoint=endpoint)
    plain = {"head": version.name, "version": version.version}
    output.say(output.as_json(plain) if json else f"{ref} is {version} here; 'hydra-detect promote' makes it active")
    return 0


def search(
    text: str = "",
    /,
    *,
    backbone: str | None = None,
    most: WholeNumber = 50,
    endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> int:
    """List the heads on a Hub that were made on a backbone, or all there are.

    Parameters
    ----------
    text
        What their names contain.
    backbone
        ORG/REPO of the backbone.
    most
        How many at most.

    """
    from hydra_detect.hub import searching

    found = searching.search(text, backbone=backbone, most=most, endpoint=endpoint)
    rows = [
        [one.repo, str(one.downloads), str(one.likes), one.changed_at[:10], one_line(", ".join(one.signals))]
        for one in found
    ]
    told = output.table(["repository", "downloads", "likes", "changed", "signals"], rows) if rows else "There are none."
    output.say(output.as_json([one.to_dict() for one in found]) if json else told)
    return 0


app = App(name="hub", help="What is in production in a repository on a Hub, and what a pack holds.")


@app.command
def promote(ref: str, /, *, endpoint: EndpointOption = None, json: JsonOption = False) -> int:
    """Put a release into production: what is pulled where none is named.

    Parameters
    ----------
    ref
        ORG/REPO@v3, or ORG/PACK/NAME@v3.

    """
    from hydra_detect.hub import channels

    return _say(channels.promote_release(ref, endpoint=endpoint).production, json=json)


@app.command
def rollback(ref: str, /, *, endpoint: EndpointOption = None, json: JsonOption = False) -> int:
    """Put that release into production again which was before.

    Parameters
    ----------
    ref
        ORG/REPO, or ORG/PACK/NAME.

    """
    from hydra_detect.hub import channels

    return _say(channels.rollback_release(ref, endpoint=endpoint).production, json=json)


def _say(production: int, *, json: bool) -> int:
    output.say(output.as_json({"production": production}) if json else f"release v{production} is in production")
    return 0


@app.command(name="heads")
def list_heads(ref: str, /, *, endpoint: EndpointOption = None, json: JsonOption = False) -> int:
    """List the heads of a pack.

    Parameters
    ----------
    ref
        ORG/PACK; after an @ any tag, branch or commit.

    """
    from hydra_detect import codec
    from hydra_detect.hub import searching

    found = searching.list_pack(ref, endpoint=endpoint)
    rows = [
        [name, f"v{one.release}", f"{one.nbytes / 1e6:.2f} MB", one_line(", ".join(one.class_names[:4]))]
        for name, one in found.items()
    ]
    plain = {name: codec.to_dict(one) for name, one in found.items()}
    output.say(output.as_json(plain) if json else output.table(["head", "release", "size", "classes"], rows))
    return 0


COMMANDS = (push, pull, search)
