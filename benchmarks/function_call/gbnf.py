"""Grammars of llama.cpp (GBNF) for tool calls: the name of one of the tools, and arguments of its schema's types.

What keeps a small model from running on is in the grammar: one way to set spaces, MAX_LENGTH characters of a string,
MAX_ITEMS of an array. Bounds, formats and other relations of JSON Schema are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trm_edge.json_slots import SchemaError, compile_tool
from trm_edge.json_slots.schema import Array, Choice, Object, Scalar, Schema

MAX_LENGTH, MAX_ITEMS = 80, 10

_COMMON = rf"""
string ::= "\"" char{{0,{MAX_LENGTH}}} "\""
char ::= [^"\\\x00-\x1f] | "\\" ["\\/bfnrt]
integer ::= "-"? ("0" | [1-9] [0-9]{{0,14}})
number ::= integer ("." [0-9]{{1,8}})? ([eE] "-"? [0-9]{{1,2}})?
boolean ::= "true" | "false"
null ::= "null"
any ::= string | number | boolean | null | list | record
list ::= "[" (any (", " any){{0,{MAX_ITEMS - 1}}})? "]"
record ::= "{{" (string ": " any (", " string ": " any){{0,{MAX_ITEMS - 1}}})? "}}"
"""


def grammar_of(tools: Sequence[Any]) -> str:
    """Return the grammar of ``{"name": ..., "arguments": {...}}``; arguments of a refused schema are any object."""
    rules: list[str] = []
    calls = []
    for tool in tools:
        try:
            arguments = _expression(compile_tool(tool).arguments, rules)
        except SchemaError:
            arguments = "record"
        begin = json.dumps({"name": tool["name"]}, ensure_ascii=False)[:-1] + ', "arguments": '
        calls.append(f'{_literal(begin)} {arguments} "}}"')
    return "\n".join([f"root ::= {' | '.join(calls)}", *rules]) + _COMMON


def _expression(schema: Schema, rules: list[str]) -> str:
    """Return what stands for a value of a schema; rules that it needs are added."""
    if isinstance(schema, Object):
        value = _object(schema, rules) if schema.properties else "record"
    elif isinstance(schema, Array):
        value = _array(schema, rules)
    elif isinstance(schema, Choice):
        value = _either([_expression(alternative, rules) for alternative in schema.alternatives])
    else:
        value = _scalar(schema)
    return _either([value, "null"]) if schema.nullable else value


def _scalar(schema: Scalar) -> str:
    if schema.options is not None:
        return _either([_literal(json.dumps(option, ensure_ascii=False)) for option in schema.options])
    if schema.type == "string" and (schema.min_length or schema.max_length is not None):
        most = MAX_LENGTH if schema.max_length is None else min(schema.max_length, MAX_LENGTH)
        return rf'"\"" char{{{min(schema.min_length, most)},{most}}} "\""'
    return schema.type


def _array(schema: Array, rules: list[str]) -> str:
    item = _expression(schema.items, rules)
    most = MAX_ITEMS if schema.max_items is None else min(schema.max_items, MAX_ITEMS)
    if most == 0:
        return '"[]"'
    items = f'({item}) (", " ({item})){{{max(min(schema.min_items, most) - 1, 0)},{most - 1}}}'
    return f'"[" {items} "]"' if schema.min_items else f'"[" ({items})? "]"'


def _object(schema: Object, rules: list[str]) -> str:
    """Write properties in the schema's order; ``first`` and ``rest`` tell whether one stands before."""
    first = rest = '"}"'
    for name, inner in reversed(schema.properties.items()):
        pair = f"{_literal(json.dumps(name, ensure_ascii=False) + ': ')} {_expression(inner, rules)}"
        begin, go_on = f"{pair} {rest}", f'", " {pair} {rest}'
        if name not in schema.required:
            begin, go_on = f"{begin} | {first}", f"{go_on} | {rest}"
        first, rest = f"first{len(rules)}", f"rest{len(rules)}"
        rules += [f"{first} ::= {begin}", f"{rest} ::= {go_on}"]
    return f'"{{" {first}'


def _either(alternatives: list[str]) -> str:
    return f"({' | '.join(alternatives)})"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
