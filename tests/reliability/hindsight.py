"""What a crowd did to a store, judged afterwards from its logs and from the history that the store kept."""

import json
from collections import Counter, defaultdict

import attrs

from hydra_detect.storage import layout, pointers

EVENTS = {
    "promote": pointers.PROMOTED, "rollback": pointers.ROLLED_BACK, "prune": pointers.PRUNED,
    "pin": pointers.PINNED, "unpin": pointers.UNPINNED,
}  # fmt: skip


@attrs.define(kw_only=True)
class Deed:
    """Something that a writer did: `end` is "done", the name of an error, or "" if the writer was killed in it."""

    reason: str
    what: str
    head: str
    number: int | None
    began: int
    ended: int = 1 << 63
    end: str = ""
    text: str = ""
    result: int | None = None

    def __str__(self):
        """Say what it was."""
        return (
            f"{self.what} {self.head}@{self.number} ({self.reason}): {self.end or 'killed'} {self.result} {self.text}"
        )


def deeds_in(folder):
    """Return all deeds in the logs of the writers."""
    deeds = {}
    for path in sorted(folder.glob("writer-*")):
        for line in path.read_text().splitlines():
            facts = json.loads(line)
            if "backbone" in facts:
                continue
            if "what" in facts:
                deeds[facts["reason"]] = Deed(**facts)
            else:
                for name, value in facts.items():
                    setattr(deeds[facts["reason"]], name, value)
    return list(deeds.values())


def backbones_in(folder):
    """Return which backbones were offered under one name, and how that ended."""
    lines = [json.loads(line) for path in folder.glob("writer-*") for line in path.read_text().splitlines()]
    return [(line["backbone"], line["end"]) for line in lines if "backbone" in line]


def reads_in(folder):
    """Return the reads of all readers, and the versions that they listed and then could not find."""
    lines = [json.loads(line) for path in folder.glob("reader-*") for line in path.read_text().splitlines()]
    return [read for line in lines for read in line.get("reads", ())], [line for line in lines if "gone" in line]


def next_state(before, event, version, gone):
    """Return active version, earlier ones and pinned ones after an event."""
    active, earlier, pinned = before.active, list(before.earlier), [pin.version for pin in before.pins]
    if event == pointers.PROMOTED:
        earlier += [active] if active else []
        active = version
    elif event == pointers.ROLLED_BACK:
        active = earlier.pop()
    elif event == pointers.PINNED:
        pinned.append(version)
    elif event == pointers.UNPINNED:
        pinned.remove(version)
    else:
        assert event == pointers.PRUNED, event
        earlier = [number for number in earlier if number not in gone]
    following = [*earlier[1:], active]
    steps = [number for number, after in zip(earlier, following, strict=True) if number != after] if earlier else []
    return active, tuple(steps[-pointers.MOST_EARLIER :]), sorted(pinned)


