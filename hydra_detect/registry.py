"""`HeadRegistry`: the heads of a store by name, and whether they fit a backbone.

A mapping from validated names to facts; it loads no weights and needs no torch.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import HydraDetectError, IncompatibleError, NameInvalidError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.overview import HeadInfo, HeadStatus, VersionStatus
from hydra_detect.storage import backbones, changes, heads, index, layout, pointers, renaming, usage
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.hub.cards import About
    from hydra_detect.hub.push import Pushed
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.usage import Usage


class HeadRegistry:
    """The heads in a store.

    Iterating gives names; `registry["owl"]` gives the active version, `registry["owl@3"]` that one.

    Args:
        store: A store, or the path of one that exists.
        actor: Who is at work, for the history; left out, $HYDRA_DETECT_ACTOR, or user@host.

    """

    def __init__(self, store: str | os.PathLike[str] | Store, *, actor: str = "") -> None:
        self.store = Store.open(store)
        self.actor = changes.checked(actor, "actor")

    def __repr__(self) -> str:
        return f"HeadRegistry({str(self.store.root)!r}, {len(self)} heads)"

    def __iter__(self) -> Iterator[str]:
        return iter(heads.names(self.store))

    def __len__(self) -> int:
        return len(heads.names(self.store))

    def __contains__(self, ref: object) -> bool:
        """Whether there is such a head, or such a version of one."""
        try:
            wanted = HeadRef.parse(ref)  # type: ignore[arg-type]  # anything may be asked for; what is no name is not there
        except NameInvalidError:
            return False
        numbers = self.store.head(wanted.name).numbers()
        return wanted.version in numbers if wanted.version else bool(numbers)

    def __getitem__(self, ref: str | HeadRef) -> VersionRecord:
        """Return the active version of a head, or the one that the reference names.

        Raises:
            NotFoundError: If there is none; the message says which names come near.

        """
        return heads.find(self.store, ref)

    def info(self, name: str) -> HeadInfo:
        """Return one head at a glance, read from disk.

        Raises:
            NotFoundError: If there is no such head; the message says which names come near.

        """
        item = heads.there(self.store, name)
        numbers, active = item.numbers(), item.pointer().active
        is_by_name = active or not numbers  # the second if it was removed since
        shown = heads.find(self.store, HeadRef(name) if is_by_name else HeadRef(name, numbers[-1]))
        return HeadInfo(
            head=name,
            active=shown.number if active else None,
            versions=tuple(numbers),
            class_names=shown.record.class_names,
            backbone=shown.record.backbone_name,
            backbone_digest=shown.record.backbone.digest,
            nbytes=shown.files[layout.TENSORS][0],
            created_at=shown.created_at,
            leans_on=shown.record.leans_on,
        )

    def infos(self) -> list[HeadInfo]:
        """Return all heads at a glance, sorted by name, through the index where it is up to date.

        A head that cannot be read hides no other: its `problem` says why.
        """

        def read(name: str) -> HeadInfo:
            try:
                return self.info(name)
            except HydraDetectError as error:
                versions: tuple[int, ...] = ()
                with contextlib.suppress(HydraDetectError):  # it may not even be listed
                    versions = tuple(self.store.head(name).numbers())
                return HeadInfo(head=name, active=None, versions=versions, problem=error.found)

        def plain(info: HeadInfo) -> dict[str, Any] | None:
            return None if info.problem else info.to_dict()

        return index.summaries(self.store, read=read, plain=plain, restore=HeadInfo.from_dict)

    def status(self, name: str) -> HeadStatus:
        """Return all versions of a head, and what each is to it; one that cannot be read hides no other.

        Raises:
            NotFoundError: If there is no such head; the message says which names come near.

        """
        item, problem = heads.there(self.store, name), ""
        try:
            state = item.pointer()
        except HydraDetectError as error:
            state, problem = pointers.NOTHING, error.found
        versions = [self._status(name, number, state, is_known=not problem) for number in item.numbers()]
        left = item.numbers()  # one that was pruned meanwhile is no version that cannot be read
        return HeadStatus(
            head=name,
            active=state.active,
            previous=state.previous,
            versions=tuple(version for version in versions if version.number in left),
            problem=problem,
        )

    def _status(self, name: str, number: int, state: Pointer, *, is_known: bool) -> VersionStatus:
        record, problem = None, ""
        try:
            record = heads.find(self.store, HeadRef(name, number))
        except HydraDetectError as error:
            problem = error.found
        return VersionStatus(
            number=number,
            is_active=number == state.active if is_known else None,
            is_previous=number == state.previous if is_known else None,
            pinned_for=tuple(pin.reason for pin in state.pins if pin.version == number),
            record=record,
            problem=problem,
        )

    def usage(self) -> Usage:
        """Measure what takes the disk, by backbone, head and version."""
        return usage.usage(self.store)

    def rename(self, name: str, new: str, *, reason: str = "") -> None:
        """Give a head another name: versions, numbers, what is active and what can be rolled back to stay.

        A name is used once: the old one keeps its history and its numbers, no head can be renamed to it, and a head
        that is made anew under it goes on counting. A detector that runs the head goes on doing so, and has to load
        it under its new name to follow it further.

        Raises:
            NotFoundError: If there is no such head.
            NameInvalidError: If the new name is not allowed.
            ConflictError: If the new name was ever used, or a version is pinned.
            CorruptError: If a version is damaged: see `VersionManager.repair`.

        """
        renaming.rename(self.store, name, new, actor=self.actor, reason=reason)

    def remove(self, name: str, *, reason: str = "", dry_run: bool = False) -> list[int]:
        """Delete all versions of a head; its history stays, and its numbers are never given out again.

        Nothing but a pin, and a compact head that leans on it, protects a head: one that detectors run is removed too,
        and they go on with what they hold.

        Args:
            name: The head.
            reason: Why, for the history.
            dry_run: Say what would be removed, and do nothing.

        Returns:
            The numbers of its versions.

        Raises:
            NotFoundError: If there is no such head.
            ConflictError: If a version is pinned, or a compact head leans on one.
            CorruptError: If a version's manifest is damaged: nothing could be remembered of it.

        """
        return renaming.remove(self.store, name, actor=self.actor, reason=reason, dry_run=dry_run)

    def push(
        self,
        name: str,
        repo: str,
        *,
        version: int | None = None,
        private: bool = False,
        message: str = "",
        about: About | None = None,
        needs: Iterable[str] = (),
        sign_with: str | os.PathLike[str] | None = None,
        endpoint: str | None = None,
    ) -> Pushed:
        """Publish one version of a head on a Hub; `hub.push.push` says what that means, and raises."""
        from hydra_detect.hub.push import push

        return push(
            self.store,
            name,
            repo,
            version=version,
            private=private,
            message=message,
            about=about,
            needs=needs,
            sign_with=sign_with,
            endpoint=endpoint,
        )

    def push_backbone(
        self,
        name: str,
        repo: str,
        *,
        private: bool = False,
        message: str = "",
        about: About | None = None,
        sign_with: str | os.PathLike[str] | None = None,
        endpoint: str | None = None,
    ) -> Pushed:
        """Publish a backbone on a Hub; `hub.push.push_backbone` says what that means, and raises."""
        from hydra_detect.hub.push import push_backbone

        return push_backbone(
            self.store,
            name,
            repo,
            private=private,
            message=message,
            about=about,
            sign_with=sign_with,
            endpoint=endpoint,
        )

    def pull(
        self, ref: str, *, name: str | None = None, allow_older: bool = False, endpoint: str | None = None
    ) -> HeadRef:
        """Put a release from a Hub into the store; `hub.pull.pull` says what that means, and raises."""
        from hydra_detect.hub.pull import pull

        return pull(ref, self.store, name=name, allow_older=allow_older, endpoint=endpoint, actor=self.actor)

    def pull_backbone(self, ref: str, *, name: str | None = None, endpoint: str | None = None) -> str:
        """Put a backbone from a Hub into the store; `hub.pull.pull_backbone` says what that means, and raises."""
        from hydra_detect.hub.pull import pull_backbone

        return pull_backbone(ref, self.store, name=name, endpoint=endpoint)

    def backbones(self) -> list[str]:
        """Return the names of the backbones in the store."""
        return backbones.names(self.store)

    def fitting(self, backbone: Digest | BackboneContract) -> list[str]:
        """Return the heads whose active version was made for this backbone; one that cannot be read is among them.

        Whether that one fits cannot be known, and leaving it out would hide its failure.

        Args:
            backbone: Its tensors' digest; or its whole contract, which compares settings too.

        """
        infos = [info for info in self.infos() if info.active is not None or info.problem]
        return [info.head for info in infos if info.problem or self._fits(info.head, backbone)]

    def _fits(self, name: str, backbone: Digest | BackboneContract) -> bool:
        own = self[name].record.backbone
        return own.digest == backbone if isinstance(backbone, Digest) else not backbone.differences(own)


def check_fits(version: VersionRecord, contract: BackboneContract) -> None:
    """See that a head belongs to a backbone.

    Raises:
        IncompatibleError: Naming every fact in which the two differ.

    """
    differences = contract.differences(version.record.backbone)
    if differences:
        raise IncompatibleError(
            f"run {version.head}@{version.number} on this backbone",
            f"it was made for another one (backbone at hand against the head's): {'; '.join(differences)}",
            f"Use the backbone it was made on, there called {version.record.backbone_name!r}.",
            differences=differences,
        )
