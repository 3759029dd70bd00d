"""Typed spans: what each operator reads from a text, and that it reads what it writes."""

import datetime as dt
import zoneinfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trm_edge.json_slots.operators import MAX_TEXT, OPERATORS, find_spans, spellings
from trm_edge.json_slots.operators.base import may_have
from trm_edge.json_slots.text import dumps, parse, same

NOW = dt.datetime(2026, 11, 25, 12)  # a Wednesday

READ = [
    ("words", "Fly to New York.", "New York"),
    ("words", "play Luigi's song", "Luigi"),
    ("other words", "dim Bo's big corner lamp", "big corner lamp"),
    ("words", "is it 'late'?", "late"),
    ("words", "meet Mr. X there", "Mr. X"),
    ("words", "ask how it goes?", "how it goes?"),
    ("words", "in 73 second turn on the coffee maker", "turn on the coffee maker"),
    ("words", "turn on the coffee maker after five hours", "turn on the coffee maker"),
    ("words", "\u83b7\u53d6\u963f\u8fea\u8fbe\u65af\u7684\u5de5\u5355", "\u963f\u8fea\u8fbe\u65af"),
    ("sentence", "Send this: I am late. Thanks!", "I am late."),
    (
        "sentence",
        "Say that the bus to the old town leaves at nine o'clock",
        "the bus to the old town leaves at nine o'clock",
    ),
    ("sentence", "First.\\n\\n**Second one.**", "Second one."),
    ("part of a word", "a gas-fueled car", "gas"),
    ("part of a word", "plot y=3x+2 now", "3x+2"),
    ("quoted", "open 'My Documents, old'", "My Documents, old"),
    ("quoted", "say \u201chi there\u201d", "hi there"),
    ("lower", "Show Comedy films", "comedy"),
    ("title", "in san francisco now", "San Francisco"),
    ("snake", "the Living Room lights", "living_room"),
    ("camel", "the Living Room lights", "livingRoom"),
    ("singular", "two cherries", "cherry"),
    ("singular", "some women", "woman"),
    ("singular", "all the boxes", "all the box"),
    ("number", "add 3", 3),
    ("number", "minus -2.50 degrees", -2.5),
    ("number", "it cost $1,250,000.", 1250000),
    ("number", "$2.5 million", 2500000),
    ("number", "15k steps", 15000),
    ("number", "\u20ac5m a year", 5 * 10**6),
    ("number", "5M users", 5 * 10**6),
    ("number", "above 4/5", 4),
    ("number", "charges of 1e-9", 1e-9),
    ("number", "150lbs", 150),
    ("number", ".5 litres", 0.5),
    ("number", "minus 4", -4),
    ("number", "\u4e7010\u4e2a", 10),
    ("implied number", "a taxi for myself", 1),
    ("implied number", "starts from rest", 0),
    ("next to a bound", "fewer than 5 items", 4),
    ("next to a bound", "more than 5 items", 6),
    ("index", "the second item", 1),
    ("attached number", "P4 tickets", 4),
    ("decrease", "turn it down by 10", -10),
    ("decrease", "lower the volume by twenty five percent", -25),
    ("percent", "a 12.5% tip", 0.125),
    ("percent", "five or 3 percent", 0.03),
    ("number words", "twenty-five guests", 25),
    ("number words", "one hundred and three", 103),
    ("number words", "two thousand five hundred", 2500),
    ("number words", "three million two hundred thousand and one", 3200001),
    ("number words", "a dozen eggs", 12),
    ("number words", "two dozen", 24),
    ("ordinal", "the 21st floor", 21),
    ("ordinal", "the third one", 3),
    ("times", "rolled twice", 2),
    ("times", "compounded quarterly", 4),
    ("coordinate", "at 118.2437 W", -118.2437),
    ("coordinate", "33.45\u00b0 N", 33.45),
    ("prefixed unit", "an inductance of 50mH", 0.05),
    ("prefixed unit", "100 \u00b5F", 1e-4),
    ("currency", "from British pounds", "GBP"),
    ("currency", "50 $", "USD"),
    ("date", "on March 5, 2024", "2024-03-05"),
    ("date", "on the 5th of March 2024", "2024-03-05"),
    ("date", "3 Sept", "2027-09-03"),
    ("date", "2023.10.2", "2023-10-02"),
    ("date", "20230929", "2023-09-29"),
    ("date", "on 2023 1st of March", "2023-03-01"),
    ("date", "from April 1 to April 30, 2023", "2023-04-01"),
    ("date", "on the 9th, it is September 2023", "2023-09-09"),
    ("date", "tomorrow, as today is March 5, 2024", "2024-03-06"),
    ("date", "a week later", None),
    ("date", "in two weeks", "2026-12-09"),
    ("date", "3 days ago", "2026-11-22"),
    ("date", "this weekend", "2026-11-28"),
    ("date", "Monday next week", "2026-11-30"),
    ("day first", "on March 5, 2024", "05-03-2024"),
    ("end of a stay", "from 1st June 2022 for 3 nights", "2022-06-04"),
    ("part of a date", "in February 2022", 2),
    ("part of a date", "on March 5, 2024", 2024),
    ("part of a date", "songs from '19", 2019),
    ("date", "on 2024/3/5", "2024-03-05"),
    ("date", "from 05.03.2024", "2024-03-05"),
    ("date", "12/03/2024", "2024-12-03"),
    ("date", "12/03/2024", "2024-03-12"),
    ("date", "by January 2", "2027-01-02"),
    ("date", "by December 2", "2026-12-02"),
    ("date", "tomorrow", "2026-11-26"),
    ("date", "the day after tomorrow", "2026-11-27"),
    ("date", "next Wednesday", "2026-12-02"),
    ("date", "on Friday", "2026-11-27"),
    ("date", "last Wednesday", "2026-11-18"),
    ("date", "in 10 days", "2026-12-05"),
    ("US date", "on March 5, 2024", "03/05/2024"),
    ("European date", "on March 5, 2024", "05/03/2024"),
    ("date-time", "November 1, 2023 at 8pm", "2023-11-01T20:00:00"),
    ("date and time", "at 16:00 on 2024-03-12", "2024-03-12 16:00:00"),
    ("date and minute", "2024-03-12, 9:05", "2024-03-12 09:05"),
    ("time", "at 3 pm", "15:00"),
    ("time", "at 12:30 a.m. sharp", "00:30"),
    ("time", "around noon", "12:00"),
    ("time", "at 3 in the afternoon", "15:00"),
    ("time", "11.00 a.m.", "11:00"),
    ("time in halves", "at 15:00", "3:00 PM"),
    ("date-time with offset", "yesterday midday", "2026-11-24T12:00:00Z"),
    ("European date and minute", "the 12th of March 2023 at 3 in the afternoon", "12/03/2023 15:00"),
    ("US date and minute", "the 12th of March 2023 at 3pm", "03/12/2023 15:00"),
    ("date and time", "February 23, 2024, between 10:30 a.m. and 7:00 p.m.", "2024-02-23 19:00:00"),
    ("whole day", "on March 22, 2024", "2024-03-22 23:59:59"),
    ("duration", "3 minutes", 180),
    ("duration", "the next week", 7),
    ("duration", "over the past decade", 10),
    ("duration", "1 hour 30 minutes", 90),
    ("duration", "5ft 10in tall", 70),
    ("time between", "from 15:30 to 15:32", 120),
    ("time between", "from August 15 to August 17, 2023", 2),
    ("time with seconds", "at 23:59", "23:59:00"),
    ("part of a time", "a clock at 6:30 PM", 30),
    ("part of a time", "a clock at 6:30 PM", 18),
    ("place", "in San Francisco, California", "San Francisco, CA"),
    ("place", "near Austin TX", "Austin, TX"),
    ("city", "hotels in Berkeley", "Berkeley, CA"),
    ("city", "hotels in san jose", "San Jose, CA"),
    ("city", "weather in Hanoi", "Hanoi, Vietnam"),
    ("city", "a flat in London", "London, UK"),
    ("city", "a flat in Paris", "Paris, FR"),
    ("full name", "trains to LA", "Los Angeles"),
    ("full name", "trains to paris", "Paris"),
    ("region", "crime in San Francisco", "California"),
    ("region", "weather in Hanoi", "Vietnam"),
    ("country", "key events of German history", "Germany"),
    ("country", "London in the UK", "GB"),
    ("list", "with tomatoes, red onions and garlic salt please", ["tomatoes", "red onions", "garlic salt"]),
    ("list", "the numbers [3, 1.5, -2]", [3, 1.5, -2]),
    ("list", "compare Paris and New York", ["Paris", "New York"]),
    ("list", "add 1, 2, and 3", [1, 2, 3]),
    ("list", "the 2nd, 3rd and 4th floors", [2, 3, 4]),
    ("list", "scores 85, 90, 88 and set the range to 5", [85, 90, 88]),
    ("list", "group (e.g., 12.4, 15.6, 11.2)", [12.4, 15.6, 11.2]),
    ("list", "between (33.4484 N, 112.0740 W) and home", [33.4484, -112.074]),
    ("list", "is it Rome or Paris?", ["Rome", "Paris"]),
    ("list without articles", "of the S&P 500 and the Dow Jones", ["S&P 500", "Dow Jones"]),
    ("list without articles", "two Big Macs and one McFlurry", ["Big Mac", "McFlurry"]),
    ("list without articles", "3 bottles of olive oil and a bag of rice", ["olive oil", "rice"]),
    ("all numbers", "40% from A and 60% from B", [0.4, 0.6]),
    ("all numbers", "five burgers and 6 wings", [5, 6]),
    ("all quoted", "may 'read' it and 'write' it", ["read", "write"]),
    ("all names", "is Ann older than Bob", ["Ann", "Bob"]),
    ("array", "the table [[10, 20], [30, 40]]", [[10, 20], [30, 40]]),
    ("array", "of ['a', 'b']", ["a", "b"]),
    ("range", "from 2015 to 2021", [2015, 2021]),
    ("range", "between -1.5 and 2", [-1.5, 2]),
    ("range", "from x=1 to x=3", [1, 3]),
    ("number", "of 2^3", 3),
    ("date", "at closing March.11, 2022", "2022-03-11"),
    ("date", "on Jun.20,2023", "2023-06-20"),
    ("date", "from 2023 April 4th", "2023-04-04"),
]

