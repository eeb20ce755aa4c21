"""Everything on disk: how bytes are written, where they lie, and how they prove themselves when read.

No torch, and no opinion on which version ought to be active: that is `hydra_detect.versions`.
"""
