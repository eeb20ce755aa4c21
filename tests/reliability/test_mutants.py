"""Tests of the tests: break the library in one place, and one of the safety tests has to fail.

Every sync, every rename and every lock is found by reading the source, so that a new one cannot be forgotten; the
verifications that safety rests on are listed in mutants.toml, and all others are found too, and tried with
--exhaustive. Each is removed alone, in a copy of the package, and tried by the shortest tests that should notice.
"""

import tempfile
from pathlib import Path

import mutating
import pytest
import worlds

# Which short tests to try, the likeliest first; one has to fail. For syncs and renames, by file.
EXPORTED = "test_bundles_export.py::test_a_folder_is_on_the_disk_before_it_has_its_name"
SYNCED_FOR = {
    "bundles/export.py": (EXPORTED,),
    "checkpoints/merge.py": (
        "reliability/test_power_loss.py::test_power_loss_while_an_original_is_written_again",
    ),
    "storage/files.py": ("power, create", "power, create first of its name", "power, new store"),
    "storage/items.py": (
        "power, create", "power, prune then pin", "power, roll back", "power, create then promote newest",
        "power after a kill in create", "power after a kill in promote newest",
        "power after a kill in publish a backbone", "test_items.py::test_a_parent_lasts",
    ),
    "storage/recovery.py": ("power after a kill in remove", "power after a kill in prune"),
    "storage/renaming.py": ("power, rename",),
    "storage/repair.py": ("power, repair", "power, repair of a pointer"),
    "storage/store.py": ("power, new store",),
}  # fmt: skip
NAMED_FOR = {
    "bundles/export.py": (EXPORTED,),
    "storage/files.py": ("crash, promote newest",),
    "hub/originals.py": ("test_hub_downloads.py::test_an_original_is_downloaded_once",),
    "hub/pretrained.py": ("test_hub_push.py::test_saved_in_a_folder",),
    "storage/derived.py": ("test_index.py",),
    "storage/items.py": ("crash, create",),
    "storage/recovery.py": ("crash, create", "crash, prune"),
    "storage/renaming.py": ("crash, rename",),
    "storage/repair.py": ("power, repair",),
}
ORDER = "reliability/test_lock_order.py::test_"
# By the function that takes the lock.
LOCKED_FOR = {
    "storage/backbones.py:publish": (f"{ORDER}waits[publish-the-backbone-again]",),
    "storage/items.py:settled": (f"{ORDER}waits[pin]",),
    "storage/items.py:publish": (f"{ORDER}waits[create]", f"{ORDER}what_was_written_waits_for_its_number"),
    "storage/publishing.py:_lean_on": (f"{ORDER}what_is_taken_away_again_waits",),
    "storage/publishing.py:_say_so": (f"{ORDER}what_a_compact_head_leans_on_is_waited_for",),
    "storage/renaming.py:remove": (f"{ORDER}waits[remove]",),
    "storage/renaming.py:rename": (f"{ORDER}waits[rename]",),
    "storage/repair.py:_mend_item": (f"{ORDER}waits[repair]",),
    "versions.py:promote": (f"{ORDER}waits[promote-newest]",),
    "versions.py:rollback": (f"{ORDER}waits[roll-back]",),
    "versions.py:pin": (f"{ORDER}waits[pin]",),
    "versions.py:unpin": (f"{ORDER}waits[unpin]",),
    "versions.py:prune": (f"{ORDER}waits[prune]",),
}
ELSEWHERE = frozenset(["storage/files.py disk.rename(aside, target)"])
"""What is done on Windows alone, where these tests do not run."""


def is_here(mutant):
    """Whether what a mutant removes is ever done on this system."""
    text = (mutating.PACKAGE / mutant.file).read_text()[mutant.begin : mutant.end]
    return f"{mutant.file} {text}" not in ELSEWHERE


SYNCS, LOCKS, LISTED = mutating.syncs(SYNCED_FOR), mutating.locks(LOCKED_FOR), mutating.listed()
RENAMES = list(filter(is_here, mutating.renames(NAMED_FOR)))
MUTANTS = [*LISTED, *SYNCS, *RENAMES, *LOCKS]  # those first that take longest