NOT_READ = [
    ("number", "version 1.2.3"),
    ("number", "at 10:30:15"),
    ("number", "model X200"),
    ("percent", "5 apples"),
    ("number", "1e999"),
    ("number", "9.8.1 m/s^2"),
    ("all numbers", "of y=x^2, z^3"),
    ("prefixed unit", "1e300 GHz"),
    ("number words", "a dog and a hundredweight"),
    ("date", "February 30, 2024"),
    ("date", "2024-13-01"),
    ("time", "13 pm"),
    ("time", "ratio 3"),
    ("place", "Hello World, AB"),
    ("list", "no enumeration here"),
    ("currency", "poundcake"),
    ("city", "a nice view"),
    ("duration", "5 apples"),
    ("next to a bound", "5 or fewer"),
    ("attached number", "version v1.2"),
    ("decrease", "turn it up by 10"),
]


def read(operator: str, text: str, now: dt.datetime | None = NOW) -> list:
    return [span.value for span in find_spans(text, now) if span.operator == operator]


@pytest.mark.parametrize(("operator", "text", "value"), READ)
def test_values_are_read(operator, text, value):
    values = read(operator, text)
    assert values == [] if value is None else any(same(value, found) for found in values), values


@pytest.mark.parametrize(("operator", "text"), NOT_READ)
def test_what_only_looks_like_a_value_is_not_read(operator, text):
    assert read(operator, text) == []


