"""The house's one structural rule: a module imports only from lower floors."""

import ast
from pathlib import Path

import hydra_detect

ROOT = Path(hydra_detect.__file__).parent

FLOORS = {
    "errors": 0,
    "names": 0,
    "tensors": 0,
    "codec": 0,
    "fields": 0,
    "contracts": 0,
    "records": 0,
    "environment": 0,
    "allocation": 0,
    "detections": 0,
    "pictures": 1,
    "drawing": 1,
    "formats": 1,
    "measure": 1,
    "data": 1,
    "storage": 2,
    "overview": 3,
    "retention": 3,
    "history": 3,
    "comparison": 3,
    "versions": 3,
    "registry": 3,
    "nets": 3,
    "batches": 4,
    "engine": 4,
    "loading": 4,
    "answers": 4,
    "watching": 4,
    "detector": 4,
    "checkpoints": 4,
    "training": 4,
    "lifecycle": 5,
    "arriving": 4,
    "bundles": 5,
    "hub": 5,
    "demo": 5,
    "cli": 6,
    "__main__": 6,
    "__init__": 6,
}

# Thin delegates that import upwards inside the method, each by name.
DELEGATES = {
    "detections.Detections.to_dict",
    "detections.Detections.to_json",
    "detections.Detections.to_coco",
    "detections.Detections.to_yolo",
    "detections.Detections.to_voc",
    "detections.Detections.to_pandas",
    "detections.Detections.to_supervision",
    "detections.Detections.plot",
    "detections.Detections.save",
    "detections.Detections._repr_png_",
    "detections.Detections._repr_html_",
    "detector.HydraDetector.from_pretrained",
    "detector.HydraDetector.save_pretrained",
    "detector.HydraDetector.push_to_hub",
    "detector.HydraDetector.load_head",
    "registry.HeadRegistry.push",
    "registry.HeadRegistry.push_backbone",
    "registry.HeadRegistry.pull",
    "registry.HeadRegistry.pull_backbone",
    "checkpoints.read_hub",
    "versions._builder",
}

TORCH_ROOMS = {"nets", "engine", "detector", "checkpoints", "loading", "answers", "training", "lifecycle"}
LEFT_WING = {"overview", "retention", "history", "comparison", "versions", "registry"}
EXTRAS = {"pandas", "supervision", "matplotlib", "scipy", "hotcoco", "tensorboard", "mlflow"}


def room_of(path):
    """The room a file belongs to: the name of its top-level module."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def files():
    """Every module of the package with its syntax tree."""
    return [(path, ast.parse(path.read_text())) for path in sorted(ROOT.rglob("*.py"))]


def imports(tree):
    """Every import: (module name, where it stands, whether at the top of the file)."""
    found = []

    def visit(node, place):
        for child in ast.iter_child_nodes(node):
            inner = place
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inner = [*place, child.name]
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, ".".join(place)) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend((f"{child.module}.{alias.name}", ".".join(place)) for alias in child.names)
            visit(child, inner)

    visit(tree, [])
    return found


def test_every_room_has_a_floor():
    """Each module and folder of the package stands on a floor, and each floor names one that exists."""
    assert {room_of(path) for path, _ in files()} == set(FLOORS)


def test_imports_go_down_only():
    """No module imports from a higher floor, but for the delegates named here; each of those exists."""
    upwards, used = [], set()
    for path, tree in files():
        room = room_of(path)
        for name, place in imports(tree):
            if not name.startswith("hydra_detect."):
                continue
            target = name.split(".")[1]
            if target in FLOORS and FLOORS[target] > FLOORS[room]:
                if f"{room}.{place}" in DELEGATES:
                    used.add(f"{room}.{place}")
                else:
                    upwards.append(f"{path.name}: {place or 'top'} imports {name}")
    assert upwards == []
    assert used == DELEGATES


def test_wings_do_not_import_each_other():
    """Versions and registry know no networks, and networks know no versions and no disk."""
    for path, tree in files():
        room = room_of(path)
        targets = {name.split(".")[1] for name, _ in imports(tree) if name.startswith("hydra_detect.")}
        if room in LEFT_WING:
            assert "nets" not in targets, path
        if room == "nets":
            assert not targets & {*LEFT_WING, "storage"}, path


def test_torch_stays_in_its_rooms():
    """Only the torch rooms import torch or torchvision."""
    for path, tree in files():
        uses = {name.split(".")[0] for name, _ in imports(tree)} & {"torch", "torchvision"}
        assert not uses or room_of(path) in TORCH_ROOMS, path


def test_extras_are_imported_inside_functions_only():
    """Optional dependencies are imported where they are used, never at the top of a module."""
    for path, tree in files():
        tops = {name.split(".")[0] for name, place in imports(tree) if not place}
        assert not tops & EXTRAS, path


def test_files_and_functions_keep_their_size():
    """No file has more than 400 lines, no function body more than 40, no class more than 12 public methods."""
    for path, tree in files():
        assert len(path.read_text().splitlines()) <= 400, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 40, f"{path.name}: {node.name} has {lines} lines"
            if isinstance(node, ast.ClassDef) and node.name != "Detections":  # its to_* methods are one line each
                public = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name[0] != "_"]
                assert len(public) <= 12, f"{path.name}: {node.name} has {len(public)} public methods"