@pytest.fixture(scope="module")
def states():
    """A folder of stores as the unbroken library makes them."""
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        worlds.build_states(Path(folder))
        yield Path(folder)


def test_broken_safety_is_noticed(states, tally):
    """With one guard removed, whichever it is, one of the tests that should notice fails."""
    cases = tally("guards removed and noticed: every sync, rename and lock, and listed verifications")
    said = mutating.verdicts(MUTANTS, states)
    unnoticed = {str(mutant): verdict for mutant, verdict in said.items() if verdict}
    assert not unnoticed
    for mutant in said:
        cases.case(mutant.file, mutant.begin, mutant.new)
    cases.require(len(MUTANTS))
    assert min(len(SYNCS), len(LOCKS)) >= 10
    assert len(RENAMES) >= 6
    assert len(LISTED) >= 40


def test_the_safety_tests_pass_unbroken(states):
    """The same short tests pass on an unbroken copy: what they notice above is the breakage."""
    wanted = sorted({test for mutant in MUTANTS for test in mutant.tests})
    assert len(wanted) >= 50
    assert mutating.unbroken(wanted, states) == {}


# Of each file, the tests that should notice when it accepts what it should refuse.
REFUSED_FOR = {
    "codec.py": ("test_codec.py", "reliability/test_hostile_json.py"),
    "names.py": ("test_names.py",),
    "tensors.py": ("test_tensors.py", "test_versions.py"),
    "retention.py": ("test_retention.py",),
    "registry.py": ("test_registry.py", "test_detector.py"),
    "versions.py": (
        "test_versions.py",
        "test_version_promotions.py",
        "test_version_rollbacks.py",
        "test_version_changes.py",
    ),
    "storage/artifacts.py": ("test_artifacts.py", "reliability/test_hostile_tensors.py"),
    "storage/backbones.py": ("test_backbones.py", "test_heads.py"),
    "storage/changes.py": ("test_changes.py", "test_versions.py", "test_renaming.py", "test_version_promotions.py"),
    "storage/check.py": ("test_check.py",),
    "storage/files.py": ("test_files.py", "test_files_reading.py", "test_store_reading.py"),
    "storage/heads.py": (
        "test_heads.py",
        "test_versions.py",
        "test_version_promotions.py",
        "test_version_rollbacks.py",
    ),
    "storage/identity.py": ("test_store.py", "reliability/test_newer.py"),
    "storage/items.py": ("test_items.py", "test_items_state.py", "test_store_reading.py", "test_pointers.py"),
    "storage/locks.py": ("test_locks.py",),
    "storage/manifests.py": ("test_manifests.py", "test_artifacts.py"),
    "storage/pointers.py": ("test_pointers.py", "reliability/test_newer.py"),
    "storage/publishing.py": ("test_publishing.py",),
    "storage/references.py": ("test_publishing.py",),
    "storage/renaming.py": ("test_renaming.py", "test_renaming_stopped.py"),
    "storage/repair.py": ("test_repair_history.py", "test_repair.py"),
    "storage/sealed.py": ("test_sealed.py", "test_pointers.py"),
    "storage/store.py": ("test_store.py",),
}


def test_no_file_is_forgotten():
    """Each file of the storage that refuses anything is listed, with the tests that should notice."""
    refusing = {source.file for source in mutating.sources() if mutating.refusals(source)}
    assert {file for file in refusing if file.startswith("storage/")} <= set(REFUSED_FOR)
    assert set(REFUSED_FOR) <= refusing


def test_every_refusal_is_noticed(states, tally, exhaustive):
    """Whatever the library refuses, a test would notice if it did not: each `raise` is taken away in turn."""
    if not exhaustive:
        pytest.skip("every refusal is tried with --exhaustive; those that safety rests on are tried above")
    cases = tally("refusals removed and noticed, each `raise` of storage, versions, registry, codec and names")
    mutants = mutating.verifications(REFUSED_FOR)
    said = mutating.verdicts(mutants, states)
    unnoticed = {str(mutant): verdict for mutant, verdict in said.items() if verdict}
    assert not unnoticed
    for mutant in said:
        cases.case(mutant.file, mutant.begin)
    cases.require(100)