@pytest.mark.parametrize(
    ("text", "value", "is_likely"),
    [
        ("Ask Bo park old green cars soon", "old green cars", False),
        ("Ask Bo park old green cars for Ann", "old green cars", False),
        ("Ask Bo for old green cars in town", "old green cars", True),
        ("Ask Bo for 3 green cars please", "green cars", True),
        ("Ask Bo, old green cars!", "old green cars", True),
        ("Ask Bo park 'old green cars' soon", "old green cars", True),
        ("Let Bo park Old Green Cars soon", "Old Green Cars", True),
        ("Let Bo park Ana de Armas soon", "Ana de Armas", True),
        ("Let Bo park Very Old Green Wooden Cars soon", "Very Old Green Wooden Cars", False),
        ("ask bo park old green cars soon", "old green cars", True),
        ("Ask bo park old green cars soon. I am bo", "old green cars", True),
        ("ask bo for very old green wooden cars", "very old green wooden cars", True),
        ("Ask Bo to park the very old green wooden cars in town", "very old green wooden cars", False),
        ("Ask Bo to park the very old green wooden cars", "very old green wooden cars", True),
    ],
)
def test_long_runs_of_words_are_values_where_something_parts_them_or_they_are_names(text, value, is_likely):
    assert (value in read("words", text)) == is_likely
    assert not is_likely or value not in read("other words", text)


