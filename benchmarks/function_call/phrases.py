"""Phrases of a query: what a function is asked for, and how an argument is said beside it."""

from __future__ import annotations

import re

from function_call.kinds import words, words_of
from function_call.pools import PLACES
from function_call.values import Drawn, Rng, singular

_GET = words("get retrieve fetch return obtain provide query display show lookup give access")
_WORK_OUT = words("calculate compute determine estimate evaluate")
_SEARCH = words("search find discover locate explore look")
_SAME = {"get": _GET, "work out": _WORK_OUT, "search": _SEARCH}
_SAYINGS = {
    "get": ("get", "find", "show me", "give me", "look up", "tell me", "fetch", "retrieve", "pull up", "check"),
    "work out": ("calculate", "compute", "find", "determine", "work out", "calculate"),
    "search": ("find", "search for", "look for", "find me", "look up", "find"),
}
_FRAMES = (  # what "{}" stands in is an imperative
    *("{}.",) * 9,
    *("Please {}.", "Can you {}?", "Can you {}?", "Could you {}?", "Could you please {}?", "I need to {}."),
    *("I want to {}.", "I'd like to {}.", "Help me {}.", "I'm trying to {}.", "How do I {}?", "I would like to {}."),
    *("Can you help me {}?", "Would you {}?", "I am looking to {}.", "Let's {}."),
)
_ASKING = ("What is {}?", "What's {}?", "I need {}.", "I'd like to know {}.", "What is {}?", "Can I get {}?", "{}?")
_ABOUT = re.compile(
    r"^(?:this|the|a|an)? ?(?:function|api|tool|method|endpoint|utility|service)\b.{0,60}?"
    r"\b(?:used to|designed to|intended to|allows? (?:the )?(?:users?|you|for)(?: to)?|to|that|which|will)\s+",
    re.I,
)
_CUT = re.compile(
    r" ?\(| ?[;:]|, (?!and\b)|,? (?:based (?:up)?on|given (?:a|the|its|their|certain)|given\b|using"
    r"|by (?:a|the|its|their|using)\b|with (?:the|a|an|optional|specif\w+|given|certain|various|support)\b"
    r"|within (?:a|the|certain)|including|such as|filtered|according to|and optionally|optionally|that|which|where|when"
    r"|depending|via|through|whose|from the API|(?:for|from|in|of|at|on|to|between|into|as|over|during)"
    r" (?:(?:a|an|the|one|two|some|any|given|all) )?(?:given|specific|specified|certain|particular|provided|desired|set"
    r"|list)\b|between two\b|from one\b|to another\b|and \w+s (?:a|an|the|them|it|its|this|relevant)\b)",
)
_LOOSE_END = re.compile(r" (?:for|from|in|of|at|on|to|by|with|and|or|a|an|the|its|their)$")
_ENTITIES = words(
    """city state country region landmark address airport airline person scientist leader director actor musician
    artist author player team league sport company ticker product food restaurant hotel movie song album book
    game event animal species plant gene protein chemical formula element disease drug religion planet art
    museum school job topic crime car ingredient instrument word id username language brand"""
)
_MARKED = (
    r"(?:specific|specified|given|certain|particular|provided|desired|chosen|selected|single|user-specified|requested) "
)
_BOTH_WAYS = words("language currency timezone hotel restaurant unit")
_BY = words("musician artist author company brand scientist")
_NUMBERED = re.compile(r"^(?:number of|num|no of|n|count of|total|total number of|how many) ")
_TIMES = re.compile(r"\b(day|week|month|year|hour|minute|second|night)s?\b")
_DONE = re.compile(
    r"^(include|show|add|return|enable|use|allow|get|send|display|apply|require|need|provide|play|round|normali[sz]e|exclude"
    r"|detect|ignore|consider|sort|save|shuffle|print|request|filter|accept|skip|disable|hide|keep|notify)s?\b ?(.*)$"
)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def opening(name: str, description: str, given: dict[str, Drawn], rng: Rng) -> tuple[str, str, set[str]]:
    """Return a sentence's frame with its request, what ends it, and the properties that it already has."""
    verb, rest = _request(name, description)
    rest, used = _filled(rest, given, rng)
    kept = _CUT.split(rest, maxsplit=1)[0].rstrip(" ,.")
    kept = re.sub(rf"\b(a|an|the|one) {_MARKED}", r"\1 ", kept)
    others = "|".join(re.escape(words_of(one)) for one in given if one not in used)
    if others:
        kept = re.sub(rf"(?:,| and|,? or)(?: the| a| an)? (?:{others})$", "", kept, flags=re.I)
    kept = _LOOSE_END.sub("", f" {kept}").strip()
    if used and not all(given[one].text in kept for one in used):
        used = {one for one in used if given[one].text in kept}
    if len(kept.split()) < 1 or len(kept) > 110:
        verb, kept, used = (*_from_name(name), set())
    alike = next((group for group, verbs in _SAME.items() if verb in verbs), None)
    if alike in ("get", "work out") and re.match(r"(?:the|a|an|current) ", kept) and rng.random() < 0.4:
        frame = rng.choice(_ASKING)
        kept = kept if kept.startswith(("the ", "a ", "an ")) else f"the {kept}"
        return frame[:-1].format(kept), frame[-1], used
    frame = rng.choice(_FRAMES)
    verb = rng.choice(_SAYINGS[alike]) if alike else verb
    if verb.endswith(" me") and frame.startswith(("I", "How", "Help", "Let")):
        verb = verb.removesuffix(" me").replace("tell", "find").replace("give", "get").replace("show", "see")
    return frame[:-1].format(f"{verb} {kept}"), frame[-1], used


