"""What a property of a tool is about: its kind, read from its name, then from its description."""

from __future__ import annotations

import re
from functools import lru_cache

_RULES = r"""
email: e?mail(?! body| subject)|recipient$|^to$|^b?cc$
url: url|uri|link|website$|endpoint|webhook
uuid: uuid|guid
datetime: datetime|timestamp|date time|alarm time
date: date|check ?in\b|check ?out\b|deadline|birthday|\bdob\b|^t[01]$|^when$
position: geo ?location|coordinates|lat ?long
month: month
weekday: ^day$|weekday|day of week
season: ^season$
time: time$|^time |clock
timezone: time ?zone|^tz$
id: \bids?$|identifier|serial|token|\bkey$|code$|number$|docket|^ref|tracking|zip|isbn|vin$|\bsku\b
version: version|release
password: password|secret
username: user ?name|login|nickname|handle|^user$
phone: phone|mobile
unit_system: unit system|measurement system|^system$
unit: units?$|^measurement
currency: currency|currencies
language: language|\blang\b|locale
airport: airport
airline: airlines?|carrier
hotel: hotel|accommodation|place name
restaurant: restaurant|cafe
museum: museum|gallery
address: address|street
country: countr|nation
state: \bstate$|province|county
city: cit(y|ies)|town|location|\bloc$|where|area$|destination|origin|departure|arrival|place|pick ?up
city: ^from$|^to$|start point|end point|^start$|^end$|venue|district
region: region|continent|park|territory|ecosystem|mountain
landmark: landmark|attraction|building|stop$|station
director: direct(or|ed)
actor: actor|actress|cast|starring
musician: artist$|artist name|singer|band|composer|musician
author: author|writer
player: player|athlete|golfer|fighter
team: team|club|opponent
league: league|tournament|competition|championship
sport: sports?$|discipline
scientist: scientist|inventor|physicist
leader: leader|president|king|emperor|figure|politician
ticker: ticker|symbol|stock
exchange: exchange|market$
brand: brand|manufacturer
company: compan|employer|organi[sz]ation|business|firm|corporation|vendor|merchant
car: car model|\bcar\b(?! type)|vehicle model
vehicle: car type|vehicle|transport
movie: movie(?! genre)|film
song: song|track
album: album
book: book|novel
platform: platform|console|operating system|\bos$
game: game
event: historic|event(?! type| category)|battle|war$
event_type: event type|event category
instrument: instrument
note_key: ^key$|scale|chord|start note|root
cuisine: cuisine
diet: diet
ingredient: ingredient|toppings?|grocer
food: food|dish|recipe|meal|^items?$|menu|snack|drink
gene: gene\b|genes|snp|mutation
protein: protein|enzyme
cell: cell
species: species|organism|creature
animal: animal|pet|bird|breed|wildlife
plant: plant|flower|tree|crop
formula: formula|molecule|reaction|reactant
element: element|metal
chemical: substance|compound|chemical|solute|solvent|medium|\bgas$|liquid
material: material|surface
dna: sequence|dna|strand
disease: disease|condition|symptom|diagnosis|disorder
drug: drug|medication|medicine
color: colou?r|shade
religion: religion|faith
planet: planet|celestial|\bbody[12]?$|from body|to body
art: artwork|painting|sculpture
school: school|universit|college|institution
job: job|profession|occupation|position|role
industry: industry|sector|department
crime: crime|offen[cs]e
law: case type|law type|legal|lawyer type|speciali|practice
case: \bcase|lawsuit|^(party|plaintiff|defendant)
host: host|server|\bip\b|domain|^from$
path: path|file|directory|folder|dataset|data source
command: command|cmd
expression: function$|expression|equation|polynomial|integrand
table: table|database|collection
field: field|column|attribute|variable
size: size
room: room
shop: store|shop|supermarket
model: model|algorithm|network
subject: subject|headline|title$
message: message|text|body|sentence|comment|content|answer|question|statement|review|feedback|prompt
note: note|task|to ?do|reminder|purpose|description|summary|reason|label
topic: topic|keyword|query|search|theme|interest|^q$
product: product|item|goods|device|equipment|appliance
person: person|people|patient|customer|client|contact|receiver|employee|student|stylist|doctor|owner|^name$
person: full name|guest|victim|friend|passenger|beneficiary|sender|recipient|teacher|member
music_genre: music genre
movie_genre: genre
"""  # the first line that fits counts; in descriptions no pattern with ^ or $, and none of _NAMES_ONLY
_NAMES_ONLY = {"id", "time", "month", "size", "email", "host", "field", "table", "note_key"}


def _read_rules() -> tuple[tuple[str, re.Pattern[str], re.Pattern[str] | None], ...]:
    rules = []
    for line in _RULES.strip().split("\n"):
        kind, _, pattern = line.partition(": ")
        parts = _alternatives(pattern)
        loose = [part for part in parts if not part.startswith("^") and not part.endswith("$")]
        named = re.compile("|".join(part if part.startswith("^") else rf"\b(?:{part})" for part in parts))
        about = re.compile(rf"\b(?:{'|'.join(loose)})") if loose and kind not in _NAMES_ONLY else None
        rules.append((kind, named, about))
    return tuple(rules)


def _alternatives(pattern: str) -> list[str]:
    """Return the alternatives of a pattern, not those within its groups."""
    parts, depth = [""], 0
    for char in pattern:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


_KINDS = _read_rules()
_ART = re.compile(r"sculpt|paint|artwork|museum|drawing")


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def words_of(name: str) -> str:
    """Return a property's name as words: "_numberOfTickets" is "number of tickets"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_.\-\s]+|(?<=[a-z])(?=\d)", " ", name)
    return " ".join(spaced.split()).lower()


@lru_cache(maxsize=8192)
def kind_of(name: str, description: str) -> str:
    """Return the kind of text that a property wants: a pool's name, or what is made; "word" where none fits."""
    named_as = words_of(name)
    about = description.split(". ")[0].lower()
    if named_as == "name" or named_as.endswith(" name"):
        owner = named_as.removesuffix("name").strip() or re.sub(r"^.*?\bname of (?:the |a |an )?", "", about)[:40]
        found = next((kind for kind, named, _ in _KINDS if named.search(owner) and kind not in ("id", "email")), None)
        return found or ("person" if named_as in ("name", "full name", "first name") else "word")
    for kind, named, _ in _KINDS:
        if named.search(named_as):
            return "artist" if kind == "musician" and _ART.search(about) else kind
    return next((kind for kind, _, told in _KINDS if told is not None and told.search(about)), "word")