def test_every_operator_is_shown_to_read():
    assert {operator for operator, *_ in READ} == {one.name for one in OPERATORS}


def test_spans_come_in_the_order_of_their_operators():
    spans = find_spans("from Oslo to Rome for 25 people")
    names = [one.name for one in OPERATORS]
    assert len(spans) == len(list(spans)) > 9
    places = [names.index(span.operator) for span in spans]
    assert places == sorted(places)


def test_operators_make_what_they_say():
    types = {"texts": str, "numbers": (int, float), "arrays": list}
    makes = {one.name: one.makes for one in OPERATORS}
    for _, text, _ in READ:
        for span in find_spans(text, NOW):
            assert isinstance(span.value, types[makes[span.operator]]), span


def test_a_pattern_is_tried_where_a_text_may_have_its_words():
    assert may_have("At NOON", ("midnight", "noon"))
    assert not may_have("at 12", ("midnight", "noon"))
    assert may_have("m\u0131dnight", ("midnight",)), "an i to a pattern that ignores case"


def test_relative_dates_need_a_now():
    assert read("date", "tomorrow or Friday or May 3", None) == []


def test_dates_beyond_the_calendar_are_not_read():
    last = dt.datetime(9999, 12, 31)
    assert read("date", "tomorrow, today, in 9 days or January 1", last) == ["9999-12-31"]
    assert read("date", "yesterday or last Friday", dt.datetime(1, 1, 1)) == []


def test_the_span_is_what_was_read():
    text = "Book it for twenty five people at 7:30 pm."
    spans = {(span.operator, span.value): text[span.start : span.end] for span in find_spans(text)}
    assert spans["number words", 25] == "twenty five"
    assert spans["time", "19:30"] == "7:30 pm"


dates = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))
clocks = st.times().map(lambda time: time.replace(microsecond=0))
values = st.one_of(
    st.integers(-(10**7), 10**7),
    st.integers(0, 400),
    st.floats(-1e6, 1e6).map(lambda number: round(number, 3)),
    st.text("abcXYZ 012.,'-_", max_size=20),
    dates.map(dt.date.isoformat),
    dates.map(lambda day: f"{day.month:02}/{day.day:02}/{day.year:04}"),
    dates.map(lambda day: f"{day.day:02}/{day.month:02}/{day.year:04}"),
    clocks.map(lambda time: time.strftime("%H:%M")),
    clocks.map(lambda time: time.strftime("%H:%M:%S")),
    st.builds(lambda day, time: f"{day.isoformat()}T{time.strftime('%H:%M:%S')}", dates, clocks),
    st.builds(lambda day, time: f"{day.isoformat()} {time.strftime('%H:%M')}", dates, clocks),
    st.builds(lambda day, time: f"{day.isoformat()}T{time.strftime('%H:%M:%S')}Z", dates, clocks),
    st.builds(lambda day: f"{day.day:02}/{day.month:02}/{day.year:04} 15:30", dates),
    st.builds(lambda day: f"{day.isoformat()} 23:59:59", dates),
    st.lists(st.integers(-99, 99) | st.sampled_from([0.5, 2.25]), max_size=9),
    st.sampled_from(
        [
            *("Austin, TX", "New York, NY", "USD", "GBP", "living_room", 0.05, 0.125, 2, 12, [1, 2], [0.5, 2, 3]),
            *("livingRoom", "I am here.", "It is late, is it?", 0, 1, 180, 3600, 14, "3:00 PM", "California"),
            *("GB", "London, UK", "Berkeley, CA", "Los Angeles", "gas", "Germany", ["Ann", "Bob Ray"], ["a b", "c"]),
        ]
    ),
    st.lists(st.text("abc XY", min_size=1, max_size=8), max_size=5),
)


@settings(max_examples=1000, deadline=None)
@given(values, st.sampled_from(["{}", "set it to {} please", "{}, now", "'x' {}"]))
def test_what_is_written_is_read(value, sentence):
    for operator, text in spellings(value, NOW):
        found = read(operator, sentence.format(text))
        assert any(same(value, other) for other in found), f"{operator} wrote {text!r} for {value!r} and read {found}"


