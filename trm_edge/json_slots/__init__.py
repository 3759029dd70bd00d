"""Tool calls behind a language model: a draft and a query become slots with candidates, choices become valid JSON.

It reads from left to right: ``compilation`` (a tool's JSON Schema becomes a ``schema``) -> ``slots`` -> ``candidates``
(with what ``operators`` read from the query) -> ``features`` (arrays, with the vectors of ``providers``) -> a head ->
``joint`` (what slots choose together) -> ``answer`` (JSON, by ``validation`` valid). ``calls`` ties one call together.
"""

from .calls import JsonSlots, Resolved, SlotInputs
from .compilation import compile_tool
from .features import Featurizer
from .providers import ContextProvider, GivenStates, HashedNgrams, Joined, Tokens
from .resolver import ResolvedCall, Resolver, resolve_tool_call
from .schema import SchemaError, Tool
from .text import JsonTextError

__all__ = [
    "ContextProvider",
    "Featurizer",
    "GivenStates",
    "HashedNgrams",
    "Joined",
    "JsonSlots",
    "JsonTextError",
    "Resolved",
    "ResolvedCall",
    "Resolver",
    "SchemaError",
    "SlotInputs",
    "Tokens",
    "Tool",
    "compile_tool",
    "resolve_tool_call",
]
