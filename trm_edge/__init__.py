"""trm_edge: refine a large model's draft with a Tiny Recursive Model, at a fixed latency.

>>> import trm_edge
>>> refiner = trm_edge.load(trm_edge.example())
>>> out = refiner.refine(x, y0, steps=4, last_action=q)  # doctest: +SKIP
"""

from ._native import core as _core_module
from .backends import available_backends
from .context import stack_context
from .errors import (
    Status,
    TrmBundleError,
    TrmBusyError,
    TrmDeviceError,
    TrmError,
    TrmInputError,
    TrmIOError,
    TrmMemoryError,
    TrmNotBegunError,
    TrmUnsupportedError,
    TrmVersionError,
)
from .limits import Limits, Projection, project_limits
from .on_device import DeviceArray, DeviceRefinement
from .refinement import Refinement
from .refiner import Refiner, load, refine
from .shipped import example
from .spec import TrmSpec

__version__: str = _core_module.__version__

__all__ = [
    "DeviceArray",
    "DeviceRefinement",
    "Limits",
    "Projection",
    "Refinement",
    "Refiner",
    "Status",
    "TrmBundleError",
    "TrmBusyError",
    "TrmDeviceError",
    "TrmError",
    "TrmIOError",
    "TrmInputError",
    "TrmMemoryError",
    "TrmNotBegunError",
    "TrmSpec",
    "TrmUnsupportedError",
    "TrmVersionError",
    "__version__",
    "available_backends",
    "example",
    "load",
    "project_limits",
    "refine",
    "stack_context",
]
