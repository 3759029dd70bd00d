"""Tool calls behind a language model: a draft and a query become slots with candidates, choices become valid JSON.

It reads from left to right: ``schema`` (a tool's JSON Schema, compiled) -> ``slots`` -> ``candidates`` (with what
``operators`` read from the query) -> choices -> JSON (``text``). Who chooses is not part of it.
"""

from .schema import SchemaError, Tool, compile_tool
from .slots import Bound, JsonSlots, Resolved
from .text import JsonTextError

__all__ = ["Bound", "JsonSlots", "JsonTextError", "Resolved", "SchemaError", "Tool", "compile_tool"]
