"""The demo: the library's main job on real photographs, with real detectors, without a network."""
