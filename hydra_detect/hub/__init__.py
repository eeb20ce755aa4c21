"""The Hub: a head leaves a store as one commit, and comes into another one whole, checked and pinned."""