@pytest.mark.parametrize(
    ("zone", "offset", "in_summer"),
    [
        (None, "Z", "Z"),
        (dt.timezone.utc, "Z", "Z"),
        (dt.timezone(dt.timedelta(hours=9)), "+09:00", "+09:00"),
        (dt.timezone(-dt.timedelta(hours=3, minutes=30)), "-03:30", "-03:30"),
        (zoneinfo.ZoneInfo("Europe/Berlin"), "+01:00", "+02:00"),
    ],
)
def test_a_date_time_has_the_offset_of_the_zone_that_now_is_in(zone, offset, in_summer):
    now = NOW.replace(tzinfo=zone)
    for text, value in (
        ("tomorrow at 5pm", f"2026-11-26T17:00:00{offset}"),
        ("on July 3, 2027 at 9:30", f"2027-07-03T09:30:00{in_summer}"),
    ):
        assert value in read("date-time with offset", text, now)
        assert spellings(value, now)
    assert f"2026-11-26T00:00:00{offset}" in read("whole day", "tomorrow", now)


def test_every_operator_writes():
    samples = ["New York", "old_files", "Red", 3, 0.05, 12, -3.5, "2024-03-05", "03/05/2024", "25/03/2024", "15:00"]
    samples += ["15:00:00", "2024-03-05T15:00:00", "2024-03-05 15:00:00", "2024-03-05 15:00", "Austin, TX", "GBP"]
    samples += [["a", "b"], [2, 3], "cat", "comedy", "livingRoom", "I am here.", 0, 1, 180, "3:00 PM", "05-03-2024"]
    samples += ["2024-03-05T15:00:00Z", "05/03/2024 15:00", "03/15/2024 15:00", "2024-03-05 00:00:00", "Germany"]
    samples += ["Berkeley, CA", "Los Angeles", "California", ["Ann", "Bob"], -7, "tall corner lamp"]
    wrote = {operator for value in samples for operator, _ in spellings(value, NOW)}
    assert wrote == {one.name for one in OPERATORS}


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=200) | st.text("12:/.-, apmAPM$%and'\"()[]NSfirsttwenty", max_size=80), st.booleans())
def test_any_text_is_read(text, with_now):
    for span in find_spans(text, NOW if with_now else None):
        assert 0 <= span.start < span.end <= len(text)


parts = st.sampled_from(
    [
        *("1e999", "1e289", "k", "million", "minus ", "%", "GHz", "99999999999999999999", "decades", "years", " ago"),
        *("in 999 weeks", "May 5", "9999", "0001", "12:30", "[1e999]", "[NaN]", "'", "s", "ft", "in", "the", "Paris"),
        *(",", "to", "-", "N", "S", "fewer than ", "th", "half", " ", "[", "]", "=", "/", "?", "\\n", "20240230"),
        *("5 \u017feconds", "Wedne\u017fday", "\u017fept 3", "m\u0131nutes", "5 M\u0130LES", "\u212am"),
    ]
)
days = st.sampled_from([None, NOW, dt.datetime(9999, 12, 30), dt.datetime(1, 1, 2)])


@settings(max_examples=500, deadline=None)
@given(st.lists(parts, max_size=12).map("".join), days)
@example("meet on 5 \u017fept 2026, Wedne\u017fday, in 5 \u017feconds", NOW)
def test_every_value_is_json(text, now):
    for span in find_spans(text, now):
        assert same(parse(dumps(span.value)), span.value)


@pytest.mark.parametrize(
    "unit", ["1,", "1 and ", "a ", "A ", "a, ", "(", "'", "one ", "1/", "12:", "in 1 ", "May 1 ", "$", "\n"]
)
def test_a_long_text_is_read(unit):
    """A pattern that backtracks without bound would hang here."""
    assert all(span.end <= MAX_TEXT for span in find_spans(unit * MAX_TEXT, NOW))


def test_an_article_is_a_word_of_its_own():
    found = [value for value in read("list without articles", "fly from Boston, San Francisco or the Hague") if value]
    assert ["Boston", "San Francisco", "Hague"] in found
    assert "SFrancisco" not in str(found)