class Head:
    """One head: its generations, and what was done to it."""

    def __init__(self, store, name, deeds):
        self.store, self.name = store, name
        self.deeds = [deed for deed in deeds if deed.head == name]
        self.item = store.layout.item(layout.HEADS, name)
        numbers = self.item.pointer_generations()
        assert numbers == list(range(1, len(numbers) + 1)), "generations are missing"
        self.states = [pointers.NOTHING, *(pointers.read(self.item, number) for number in numbers)]
        self.taken = {taken.version: state for state in self.states[1:] for taken in state.change.taken}
        self.by_reason = {state.change.reason: state for state in self.states[1:]}
        self.published = {deed.result: deed for deed in self.deeds if (deed.what, deed.end) == ("publish", "done")}

    def check(self):
        """See that nothing was lost, doubled, out of order or refused without reason."""
        self.check_numbers()
        self.check_states()
        self.check_deeds()
        self.check_order([deed for deed in self.deeds if deed.reason in self.by_reason], self._generation)

    def _generation(self, deed):
        return self.by_reason[deed.reason].generation

    def check_numbers(self):
        """Numbers are unique, in the order of real time, and what was published is there unless it was pruned."""
        publishes = [deed for deed in self.deeds if deed.what == "publish"]
        refused = [str(deed) for deed in publishes if deed.end not in {"done", ""}]
        assert not refused, refused
        counts = Counter(deed.result for deed in publishes if deed.end)
        assert max(counts.values()) == 1, f"given out twice: {counts.most_common(3)}"
        self.check_order(list(self.published.values()), lambda deed: deed.result)
        present = set(self.store.head(self.name).numbers())
        lost = set(self.published) - present - set(self.taken)
        assert not lost, f"acknowledged, and lost: {lost}"
        assert not present & set(self.taken), "taken away, and there"

    @staticmethod
    def check_order(deeds, number_of):
        """See that of two deeds the one that had ended before the other began has the smaller number."""
        ended = sorted(deeds, key=lambda deed: deed.ended)
        highest, place = 0, 0
        for deed in sorted(deeds, key=lambda deed: deed.began):
            while ended[place].ended < deed.began:
                highest = max(highest, number_of(ended[place]))
                place += 1
            assert number_of(deed) > highest, f"{deed} began after number {highest} was there"

    def check_states(self):
        """Each generation is its event applied to the one before: so no update was lost under another."""
        for before, state in zip(self.states, self.states[1:], strict=False):
            gone = {taken.version for taken in state.change.taken}
            expected = next_state(before, state.change.what, state.change.version, gone)
            pinned = sorted(pin.version for pin in state.pins)
            assert (state.active, state.earlier, pinned) == expected, (before, state)
            assert not gone & {before.active, before.previous, *before.pinned}, (before, state)
            self._check_kept(state, gone)

    def _check_kept(self, state, gone):
        """See that a pruning took none of the last five: so many newer ones had at least begun when it was over."""
        over = next((deed.ended for deed in self.deeds if deed.reason == state.change.reason), 0)
        begun = [number for number, deed in self.published.items() if deed.began < over]
        unknown = sum(deed.what == "publish" and not deed.end and deed.began < over for deed in self.deeds)
        for number in gone:
            newer = sum(other > number for other in begun) + unknown
            assert newer >= 5, f"{number} was taken when only {newer} were newer"

    def check_deeds(self):
        """Each acknowledged change has a generation of its own, and who was refused has none."""
        known = {deed.reason: deed for deed in self.deeds}
        reasons = Counter(state.change.reason for state in self.states[1:])
        assert max(reasons.values()) == 1, f"done twice: {reasons.most_common(3)}"
        for reason, state in self.by_reason.items():
            deed = known[reason]
            assert EVENTS[deed.what] == state.change.what, (deed, state)
            assert deed.end in {"done", ""}, f"refused, and done: {deed}"
        for deed in self.deeds:
            if deed.what != "publish" and deed.end == "done" and deed.reason not in self.by_reason:
                assert self._was_so_already(deed), f"acknowledged, and in no generation: {deed}"
            if deed.end not in {"done", ""}:
                assert self._may_be_refused(deed), f"refused without reason: {deed}"

    def _was_so_already(self, deed):
        """Whether there was nothing to change at some moment while it was done."""
        is_so = {
            "promote": lambda state: state.active == deed.number,
            "pin": lambda _state: False,  # each has a reason of its own
            "unpin": lambda state: deed.number not in state.pinned,  # another was faster, and had the last pin
            "prune": lambda _state: deed.result == 0,
            "rollback": lambda _state: False,
        }[deed.what]
        return any(is_so(state) for state in self._during(deed))

    def _during(self, deed):
        """Return the states that may have been the present one while something was done."""
        known = {deed.reason: deed for deed in self.deeds}
        for state, after in zip(self.states, [*self.states[1:], None], strict=True):
            came = known[state.change.reason].began if state.change else 0
            went = known[after.change.reason].ended if after else 1 << 63
            if came <= deed.ended and went >= deed.began:
                yield state

    def _may_be_refused(self, deed):
        """Whether an error is a legal answer: the version was pruned, there was nothing to go back to, or a race."""
        if deed.end == "NotFoundError" and deed.what == "unpin":  # another was faster, and left other pins
            return any(deed.number in state.pinned for state in self._during(deed)) or self.was_taken(
                deed.number, by=deed.ended
            )
        if deed.end == "NotFoundError" and deed.number is not None:
            return self.was_taken(deed.number, by=deed.ended)
        if deed.end == "NotFoundError" and deed.what == "rollback":
            return any(state.previous is None for state in self._during(deed))
        if deed.end == "ConflictError" and deed.what == "rollback":  # it means the state that it saw
            return len({(state.active, state.previous) for state in self._during(deed)}) > 1
        return False

    def was_taken(self, number, *, by):
        """Whether a version may have been taken away by a time: whoever did it had begun."""
        known = {deed.reason: deed for deed in self.deeds}
        return number in self.taken and known[self.taken[number].change.reason].began <= by


def check_reads(heads, reads, gone):
    """See that every read was of a version that was active meanwhile, and said what was published under its number."""
    says = defaultdict(dict)
    for name, head in heads.items():
        says[name].update({number: deed.number for number, deed in head.published.items()})
    for name, before, after, number, number_said in reads:
        head = heads[name]
        if after:
            active = {state.active for state in head.states[before : after + 1]}
            assert number in active, f"{name}@{number} was read as active between {before} and {after}"
        assert says[name].setdefault(number, number_said) == number_said, f"{name}@{number} says something else"
    for line in gone:
        head = heads[line["head"]]
        assert head.was_taken(line["gone"], by=line["at"]), f"{line} was listed, and not taken away by then"
