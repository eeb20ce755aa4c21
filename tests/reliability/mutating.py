"""Mutants of the library: copies of its source with one guard removed, found by reading it or listed by hand."""

import ast
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import attrs
import worlds

import hydra_detect

PACKAGE = Path(hydra_detect.__file__).parent
HERE = Path(__file__).parent
TESTS = HERE.parent
SECONDS, NEVER_ENDED = 500, 124
# An exception of these kinds says that the mutant is no program any more, and nothing about a test.
BROKEN = re.compile(r"\b(NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b")


@attrs.frozen
class Mutant:
    """One place that is broken, and the tests of which one must fail: suites of safety.py, or pytest's own names."""

    what: str
    file: str
    begin: int
    end: int
    new: str
    tests: tuple[str, ...]
    is_refusal: bool = False

    def __str__(self):
        """Say which it is."""
        return self.what

    def apply(self, package):
        """Break a copy of the package; return what makes it whole again."""
        path = package / "hydra_detect" / self.file
        whole = path.read_text()
        broken = whole[: self.begin] + self.new + whole[self.end :]
        compile(broken, self.file, "exec")
        path.write_text(broken)
        return lambda: path.write_text(whole)


class Source:
    """The text of one file of the library, with its statements."""

    def __init__(self, file):
        self.file, self.text = file, (PACKAGE / file).read_text()
        self.tree = ast.parse(self.text)
        self._starts = [0]
        for line in self.text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node):
        """Return where a node begins and ends in the text; the sources are ASCII but for comments."""
        assert self.text.isascii(), f"{self.file} has letters of more than one byte"
        begin = self._starts[node.lineno - 1] + node.col_offset
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset

    def mutant(self, node, new, tests, what=""):
        """Return the mutant in which a node is replaced."""
        begin, end = self.span(node)
        place = f"{self.file}:{node.lineno}"
        return Mutant(f"{place} {what or f'no {self.text[begin:end]:.50}'}", self.file, begin, end, new, tuple(tests))


def left_out(folder, names):
    """Return what a copy of the package does without: bytecode, and the demo's photographs."""
    return {"__pycache__", "data"} & set(names) if Path(folder).name == "demo" else {"__pycache__"} & set(names)


def sources():
    """Return every file of the library."""
    return [Source(str(path.relative_to(PACKAGE))) for path in sorted(PACKAGE.rglob("*.py"))]


def name_called(node):
    """Return the name of the method that a call is of, or nothing."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def calls(source, *names):
    """Yield the statements of a file that are nothing but a call of a method of one of these names."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr) and name_called(node.value) in names:
            yield node


def syncs(tests):
    """Every statement of the library that waits for the disk, removed; `tests` gives those for a file."""
    return [
        source.mutant(node, "pass", tests[source.file])
        for source in sources()
        if source.file != "storage/disk.py"
        for node in calls(source, "sync", "sync_folder")
    ]


def renames(tests):
    """Every statement that gives a file or folder its name, removed."""
    return [
        source.mutant(node, "pass", tests[source.file])
        for source in sources()
        if source.file != "storage/disk.py"
        for node in calls(source, "rename", "link", "replace")
        if "disk" in ast.unparse(node)
    ]


