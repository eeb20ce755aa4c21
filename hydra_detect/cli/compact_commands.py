"""The commands that turn full heads into compact ones, and back."""

from __future__ import annotations

from typing import Annotated

from hydra_detect.cli import output
from hydra_detect.cli.options import Flag, Integer, JsonOption, StoreOption, store_folder
from hydra_detect.cli.training_commands import DataOptions  # noqa: TC001  cyclopts reads annotations as it runs
from hydra_detect.names import HeadRef


def compress(  # noqa: PLR0913  each is an option that a person may give
    head: str,
    /,
    *,
    store: StoreOption = None,
    data: DataOptions | None = None,
    rank: str | None = None,
    max_loss: float = 0.01,
    unmeasured: Annotated[bool, Flag] = False,
    reference: str | None = None,
    steps: Integer = 200,
    seed: Integer = 0,
    device: str = "auto",
    json: JsonOption = False,
) -> int:
    """Make a compact version of a full one, and measure what that costs; it is not promoted.

    Parameters
    ----------
    head
        NAME for the active version, NAME@VERSION for that one.
    rank
        Of the differences: such as 16 for every layer (32 where it is left out), or rpn:8,fc6:32,fc7:whole.
    max_loss
        Most that F1 and AP50 may each lose, from 0 to 1; above it no version is made.
    unmeasured
        Without --data: make it all the same; the record says that its loss was not measured.
    reference
        The full head that it leans on, as NAME@VERSION; the one that others lean on where it is left out.
    steps
        Of the distillation, one picture each.
    seed
        Of every random choice.
    device
        cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.

    """
    from hydra_detect.lifecycle.compressing import compress_head
    from hydra_detect.training.config import DEFAULT_RANK

    folder, samples, ref = store_folder(store), data.read() if data else None, HeadRef.parse(head)
    report = compress_head(
        folder,
        ref.name,
        ref.version,
        rank=rank or DEFAULT_RANK,
        max_loss=max_loss,
        samples=samples,
        unmeasured=unmeasured,
        reference=reference,
        steps=steps,
        seed=seed,
        device=device,
    )
    output.say(output.as_json(report.to_dict()) if json else f"{report}\nnot active yet")
    return 0


def expand(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Make a full version of a compact one: the same function, its weights written out; it is not promoted.

    Parameters
    ----------
    head
        NAME for the active version, NAME@VERSION for that one.

    """
    from hydra_detect.lifecycle.compressing import expand_head

    ref = HeadRef.parse(head)
    version = expand_head(store_folder(store), ref.name, ref.version)
    facts = {"head": version.head, "version": version.number, "nbytes": version.nbytes}
    output.say(output.as_json(facts) if json else f"{version}; not active yet")
    return 0


COMMANDS = (compress, expand)
