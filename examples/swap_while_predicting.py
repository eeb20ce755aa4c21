"""Load and unload heads while another thread predicts: each answer is whole, none waits for the change.

Run it with `python examples/swap_while_predicting.py`. Needs nothing beside the installed package.
"""

import pathlib
import tempfile
import threading
import time

from hydra_detect import HydraDetector
from hydra_detect.demo.run import DATA, FURTHER_HEADS, run_demo


def keep_predicting(detector, photograph, stop, seen):
    """Predict until told to stop; note which heads answered each time."""
    while not stop.is_set():
        found = detector.predict(photograph)
        seen.append(tuple(found.timing.heads))


def main():
    """Predict in one thread, change the heads in another, and print which heads answered."""
    photograph = min((DATA / "pictures").glob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        made = run_demo(pathlib.Path(folder) / "demo", say=lambda _text: None)
        detector = HydraDetector.from_store(made.folder / "store", heads=["rbc"])
        stop, seen = threading.Event(), []
        worker = threading.Thread(target=keep_predicting, args=(detector, photograph, stop, seen))
        worker.start()
        try:
            for _ in range(3):
                for name in FURTHER_HEADS:
                    print("loaded  ", detector.load_head(name))  # one atomic assignment
                    time.sleep(0.2)  # let the other thread see it
                detector.swap("rbc@1")  # another version of a loaded head; here the same one
                for name in FURTHER_HEADS:
                    detector.unload_head(name)  # predictions in progress finish with what they began with
                    print("unloaded", name)
        finally:
            stop.set()
            worker.join()
    for heads in sorted(set(seen), key=lambda names: (len(names), names)):
        print(f"{seen.count(heads)} predictions by {', '.join(heads)}")


if __name__ == "__main__":
    main()
