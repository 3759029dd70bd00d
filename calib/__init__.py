"""From a bundle to a calibrated one: scales of the matrix inputs, and what rounding does to the whole trajectory.

    from trm_edge.bundle import read_bundle
    from trm_edge.calib import calibrate, load_calls

    bundle = read_bundle("push.trm")
    result = calibrate(bundle, load_calls("push.npz", bundle.spec, most=256), scheme="static")

The command is ``trm-edge calibrate``. NumPy is enough; the progress bar and the picture need
``pip install 'trm-edge[calib]'``.
"""

from .calibrate import Calibration, calibrate
from .calls import Call, golden_calls, load_calls
from .observers import OBSERVERS
from .trajectory import Trajectory

__all__ = ["OBSERVERS", "Calibration", "Call", "Trajectory", "calibrate", "golden_calls", "load_calls"]