def locks(tests):
    """Every place that takes the lock of a head or backbone, without it; `tests` gives those for a function."""
    found = []
    for source in sources():
        for function in ast.walk(source.tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr == "settled":
                    place = f"{source.file}:{function.name}"
                    found.append(
                        source.mutant(node, f"{ast.unparse(node.value)}.steady", tests[place], f"{place}: no lock")
                    )
                if isinstance(node, ast.With) and name_called(node.items[0].context_expr) == "changing":
                    place, item = f"{source.file}:{function.name}", node.items[0].context_expr
                    new = "contextlib.nullcontext()" if "import contextlib" in source.text else "open('/dev/null')"
                    found.append(source.mutant(item, new, tests[place], f"{place}: no lock"))
    return list({(mutant.file, mutant.begin): mutant for mutant in found}.values())


def refusals(source):
    """Return every `raise` of an error in a file."""
    return [node for node in ast.walk(source.tree) if isinstance(node, ast.Raise) and node.exc is not None]


def verifications(files):
    """Every `raise` in these files, taken away: what was refused is accepted, or goes on; `files` gives their tests."""
    found = []
    for file, tests in files.items():
        source = Source(file)
        for node in refusals(source):
            what = f"no {ast.unparse(node.exc).partition('(')[0]}"
            found.append(attrs.evolve(source.mutant(node, "pass", tests, what), is_refusal=True))
    return found


def listed():
    """The guards of mutants.toml."""
    found = []
    for facts in tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]:
        text = (PACKAGE / facts["file"]).read_text()
        count = text.count(facts["old"])
        assert count == 1, f"{facts['file']} has {facts['old']!r} {count} times: bring mutants.toml up to date"
        begin = text.index(facts["old"])
        found.append(
            Mutant(facts["what"], facts["file"], begin, begin + len(facts["old"]), facts["new"], tuple(facts["tests"]))
        )
    return found


# Trying them


def verdicts(mutants, states):
    """Try mutants, several at a time; return of each whether a test noticed, or what went wrong.

    Args:
        mutants: The mutants.
        states: A folder of stores that the unbroken library built.

    """
    workers = os.cpu_count() or 1
    in_memory = tempfile.TemporaryDirectory(dir=worlds.MEMORY)
    with in_memory as folder, concurrent.futures.ThreadPoolExecutor(workers) as pool:
        copies = [Path(folder) / str(number) for number in range(workers)]
        for copy in copies:
            shutil.copytree(PACKAGE, copy / "hydra_detect", ignore=left_out)
        free = list(copies)

        def judge(mutant):
            copy = free.pop()
            try:
                return verdict(mutant, copy, states)
            finally:
                free.append(copy)

        return dict(zip(mutants, pool.map(judge, mutants), strict=True))


def verdict(mutant, copy, states):
    """Return nothing if a test noticed a mutant, else what there is to say."""
    restore = mutant.apply(copy)
    try:
        for test in mutant.tests:
            code, said = run([test], copy, states)
            # Where a refusal is taken away, what it stood for may never be bound: that is how it goes on.
            if code == 1 and BROKEN.search(said.replace("UnboundLocalError", "") if mutant.is_refusal else said):
                return f"no program any more: {said[-1500:]}"
            if code == 1:
                return ""
            if code:
                return f"{test} did not run: {said[-1500:]}"
    finally:
        restore()
    return "nobody noticed"


def unbroken(tests, states):
    """Run tests against a copy in which nothing is broken; return what failed, by its name."""
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        copy = Path(folder)
        shutil.copytree(PACKAGE, copy / "hydra_detect", ignore=left_out)
        suites = [[test for test in tests if ".py" in test], *([test] for test in tests if ".py" not in test)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            said = pool.map(lambda suite: run(suite, copy, states), suites)
            return {suite[0]: found for suite, (code, found) in zip(suites, said, strict=True) if code}


def run(tests, copy, states):
    """Run one suite of safety.py, or tests of pytest, against a copy; return 0, 1 if one failed, and what was said."""
    scratch = tempfile.mkdtemp(dir=copy)
    if ".py" in tests[0]:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--basetemp={scratch}/pytest"]
        command = [sys.executable, "-P", "-m", "pytest", *options, *(str(TESTS / test) for test in tests)]
    else:
        command = [sys.executable, str(HERE / "safety.py"), *tests, str(states)]
    path = os.pathsep.join([str(copy), str(HERE), str(TESTS)])
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    # As in CI, where what is drawn is the same each time: so is the verdict.
    surroundings = {**own, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": scratch, "CI": "1"}
    try:
        done = subprocess.run(
            command, env=surroundings, cwd=TESTS.parent, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return NEVER_ENDED, "it never ended"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return done.returncode, done.stdout + done.stderr
