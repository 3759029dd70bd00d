"""Values as JSON has them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from trm_edge.plain import plain


def test_whatever_a_report_holds_is_strict_json() -> None:
    values = {
        "array": np.float32([[1, np.nan], [np.inf, -2]]),
        "tuple": (np.int64(3), np.float64(-np.inf), np.bool_(True)),
        "nested": [{"path": Path("a/b"), 5: math.nan}],
        "none": None,
    }
    text = json.dumps(plain(values), allow_nan=False)
    assert json.loads(text) == {
        "array": [[1, None], [None, -2]],
        "tuple": [3, None, True],
        "nested": [{"path": "a/b", "5": None}],
        "none": None,
    }
