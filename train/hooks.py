"""Functions that a configuration names as ``module:function``."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from trm_edge.errors import TrmInputError

from .model import Batch

FeaturesFn = Callable[[Tensor, Batch], Tensor]


def find_hook(field: str, name: str, folder: Path) -> Callable[..., Any] | None:
    """Import what ``name`` says, from the configuration's folder, the current one, or where Python looks.

    Returns None where ``name`` is empty, and raises :class:`TrmInputError` where it cannot be found.
    """
    if not name:
        return None
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise TrmInputError(f"{field}: expected 'module:function', got {name!r}")
    places = [str(folder.resolve()), str(Path.cwd())]
    sys.path[:0] = places
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module that is not found, or whatever running it raises
        raise TrmInputError(f"{field}: {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        for place in places:
            sys.path.remove(place)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise TrmInputError(f"{field}: {module_name} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def call_hook(field: str, function: Callable[..., Any], **arguments: Any) -> Any:
    """Return what ``function`` makes of the arguments, in their order; a TypeError says how it was called, and where.

    That is what a function of another signature raises.
    """
    try:
        return function(*arguments.values())
    except TypeError as error:
        inside = traceback.format_tb(error.__traceback__)[1:]
        where = "\n" + "".join(inside).rstrip() if inside else ""
        given = ", ".join(arguments)
        raise TrmInputError(f"{field}: expected a function of ({given}), got TypeError: {error}{where}") from error


def fresh_features(features_fn: FeaturesFn, y_hat: Tensor, batch: Batch) -> Tensor:
    """Return what ``features_fn`` makes of the answer ``y_hat [B, T, dof]``, after checking its shape."""
    features = call_hook("data.features_fn", features_fn, y_hat=y_hat, batch=batch)
    expected = batch["features"].shape
    if not isinstance(features, Tensor):
        raise TrmInputError(f"data.features_fn: expected a tensor {list(expected)}, got {type(features).__name__}")
    if features.shape != expected:
        raise TrmInputError(f"data.features_fn: expected features {list(expected)}, got {list(features.shape)}")
    if bool(y_hat.isfinite().all()) and not bool(features.isfinite().all()):
        raise TrmInputError("data.features_fn: expected finite features of finite answers, got NaN or Inf")
    return features.detach().to(batch["features"])
