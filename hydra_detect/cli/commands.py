"""The commands: each one parses, makes one call, and prints what came of it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  cyclopts reads annotations as it runs
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from hydra_detect.cli import (
    bundle_commands,
    compact_commands,
    hub_commands,
    output,
    store_commands,
    training_commands,
    version_commands,
)
from hydra_detect.cli.options import (
    ERROR,
    PARTIAL,
    STOPPED,
    EndpointOption,
    JsonOption,
    Several,
    StoreOption,
    WholeNumber,
    code_of,
    progress_bar,
    store_folder,
)
from hydra_detect.cli.split_options import SplitOptions
from hydra_detect.errors import HydraDetectError, InputError, StoreError
from hydra_detect.registry import HeadRegistry

_FEW = 3  # inputs that need no progress bar

app = App(
    name="hydra-detect",
    help="One frozen detection backbone, many small independent heads.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
for command in (
    *version_commands.COMMANDS,
    *training_commands.COMMANDS,
    *compact_commands.COMMANDS,
    *bundle_commands.COMMANDS,
    *hub_commands.COMMANDS,
):
    app.command(command)
app.command(store_commands.app)
app.command(hub_commands.app)
app.command(training_commands.runs)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    problem: HydraDetectError
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        problem = InputError("read the command line", str(error).strip().removesuffix("."), "See hydra-detect --help.")
    except HydraDetectError as error:
        problem = error
    except KeyboardInterrupt:
        remedy = "Nothing half-written was left behind."
        if arguments[:1] in (["train"], ["train-original"]):
            remedy += " The same command goes on from the last epoch that was kept, if there was one."
        problem = HydraDetectError("go on", "stopped", remedy)
        output.complain(problem, json="--json" in arguments)
        return STOPPED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        output.drop_the_rest()
        return ERROR
    except OSError as error:
        output.drop_the_rest()
        problem = StoreError("go on", str(error), "See to the file system and run it again.")
    else:
        return code if isinstance(code, int) else 0
    output.complain(problem, json="--json" in arguments)
    return code_of(problem)


@app.command
def split(  # noqa: PLR0913  each is an option that a person may give
    checkpoint: str,
    /,
    *,
    head: str,
    store: StoreOption = None,
    backbone: str = "default",
    class_name: Several = [],  # noqa: B006  cyclopts makes a new list at each call
    parity_input: Several = [],  # noqa: B006  same
    keep_original: Annotated[bool, Parameter(negative=())] = False,
    endpoint: EndpointOption = None,
    json: JsonOption = False,
    settings: SplitOptions = SplitOptions(),  # noqa: B008  frozen
) -> int:
    """Split an original checkpoint into a backbone and a head, and prove that nothing changed.

    Parameters
    ----------
    checkpoint
        A .pth, .pt or .safetensors file, torchvision:NAME for torchvision's own weights, or
        hf://ORG/REPO/FILE.safetensors@REVISION for one on a Hub.
    head
        Name for the head.
    backbone
        Name for the backbone; one with the same weights and settings is shared.
    class_name
        Name of a class, once per class in the order of the labels, without the background.
    parity_input
        A picture, folder or pattern to prove it on, beside the seeded pictures.
    keep_original
        Keep a copy of the original file beside the head.
    endpoint
        Address of the Hub that an hf:// is on; else $HF_ENDPOINT, or the public one.

    """
    from hydra_detect.checkpoints.split import split_checkpoint

    folder = store_folder(store)
    with progress_bar("proof") as progress:
        report = split_checkpoint(
            checkpoint,
            folder,
            head=head,
            backbone=backbone,
            class_names=class_name or None,
            settings=settings.to_settings(),
            parity_inputs=parity_input or None,
            keep_original=keep_original,
            progress=progress,
            endpoint=endpoint,
        )
    output.say(output.as_json(report.to_dict()) if json else str(report))
    return 0


@app.command
def verify(
    *,
    store: StoreOption = None,
    head: Several = [],  # noqa: B006  same
    against: str | None = None,
    parity_input: Several = [],  # noqa: B006  same
    endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> int:
    """Prove once more that stored heads are the originals they were split from; exit code 0 only on proof.

    Parameters
    ----------
    head
        Head to verify, or NAME@VERSION; all heads with an active version where none is named.
    against
        The original checkpoint, torchvision:NAME or an hf://; without it the recorded outputs of the original are
        compared.
    parity_input
        A picture, folder or pattern to compare on beside the seeded pictures; needs --against.
    endpoint
        Address of the Hub that an hf:// is on; else $HF_ENDPOINT, or the public one.

    """
    from hydra_detect.checkpoints.proof import verify_all

    with progress_bar("proof") as progress:
        found = verify_all(
            store_folder(store),
            head or None,
            against=against,
            inputs=parity_input or None,
            progress=progress,
            endpoint=endpoint,
        )
    for item in found:
        output.say(output.as_json(item.to_dict()) if json else str(item))
    return 0 if all(item.proven for item in found) else PARTIAL


@app.command
def merge(head: str, path: Path, /, *, store: StoreOption = None) -> int:
    """Write the original again: a state dict that torchvision loads strictly.

    Parameters
    ----------
    head
        Head, or NAME@VERSION.
    path
        A new .pth, .pt or .safetensors file.

    """
    from hydra_detect.checkpoints.merge import merge_checkpoint

    output.say(str(merge_checkpoint(store_folder(store), head, path)))
    return 0


@app.command
def predict(  # noqa: PLR0913  each is an option that a person may give
    *inputs: str,
    store: StoreOption = None,
    head: Several = [],  # noqa: B006  same
    backbone: str | None = None,
    score_threshold: float | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    engine: Literal["exact", "fast"] | None = None,
    max_pixels: WholeNumber | None = None,
    json: JsonOption = False,
    save: Path | None = None,
) -> int:
    """Detect with every head, or with some, in pictures, folders and patterns.

    Parameters
    ----------
    inputs
        Picture files, folders of pictures, or patterns in quotes.
    head
        Head to run, or NAME@VERSION; all heads of the backbone where none is named.
    backbone
        Name of the backbone; needed only where the store has several.
    score_threshold
        Drop boxes that do not score above this; each head's own threshold where it is left out.
    device
        cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.
    dtype
        What weights are kept and networks computed in.
    engine
        exact for torchvision's own operations, fast for the same function in a fraction of the time.
    max_pixels
        Refuse pictures with more pixels than this.
    save
        Folder for annotated pictures.

    """
    from hydra_detect import pictures
    from hydra_detect.detector import DEFAULT_ENGINE, HydraDetector

    if not inputs:
        raise InputError(
            "predict",
            "no input was named",
            "Name a picture, a folder or a pattern in quotes, ahead of options such as --head.",
        )
    folder = store_folder(store)
    files = pictures.list_files(inputs)
    detector = HydraDetector.from_store(
        folder, head or None, backbone=backbone, device=device, dtype=dtype, engine=engine or DEFAULT_ENGINE
    )
    target = output.PictureFolder(save) if save else None
    results = detector.predict(
        files,
        score_threshold=score_threshold,
        stream=True,
        max_pixels=pictures.DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels,
    )
    with progress_bar("pictures", least=_FEW + 1) as progress:
        for done, found in enumerate(results, start=1):
            output.say(found.to_json() if json else output.detections_table(found))
            if target:
                target.save(found)
            progress(done, len(files))
    return 0


@app.command
def heads(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """List the heads of a store; exit code 1 if one of them cannot be read."""
    infos = HeadRegistry(store_folder(store)).infos()
    if json:
        output.say(output.as_json([info.to_dict() for info in infos]))
    else:
        output.say(output.heads_table(infos))
    return PARTIAL if any(info.problem for info in infos) else 0


@app.command
def demo(*, out: Path | None = None) -> int:
    """Split a real detector, prove it, add two more heads, and detect with all of them in real photographs.

    Parameters
    ----------
    out
        New folder for the store, the pictures and the report; hydra-detect-demo where it is left out.

    """
    from hydra_detect.demo.run import run_demo

    run_demo(out, say=output.say)
    return 0
