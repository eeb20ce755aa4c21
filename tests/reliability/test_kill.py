"""kill -9 at every step of every operation, and at steps of the recovery after it: done in `killing`, counted here."""

import apart


def test_kill_at_every_step(tally, exhaustive):
    """At whatever step an operation, or the recovery after it, is killed, the old state or the new one is whole."""
    kills = tally("kill -9 at every step of every operation")
    recoveries = tally("kill -9 at steps of the recovery after such a kill")
    for killed, recovered in apart.run("killing", "kill_at_every_step", exhaustive=exhaustive):
        kills.cases.update(map(tuple, killed))
        recoveries.cases.update(map(tuple, recovered))
    kills.require(2_000)
    recoveries.require(4_000 if exhaustive else 2_000)


def test_kill_while_a_store_is_made(tally):
    """A store whose making was killed at any step is made by the next who tries, and is no foreign folder."""
    cases = tally("kill -9 at every step of making a store")
    cases.cases.update(apart.cases("killing", "kill_while_a_store_is_made"))
    cases.require(20)
