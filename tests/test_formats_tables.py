"""Tables: detections as pandas and supervision hold them, and back."""

import sys
import warnings

import numpy as np
import pytest
import strategies
from hypothesis import given

from hydra_detect.detections import Detections
from hydra_detect.errors import ExtraMissingError, InputError
from hydra_detect.formats import tables

EMPTY = Detections(image_size=(48, 64))


@pytest.fixture(scope="module", autouse=True)
def supervision_imported():
    """Import supervision once with its warnings off: it warns as it is imported without OpenCV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import supervision  # noqa: F401


def one(**changes):
    """Return one detection."""
    values = {
        "boxes": [(1, 2.5, 30, 40.1)], "scores": [0.93], "labels": [2], "label_names": ["RBC"], "heads": ["blood"],
        "head_versions": [3], "image_size": (48, 64), "source": "a/b.jpg",
    }  # fmt: skip
    return Detections(**(values | changes))


@given(strategies.detections(low=-strategies.SIDE))
def test_tables_round_trip(d):
    """A DataFrame and supervision.Detections give back all that they hold, bit for bit."""
    again = tables.from_pandas(tables.to_pandas(d), image_size=d.image_size, source=d.source)
    assert again == d
    assert tables.from_supervision(tables.to_supervision(d), image_size=d.image_size, source=d.source) == d


def test_pandas_columns_are_as_documented():
    """The table has one row per box, typed columns, and its own source."""
    frame = tables.to_pandas(one())
    assert list(frame.columns) == ["source", "head", "version", "label", "label_id", "score", "x1", "y1", "x2", "y2"]
    assert frame["score"].dtype == np.float32
    assert frame["label_id"].dtype == np.int64
    assert tables.from_pandas(frame, image_size=(48, 64)) == one()
    empty = tables.to_pandas(EMPTY)
    assert len(empty) == 0
    assert tables.from_pandas(empty, image_size=(48, 64)) == EMPTY


def test_pandas_through_csv(tmp_path):
    """A table that went through a CSV file reads back the same."""
    import pandas as pd

    tables.to_pandas(one()).to_csv(tmp_path / "t.csv", index=False)
    again = tables.from_pandas(pd.read_csv(tmp_path / "t.csv"), image_size=(48, 64))
    assert again == one()


def test_malformed_tables_are_named():
    """A missing column, a value of the wrong kind and rows of two pictures are refused by name."""
    import pandas as pd

    frame = tables.to_pandas(one())
    with pytest.raises(InputError, match="no column label, x1"):
        tables.from_pandas(frame.drop(columns=["x1", "label"]), image_size=(1, 1))
    with pytest.raises(InputError, match="column 'label_id' holds something other than whole numbers"):
        tables.from_pandas(frame.assign(label_id=1.5), image_size=(1, 1))
    with pytest.raises(InputError, match="column 'label_id'"):
        tables.from_pandas(frame.assign(label_id=np.nan), image_size=(1, 1))
    with pytest.raises(InputError, match="column 'x1'"):
        tables.from_pandas(frame.assign(x1="a"), image_size=(1, 1))
    with pytest.raises(InputError, match="column 'label' holds 5"):
        tables.from_pandas(frame.assign(label=5), image_size=(1, 1))
    with pytest.raises(InputError, match="2 pictures"):
        tables.from_pandas(pd.concat([frame, frame.assign(source="c")]), image_size=(1, 1))


def test_supervision_of_others():
    """Boxes of another program need a confidence and a class; names and heads may be missing."""
    import supervision as sv

    bare = sv.Detections(xyxy=np.array([[0, 0, 1, 1.0]]), confidence=np.array([0.5]), class_id=np.array([7]))
    again = tables.from_supervision(bare, image_size=(2, 2))
    assert (again.label_names.tolist(), again.labels.tolist(), again.heads.tolist()) == (["7"], [7], [""])
    assert tables.from_supervision(sv.Detections.empty(), image_size=(48, 64)) == EMPTY
    with pytest.raises(InputError, match="confidence is None for 1 boxes"):
        tables.from_supervision(sv.Detections(xyxy=np.array([[0, 0, 1, 1.0]])), image_size=(2, 2))
    assert len(tables.to_supervision(EMPTY)) == 0


@pytest.mark.parametrize(("extra", "make"), [("pandas", tables.to_pandas), ("supervision", tables.to_supervision)])
def test_missing_extras_are_named(monkeypatch, extra, make):
    """Without the optional library the error names the command that installs it."""
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ExtraMissingError, match=rf"pip install 'hydra-detect\[{extra}\]'"):
        make(one())