def _request(name: str, description: str) -> tuple[str, str]:
    """Return a function's verb, and what it is done to, of the first sentence of its description."""
    said = _ABOUT.sub("", re.split(r"\.(?:\s|$)|\n", description.strip())[0].strip())
    first, _, rest = said.partition(" ")
    verb = _base(first.lower())
    verbal = re.fullmatch(r"[a-z]{2,12}", verb) and verb not in _NO_VERBS and first.lower() not in _NO_VERBS
    if not verbal or not rest or rest.startswith(("is ", "are ", "for the", "of ")):
        return _from_name(name)
    rest = re.sub(r"^(?:for|and \w+|or \w+) ", "", rest)
    return verb, re.sub(r"\b(?:the|a) user's\b", "my", rest)


_NO_VERBS = words(
    """the a an this it its in on for to of with function tool api method class given if when based asynchronously
    current python takes accepts acts serves handles manages used use allows enables please all your my"""
)


_VERBS = words(
    """convert create book add update delete play send order generate predict analyze check make list set start
    stop run plot compare translate classify schedule reserve buy rent count sort solve verify validate track
    monitor open close identify summarize recommend simulate apply remove record extract process write read draw"""
)


def _base(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _from_name(name: str) -> tuple[str, str]:
    parts = words_of(name.rpartition(".")[2] if len(name.rpartition(".")[2]) > 6 else name).split()
    parts = [part for part in parts if not part.isdecimal()]
    known = _GET | _WORK_OUT | _SEARCH | _VERBS
    at = next((i for i, part in enumerate(parts) if part in known), None)
    if at is None:
        return "get", "the " + " ".join(parts)
    return parts[at], "the " + (" ".join(parts[:at] + parts[at + 1 :]) or "result")


def _filled(rest: str, given: dict[str, Drawn], rng: Rng) -> tuple[str, set[str]]:
    """Put values into a description where it speaks of them: "of a specific country" becomes "of France"."""
    used: set[str] = set()
    for name, drawn in given.items():
        called = words_of(name).removesuffix(" name")
        heads = {called, called.split()[-1], drawn.kind}
        if drawn.kind not in _ENTITIES or rng.random() < 0.25:
            continue
        noun = "|".join(sorted((re.escape(head) for head in heads if len(head) > 2), key=len, reverse=True))
        if not noun:
            continue
        pattern = rf"\b(?:(?:a|an|the|one|any) (?:{_MARKED})?|{_MARKED})(?:\w+ )?(?:{noun})(?:'s name| name)?(?![\w'-])"
        found = re.search(pattern, rest, re.I)
        if found is not None and found.group().lower().startswith("one ") and re.search(r"end|dest|\bto\b|2", called):
            continue  # the other of two
        if found is None or (found.start() == 0 and drawn.kind != "song" and " of " in rest):
            continue
        rest = rest[: found.start()] + drawn.text + rest[found.end() :]
        used.add(name)
    return rest, used


# ---- arguments -------------------------------------------------------------------------------------------------------


def tail(name: str, drawn: Drawn, rng: Rng) -> str:
    """Return a phrase for an argument that goes on with a sentence: "in Paris", "with a base of 10 meters"."""
    noun, value, kind = noun_of(name), drawn.text, drawn.kind
    if kind == "boolean":
        return _yes(noun, rng) if drawn.value in (True, "True", "true") else _no(noun, rng)
    return rng.choice(_tails(noun, words_of(name), value, kind)).format(n=noun, v=value, a=_article(noun))


def sentence(name: str, drawn: Drawn, rng: Rng) -> str:
    """Return a sentence of its own for an argument."""
    noun, kind = noun_of(name), drawn.kind
    if kind == "boolean":
        phrase = re.sub(r"^(?:and|but) (?:please )?", "", tail(name, drawn, rng))
        verbal = _DONE.match(phrase) or phrase.startswith(("don't", "do not", "make sure", "it should", "I "))
        return capital(phrase if verbal else f"{rng.choice(('I want it', 'It should be', 'I need it'))} {phrase}") + "."
    forms = ["The {n} is {v}.", "The {n} should be {v}.", "Use {v} as the {n}.", "Set the {n} to {v}.", "{N}: {v}."]
    if kind in ("id", "username", "email", "phone", "password", "person"):
        forms += ["My {n} is {v}.", "The {n} is {v}.", "Here is the {n}: {v}."]
    elif kind in PLACES:
        forms = [
            "I'm in {v}." if kind == "city" and "dest" not in noun and noun != "to" else "The {n} is {v}.",
            *forms[:2],
        ]
    elif kind == "unit":
        forms = ["Give it in {v}.", "I want it in {v}.", "Use {v}.", "In {v} please."]
    elif kind in ("count", "length of time"):
        forms = ["The {n} is {v}.", "Make the {n} {v}.", "The {n} should be {v}."]
    elif kind == "option":
        forms += ["I'd prefer {v}.", "{n} {v}, please."]
    elif kind == "message":
        forms = ["The {n} is {v}.", "{N}: {v}", "It says {v}."]
    elif kind == "list":
        forms = ["The {n} are {v}.", "I'm interested in {v}.", "{N}: {v}."]
    text = rng.choice(forms).format(n=noun, N=capital(noun), v=drawn.text)
    return capital(re.sub(r"([.?!])(['\"\u201d]?)\.$", r"\1\2", text))


def noun_of(name: str) -> str:
    """Return what a property is called in a sentence."""
    noun = words_of(name)
    noun = re.sub(r"\b(num|n|no)\b(?= \w)", "number of", noun).replace("number of of", "number of")
    noun = re.sub(r"\bid\b", "ID", noun)
    return re.sub(r"\b(loc|org|desc|qty|lang|temp|max|min|avg)\b", lambda match: _LONG[match.group()], noun)


_LONG = {"loc": "location", "org": "organization", "desc": "description", "qty": "quantity", "lang": "language"}
_LONG |= {"temp": "temperature", "max": "maximum", "min": "minimum", "avg": "average"}


def _tails(noun: str, called: str, value: str, kind: str) -> tuple[str, ...]:
    whence = re.search(r"\b(from|origin|departure|depart|start|source|base)\b", called)
    whither = re.search(r"\b(to|destination|dest|arrival|end|target)\b", called)
    if (kind in PLACES or kind in _BOTH_WAYS) and (whence or whither):
        return ("from {v}",) if whence else ("to {v}",)
    if kind in PLACES:
        return ("in {v}", "in {v}", "for {v}", "near {v}") if kind != "state" else ("in {v}", "for {v}")
    if kind in ("date", "datetime"):
        return _date_tails(called)
    if kind == "year":
        return ("in {v}", "in {v}", "for {v}", "from {v}", "for the year {v}")
    if (len(called) <= 2 and kind not in ("email", "id", "word")) or (
        kind in ("plain", "number", "numbers") and len(called) <= 3
    ):
        return ("{n} = {v}", "{n}={v}", "with {n} = {v}", "where {n} is {v}", "{n} {v}", "with {n} {v}")
    if kind in ("count", "length of time", "plain"):
        return _count_tails(noun, called, value, kind)
    if kind in _TAILS:
        return _TAILS[kind]
    if kind in _ENTITIES:
        plain = ("for {v}", "about {v}") if kind not in _BY else ("by {v}", "for {v}")
        return (*plain, "for {v}", "with {v} as the {n}", "with the {n} {v}", "for the {n} {v}")
    return ("with {a} {n} of {v}", "with the {n} {v}", "using {v} as the {n}", "with {n} {v}", "where the {n} is {v}")


_WITH = (
    "with {a} {n} of {v}",
    "with {a} {n} of {v}",
    "with {n} {v}",
    "{n} {v}",
    "where the {n} is {v}",
    "at {a} {n} of {v}",
)
_TAILS: dict[str, tuple[str, ...]] = {
    "time": ("at {v}", "at {v}", "around {v}", "for {v}"),
    "month": ("in {v}", "for {v}"),
    "weekday": ("on {v}", "this {v}", "for {v}"),
    "season": ("in {v}", "for the {v} season", "during {v}"),
    "unit": ("in {v}", "in {v}", "using {v}", "measured in {v}"),
    "unit_system": ("in {v} units", "using the {v} system", "with {v} units"),
    "language": ("in {v}", "in {v}", "using {v}"),
    "currency": ("in {v}", "in {v}", "using {v}"),
    "timezone": ("in {v} time", "in the {v} time zone", "for {v}"),
    "director": ("directed by {v}", "by {v}", "by the director {v}"),
    "actor": ("starring {v}", "with {v}", "featuring {v}", "with {v} in the cast"),
    "email": ("to {v}", "for {v}", "with the email {v}", "using {v}"),
    "person": ("for {v}", "for {v}", "named {v}", "of {v}"),
    "id": ("with {n} {v}", "with the {n} {v}", "for {n} {v}", "whose {n} is {v}", "using {n} {v}", "({n} {v})"),
    "username": ("for user {v}", "with the {n} {v}", "as {v}"),
    "password": ("with the {n} {v}", "and {n} {v}", "using {v} as the {n}"),
    "version": ("version {v}", "with version {v}", "for version {v}"),
    "money": (*_WITH[:3], "for {v}", "with {v} as the {n}"),
    "rate": ("at {v}", "at {a} {n} of {v}", *_WITH[:3]),
    "share": _WITH[:5],
    "percent": ("at {v}", *_WITH[:3]),
    "rating": ("rated {v}", "with {a} {n} of at least {v}", "with {a} {n} of {v}"),
    "age": ("aged {v}", "who is {v} years old", "at age {v}"),
    "measure": _WITH,
    "mass": _WITH,
    "temperature": _WITH,
    "coordinate": ("at {n} {v}", "with {n} {v}", "{n} {v}", "at {a} {n} of {v}"),
    "whole id": ("with {n} {v}", "for {n} {v}", "with the {n} {v}", "{n} {v}", "whose {n} is {v}"),
    "port": ("on port {v}", "using port {v}"),
    "option": ("with {n} {v}", "with {v} {n}", "with the {n} set to {v}", "preferably {v}", "({v})", "for {v}"),
    "number option": ("with {n} {v}", "for {v} as the {n}", "with {a} {n} of {v}"),
    "list": ("for {v}", "with {v}", "including {v}", "with {n} {v}", "for the {n} {v}", "with {v} as the {n}"),
    "numbers": ("for {v}", "with {n} {v}", "of {v}", "for the {n} {v}", "where the {n} are {v}"),
    "message": ("saying {v}", "that says {v}", "with the {n} {v}", "with {v} as the {n}", ": {v}"),
    "note": ("for {v}", "called {v}", "saying {v}", "with the {n} {v}"),
    "subject": ("with the {n} {v}", "titled {v}", "called {v}"),
    "word": ("named {v}", "called {v}", "with the {n} {v}", "for {n} {v}", "with {v} as the {n}", "using {v}"),
    "command": ("{v}", ": {v}", "with the {n} {v}"),
    "expression": ("of {v}", "for {v}", "where the {n} is {v}"),
    "position": ("at {v}", "at {n} {v}", "for {v}"),
    "url": ("at {v}", "from {v}", "for {v}", "using {v}"),
    "path": ("from {v}", "in {v}", "using {v}", "with the {n} {v}"),
    "host": ("on {v}", "at {v}", "from {v}"),
    "vehicle": ("by {v}", "with a {v}", "for a {v}"),
    "movie_genre": ("in the {v} genre", "of the {v} genre", "that are {v}", "with genre {v}"),
    "music_genre": ("in the {v} genre", "of the {v} genre", "with genre {v}"),
    "color": ("in {v}", "with the {n} {v}", "that are {v}"),
    "material": ("made of {v}", "in {v}", "of {v}"),
    "cuisine": ("with {v} food", "that serve {v} food", "for {v} {n}"),
    "diet": ("that are {v}", "for a {v} diet", "with {v} options"),
    "airline": ("with {v}", "on {v}", "by {v}"),
    "hotel": ("at {v}", "at the {v}"),
    "restaurant": ("at {v}", "from {v}"),
    "platform": ("on {v}", "for {v}"),
    "album": ("from the album {v}", "on {v}"),
}


def _date_tails(called: str) -> tuple[str, ...]:
    for pattern, forms in (
        (r"check ?in", ("checking in on {v}", "from {v}", "from {v}")),
        (r"check ?out", ("checking out on {v}", "until {v}", "to {v}")),
        (r"return|drop ?off", ("returning on {v}", "and coming back on {v}", "returning {v}")),
        (r"birth|dob", ("born on {v}", "born {v}")),
        (r"depart|leav|journey", ("leaving on {v}", "departing {v}", "on {v}")),
        (r"start|from|begin|earliest|^t0", ("from {v}", "starting {v}", "starting on {v}", "since {v}")),
        (r"\bend\b|until|\bto\b|latest|due|deadline|^t1", ("to {v}", "until {v}", "through {v}")),
    ):
        if re.search(pattern, called):
            return forms
    return ("on {v}", "on {v}", "for {v}")


def _count_tails(noun: str, called: str, value: str, kind: str) -> tuple[str, ...]:
    thing = _NUMBERED.sub("", called)
    many = thing if thing.endswith("s") else thing + "s"
    if value in ("1", "one"):
        many = singular(many)
    if kind == "length of time" and not _TIMES.search(value) and (named := _TIMES.search(called)):
        plural = "" if value in ("1", "one") else "s"
        return tuple(
            f"{form} {named.group(1)}{plural}" for form in ("for {v}", "over {v}", "for the next {v}", "in {v}")
        )
    if kind == "length of time":
        return ("for {v}", "over {v}", "in {v}", "with {a} {n} of {v}", "{n} {v}")
    if thing != called or re.fullmatch(
        r"(adults|guests|passengers|participants|seats|tickets|rooms|children|people|beds|baths)", called
    ):
        return (f"for {{v}} {many}", f"with {{v}} {many}", f"{{v}} {many}")
    if re.search(r"limit|top|results|max", called):
        return ("limited to {v} results", "at most {v}", "with {a} {n} of {v}", "and show {v} of them", "top {v}")
    return ("with {a} {n} of {v}", "with {n} {v}", "{n} {v}", "and {a} {n} of {v}", "using {v} as the {n}")


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" and not noun.startswith(("us", "uni", "one")) else "a"


def capital(text: str) -> str:
    """Return a text with a capital in front."""
    return text[:1].upper() + text[1:]


def _yes(noun: str, rng: Rng) -> str:
    done = _DONE.match(noun)
    if done and done.group(2):
        verb, rest = done.groups()
        forms = [f"and {verb} {rest}", f"make sure to {verb} {rest}", f"and please {verb} the {rest}"]
        if verb in ("include", "show", "add", "return", "provide"):
            forms += [f"including {rest}", f"with {rest}", f"and include the {rest}"]
        return rng.choice(forms)
    if noun.startswith("has "):
        return rng.choice(("with {}", "that has {}", "and it must have {}")).format(noun[4:])
    if noun.startswith(("is ", "are ")):
        return rng.choice(("it should be {}", "that is {}", "and it has to be {}")).format(noun.partition(" ")[2])
    return rng.choice(("with {}", "with {} enabled", "and I want {}", "with {} on", "{} please")).format(noun)


def _no(noun: str, rng: Rng) -> str:
    done = _DONE.match(noun)
    if done and done.group(2):
        verb, rest = done.groups()
        forms = [f"but don't {verb} {rest}", f"do not {verb} {rest}", f"no need to {verb} {rest}"]
        if verb in ("include", "show", "add", "return", "provide"):
            forms += [f"without {rest}", f"excluding {rest}", f"no {rest}"]
        return rng.choice(forms)
    if noun.startswith("has "):
        return rng.choice(("without {}", "that has no {}", "no {} needed")).format(noun[4:])
    if noun.startswith(("is ", "are ")):
        return rng.choice(("it should not be {}", "that is not {}")).format(noun.partition(" ")[2])
    return rng.choice(("without {}", "no {}", "with {} off", "and I don't need {}")).format(noun)
