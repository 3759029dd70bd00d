"""The resolver with a head of random weights: whatever it chooses, what comes back is valid."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_cases import broken, plausible, roots
from jsonschema import Draft202012Validator
from models import make_bundle

from trm_edge.bundle import bundle_bytes, read_bundle
from trm_edge.errors import TrmInputError, TrmVersionError
from trm_edge.json_slots import Featurizer, HashedNgrams, JsonSlots
from trm_edge.json_slots.drafts import read_call
from trm_edge.json_slots.features import FEATURES
from trm_edge.json_slots.joint import joint_choices
from trm_edge.json_slots.resolver import UNRESOLVED, Decision, Resolver, bind_tools, is_readable, resolve_tool_call
from trm_edge.json_slots.schema import MISSING, SchemaError
from trm_edge.refiner import load

WIDTH = 8
SIZES = Featurizer(HashedNgrams(WIDTH))
LIGHT = {
    "name": "set_light",
    "description": "Change a light",
    "parameters": {
        "type": "object",
        "properties": {
            "room": {"type": "string"},
            "brightness": {"type": "integer", "minimum": 0, "maximum": 100},
            "color": {"type": "string", "enum": ["red", "white"]},
        },
        "required": ["room"],
        "additionalProperties": False,
    },
}
TIMER = {
    "name": "start_timer",
    "description": "Start a timer",
    "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
}


STOP = {"name": "stop", "parameters": {"type": "object", "properties": {}}}
PARTS = ("context", "slot", "candidate")


class Dumped:
    """What a client's own class is."""

    def __init__(self, value):
        self.model_dump = lambda: value


def make_head(answer_rows=4, max_candidates=64, sizes=SIZES):
    bundle = make_bundle(
        "slots",
        answer_rows=answer_rows,
        max_candidates=max_candidates,
        max_context=12,
        context_size=sizes.context_size,
        slot_size=sizes.slot_size,
        candidate_size=sizes.candidate_size,
        steps=2,
    )
    return bundle_bytes(bundle)


def make_resolver(*sizes, **options):
    return Resolver(make_head(*sizes), **{"by_step": True, **options})


class Told(Resolver):
    """A resolver whose head is told what values are worth: 0 but for some."""

    def __init__(self, worth, **options):
        super().__init__(make_head(), by_step=True, **options)
        self.worth = worth

    def choose(self, inputs, drafted=None):
        logits = np.where(inputs.mask, [self.worth.get(one.value, 0.0) for one in inputs.candidates], -np.inf)
        logits = logits.astype(np.float32)[None]
        none = np.full(len(inputs.slots), -1, np.int32)
        return Decision(joint_choices(inputs, logits, none), logits, 1.0, none)


class TestWhatIsNoReasonToChangeADraft:
    DRAFT = '{"room": "attic", "color": "red"}'

    @pytest.mark.parametrize(
        "query", ["", "  \n", "?!", "\N{THUMBS UP SIGN}", "把窝调到百分之四十", "اضبط الغرفة على 40"]
    )
    def test_a_query_that_no_head_reads(self, query):
        resolver = make_resolver(draft_bonus=0)
        call = resolver.resolve(LIGHT, query, self.DRAFT)
        assert (call.status, call.json) == ("abstained", self.DRAFT)
        assert resolver.resolve(LIGHT, query, '{"room": "attic"').json is not None  # what is not valid is mended

    @pytest.mark.parametrize(
        ("query", "read"), [("3", True), ("café", True), ("Привет", False), ("東京 weather", True), ("a ж", True)]
    )
    def test_which_queries_are_read(self, query, read):
        assert is_readable(query) == read

    def test_what_a_description_says_and_the_query_does_not(self):
        weather = {"city": {"type": "string", "description": "The city, e.g. 'San Francisco, CA' or 'Oslo'"}}
        tool = {"name": "weather", "parameters": {"type": "object", "properties": weather, "required": ["city"]}}
        inputs = JsonSlots(tool).bind("how is it in Oslo", '{"city": "Paris"}', SIZES)
        assert [inputs.candidates[j].value for j in inputs.unsaid] == ["San Francisco, CA"]
        chosen = make_resolver(draft_bonus=0).choose(inputs)
        assert (chosen.logits[:, :, inputs.unsaid] == -np.inf).all() and not np.isin(chosen.y, inputs.unsaid).any()
        broken = JsonSlots(tool).bind("how is it in Oslo", '{"city": 3', SIZES)
        assert (make_resolver(draft_bonus=0).choose(broken).logits[:, :, broken.unsaid] > -np.inf).all()


def test_more_tools_than_a_head_takes_are_an_error():
    tools = [{**TIMER, "name": f"timer_{i}"} for i in range(65)]
    with pytest.raises(TrmInputError, match="tools: expected at most 64, as this head takes no more, got 65"):
        make_resolver().resolve_tool_call(tools, "three minutes")
    assert make_resolver().resolve_tool_call(tools, "three minutes", {"name": "timer_64", "arguments": "{}"}).json


def test_options_that_cannot_be_kept_are_told_as_wrong_ones_are(tmp_path):
    (tmp_path / "head.trm").write_bytes(make_head())
    with pytest.raises(TrmInputError, match=r"draft_bonus: expected 0\.\.1e\+06, got \[1\]"):
        resolve_tool_call([LIGHT], "set the den", model=tmp_path / "head.trm", draft_bonus=[1])


@pytest.fixture(scope="module")
def resolver():
    return make_resolver()


class TestResolve:
    def test_arguments_are_valid_after_every_step(self, resolver):
        call = resolver.resolve(LIGHT, "set the den to 40 percent red")
        assert call.name == "set_light"
        assert call.status == "resolved"
        assert 0 <= call.confidence <= 1
        assert len(call.by_step) == resolver.steps == 2
        validator = Draft202012Validator(LIGHT["parameters"])
        for _, text in call.by_step:
            validator.validate(json.loads(text))
        assert call.by_step[-1] == (call.name, call.json)

    def test_the_same_call_gives_the_same_answer(self, resolver):
        first = resolver.resolve(LIGHT, "den 40", '{"room": "attic"}')
        assert resolver.clone().resolve(JsonSlots(LIGHT), "den 40", '{"room": "attic"}') == first

    def test_only_the_last_step_is_told_unless_all_are_asked_for(self, resolver):
        brief = make_resolver(by_step=False)
        calls = [one.resolve_tool_call([LIGHT, TIMER], "den 40 or 7, red") for one in (resolver, brief)]
        assert calls[1].by_step == calls[0].by_step[-1:]
        assert (calls[1].json, calls[1].confidence) == (calls[0].json, calls[0].confidence)
        drafted = [one.resolve(LIGHT, "den 40", '{"room": "attic"}') for one in (resolver, brief)]
        assert (drafted[1].json, drafted[1].by_step) == (drafted[0].json, drafted[0].by_step[-1:])
        assert not brief.clone().by_step

    def test_slots_choose_together_or_each_by_itself(self):
        together, alone = make_resolver(), make_resolver(joint=False)
        inputs = JsonSlots(LIGHT).bind("den 40 or 7, red", None, together.featurizer)
        mine = alone.choose(inputs)
        assert np.array_equal(mine.y, np.where(np.isnan(mine.logits), -np.inf, mine.logits).argmax(axis=2))
        joint = joint_choices(inputs, mine.logits, np.full(len(inputs.slots), -1, np.int32))
        assert np.array_equal(together.choose(inputs).y, joint)
        assert not np.array_equal(joint, mine.y)
        assert alone.clone().joint is False

    def test_a_thought_reaches_the_head(self, resolver):
        plain = resolver.resolve(LIGHT, "den 40")
        assert resolver.resolve(LIGHT, "den 40", thought="the attic").confidence != plain.confidence
        chosen = resolver.resolve_tool_call([LIGHT, TIMER], "den 40", thought="the attic")
        assert chosen.confidence != resolver.resolve_tool_call([LIGHT, TIMER], "den 40").confidence
        with pytest.raises(TrmInputError, match="thought: expected text, got int"):
            resolver.resolve_tool_call([LIGHT, TIMER], "den 40", thought=3)

    def test_below_the_threshold_the_draft_stays(self):
        shy = make_resolver(abstain_below=1.1)
        draft = '{ "room":"attic" }'
        assert shy.resolve(LIGHT, "den 40", draft).json == draft
        assert shy.resolve(LIGHT, "den 40", draft).status == "abstained"
        assert shy.resolve(LIGHT, "den 40", '{"room":').status == "unresolved"
        assert shy.resolve(LIGHT, "den 40", '{"room":').json is None

    def test_a_valid_draft_stays_where_the_head_does_not_see_the_whole_query(self):
        resolver = make_resolver(draft_bonus=0)  # of 12 tokens
        query = "turn the light in the hall to red for ever and ever please"
        draft = '{"room": "attic", "color": "white"}'
        for words, status in ((query.split()[:12], "resolved"), (query.split(), "abstained")):
            call = resolver.resolve(LIGHT, " ".join(words), draft)
            assert call.status == status and (call.json == draft) == (status == "abstained")
        assert resolver.resolve(LIGHT, query, draft.replace("white", "blue")).status in ("resolved", "unresolved")

    def test_a_large_bonus_keeps_the_draft(self):
        draft = '{"room": "attic", "brightness": 7, "color": "white"}'
        told = "den at 40, red"
        assert make_resolver(draft_bonus=0).resolve(LIGHT, told, draft).status == "resolved"
        kept = make_resolver(draft_bonus=1e4).resolve(LIGHT, told, draft)
        assert (kept.status, kept.json) == ("unchanged", draft)
        assert make_resolver(draft_bonus=1e4).resolve(LIGHT, told, '{"brightness": 7}').status == "resolved"

    def test_without_a_draft_there_is_no_bonus(self):
        told = "den at 40, red"
        plain, fond = (make_resolver(draft_bonus=bonus).resolve(LIGHT, told) for bonus in (0, 1e4))
        assert plain == fond and plain.json not in (None, "{}")

    def test_a_bonus_may_keep_the_draft_s_function(self):
        drafts = [{"name": tool["name"], "arguments": "{}"} for tool in (LIGHT, TIMER)]
        for bonus, kept in ((0, False), (1e4, True)):
            one = make_resolver(draft_bonus=bonus)
            names = [one.resolve_tool_call([LIGHT, TIMER], "dim it", each, rename=True).name for each in drafts]
            assert (names == ["set_light", "start_timer"]) == kept

    @pytest.mark.parametrize("bonus", [-1, float("inf"), float("nan")])
    def test_a_bonus_that_cannot_be_meant_is_refused(self, bonus):
        with pytest.raises(TrmInputError, match="draft_bonus: expected 0"):
            make_resolver(draft_bonus=bonus)

    @pytest.mark.parametrize("option", ["joint", "by_step"])
    def test_a_text_is_no_flag(self, option):
        with pytest.raises(TrmInputError, match=f"{option}: expected True or False, got 'no'"):
            make_resolver(**{option: "no"})

    def test_a_tool_may_be_compiled_before_its_first_call(self, resolver):
        query, draft = "set the den to 40 percent red", '{"room": "attic"}'
        kept = resolver.compile(LIGHT)
        assert resolver.resolve(kept, query, draft) == make_resolver().resolve(LIGHT, query, draft)
        assert kept.bind(query).slots is kept.bind("den").slots

    def test_a_tool_that_was_changed_is_compiled_again(self, resolver):
        tool = json.loads(json.dumps(LIGHT))
        tool["parameters"]["required"] = ["room", "color"]
        assert json.loads(resolver.resolve(tool, "red").json)["color"] in ("red", "white")
        tool["parameters"]["properties"]["color"]["enum"] = ["blue"]
        assert json.loads(resolver.resolve(tool, "red").json)["color"] == "blue"
        tool["parameters"]["properties"]["color"]["default"] = float("nan")
        with pytest.raises(SchemaError, match="the schema is not JSON"):
            resolver.resolve(tool, "red")

    def test_a_tool_without_slots_needs_no_choice(self, resolver):
        call = resolver.resolve(STOP, "stop it")
        assert (call.json, call.confidence) == ("{}", 1.0)

    @pytest.mark.parametrize(("rows", "candidates"), [(1, 64), (4, 3), (2, 7), (1, 1)])
    def test_what_a_head_cannot_take_at_once_is_asked_in_parts(self, rows, candidates):
        small = make_resolver(rows, candidates)
        inputs = JsonSlots(LIGHT).bind("den at 40, red", '{"room": "attic", "color": "white"}', small.featurizer)
        chosen = small.choose(inputs)
        assert chosen.logits.shape == (2, 3, len(inputs.candidates))
        assert not np.isfinite(chosen.logits[:, ~inputs.mask]).any()
        assert np.isfinite(chosen.logits).any(axis=2).all(), "every slot was asked"
        for y, logits in zip(chosen.y, chosen.logits, strict=True):
            assert all(inputs.mask[i, j] for i, j in enumerate(y))
            assert inputs.decode(y, logits).json is not None

    @given(st.data())
    @settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
    def test_any_schema_gives_valid_arguments_or_none(self, resolver, data):
        schema = data.draw(roots)
        try:
            tool = JsonSlots({"name": "f", "parameters": schema})
        except SchemaError:
            return
        draft = json.dumps(plausible(schema, data.draw))
        if data.draw(st.booleans()):
            draft = broken(draft, data.draw(st.randoms(use_true_random=False)), 3)
        call = resolver.resolve(tool, data.draw(st.text(max_size=40)), draft)
        if call.json is not None:
            oracle = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            oracle.validate(json.loads(call.json))
        assert (call.json is None) == (call.status == "unresolved")
        assert call.status not in ("unchanged", "abstained") or call.json == draft


def test_a_head_without_vectors_takes_flags_of_any_provider():
    head = make_head(sizes=Featurizer(HashedNgrams(WIDTH), vectors=False))
    call = Resolver(head).resolve(LIGHT, "den at 40, red")
    assert call.json is not None
    assert Resolver(head, HashedNgrams(16)).resolve(LIGHT, "den at 40, red").json is not None


class TestResolveToolCall:
    def test_the_draft_names_the_function(self, resolver):
        draft = {"name": "start_timer", "arguments": '{"minutes": 5}'}
        assert resolver.resolve_tool_call([LIGHT, TIMER], "five minutes", draft).name == "start_timer"

    @pytest.mark.parametrize("draft", [None, "", "{", {"name": "no_such", "arguments": {}}, [], "7"])
    def test_otherwise_the_head_names_one(self, resolver, draft):
        call = resolver.resolve_tool_call([LIGHT, TIMER], "five minutes", draft)
        assert call.name in ("set_light", "start_timer")
        assert call.json is not None
        assert {name for name, _ in call.by_step} <= {"set_light", "start_timer"}

    def test_the_head_may_rename_a_draft(self):
        resolver = make_resolver(draft_bonus=0, joint=False)
        draft = {"name": "start_timer", "arguments": '{"minutes": 5}'}
        names, texts = {}, {}
        for query in ("five minutes", "den at 40, red", "dim it", "start now", "light", "a timer please"):
            call = resolver.resolve_tool_call([LIGHT, TIMER], query, draft, rename=True)
            assert call.name == resolver.resolve_tool_call([LIGHT, TIMER], query).name
            names[query], texts[query] = call.name, call.draft
        assert {names[query] == "start_timer" for query in names} == {True, False}, "the head chooses both"
        for query, name in names.items():
            assert texts[query] == ('{"minutes": 5}' if name == "start_timer" else "")

    @pytest.mark.parametrize(
        ("query", "timer", "name"),
        [
            ("start it", 0.5, "stop"),  # the likelier one
            ("start 5", 0.0, "start_timer"),  # the likelier one leaves a number that stands out, and gives up 2
            ("start 5", -1.5, "stop"),  # not enough to change it
            ("start it", 1.5, "stop"),  # there is no number for the likelier one
            ("start it", 1.5 + UNRESOLVED, "start_timer"),  # which is meant all the same
        ],
    )
    def test_a_tool_is_chosen_with_its_arguments(self, query, timer, name):
        worth = {"stop": 1.0, "start_timer": timer}
        for tools in ([STOP, TIMER], [TIMER, STOP]):
            call = Told(worth).resolve_tool_call(tools, query)
            assert (call.name, call.by_step[-1]) == (name, (name, call.json))
            assert (call.json is None) == ("5" not in query and name == "start_timer")
        alone = Told(worth, joint=False).resolve_tool_call([STOP, TIMER], query)
        assert alone.name == max(worth, key=worth.__getitem__)

    def test_no_tool_may_be_chosen_where_there_is_no_draft(self):
        likely, unlikely = {MISSING: 2.0, "stop": 1.0}, {MISSING: 0.5, "stop": 1.0}
        for tools in ([STOP, TIMER], [STOP]):
            declined = Told(likely, decline_bonus=0).resolve_tool_call(tools, "start it")
            assert (declined.name, declined.status, declined.json) == (None, "unresolved", None)
            assert (declined.confidence, declined.by_step) == (1.0, ((None, None),))
            taken = Told(unlikely, decline_bonus=0).resolve_tool_call(tools, "start it")
            assert (taken.name, taken.json, taken.by_step) == ("stop", "{}", (("stop", "{}"),))
            assert Told(likely).resolve_tool_call(tools, "start it").name == "stop"
            assert Told(likely, decline_bonus=-1.5).resolve_tool_call(tools, "start it").name == "stop"
            assert Told(unlikely, decline_bonus=1).resolve_tool_call(tools, "start it").name is None
        for draft, name in (({"name": "start_timer", "arguments": "{}"}, "start_timer"), ({"arguments": "{}"}, "stop")):
            assert Told(likely, decline_bonus=0).resolve_tool_call([STOP, TIMER], "start it", draft).name == name

    def test_a_head_that_may_decline_says_so_after_every_step(self):
        resolver = make_resolver(decline_bonus=0)
        queries = ("five minutes", "den at 40, red", "dim it", "start now", "light", "a timer please", "stop 5", "hm")
        calls = [resolver.resolve_tool_call([LIGHT, TIMER, STOP], query) for query in queries]
        assert {call.name is None for call in calls} == {True, False}, "the head does both"
        for query, call in zip(queries, calls, strict=True):
            assert call == resolver.clone().resolve_tool_call([LIGHT, TIMER, STOP], query)
            assert len(call.by_step) == resolver.steps
            assert call.by_step[-1] == (call.name, call.json)
            assert all(name is not None or text is None for name, text in call.by_step)

    def test_the_arguments_of_a_call_that_is_text_keep_their_spelling(self, resolver):
        for arguments, status in (('{ "minutes":5.0 }', "unchanged"), ('{"minutes": 5', "resolved")):
            call = make_resolver(draft_bonus=1e6).resolve_tool_call(
                [TIMER, LIGHT],
                "five",
                f'{{"name": "start_timer", "arguments": {arguments}' + "}" * (status == "unchanged"),
            )
            assert (call.name, call.status, call.draft) == ("start_timer", status, arguments)

    def test_one_call_by_the_path_of_a_head(self, resolver, tmp_path):
        path = tmp_path / "head.trm"
        path.write_bytes(make_head())
        first = resolve_tool_call([LIGHT, TIMER], "five minutes", model=path, steps=2)
        assert first == Resolver(path, steps=2).resolve_tool_call([LIGHT, TIMER], "five minutes")
        assert first.by_step == ((first.name, first.json),)
        assert resolve_tool_call([LIGHT, TIMER], "five minutes", model=path, steps=2) == first
        assert len(resolve_tool_call([LIGHT, TIMER], "five minutes", model=path, steps=3, by_step=True).by_step) == 3

    def test_no_tool_is_no_call(self, resolver):
        call = resolver.resolve_tool_call([], "five minutes")
        assert (call.name, call.json, call.status) == (None, None, "unresolved")

    def test_a_draft_names_a_tool_that_is_a_client_s_own_object(self, resolver):
        class Tool:
            def model_dump(self, exclude_none):
                return {"type": "function", "function": TIMER}

        draft = {"name": "start_timer", "arguments": {"minutes": 5}}
        call = resolver.resolve_tool_call([LIGHT, Tool()], "dim the den to 40", draft)
        assert call.name == "start_timer"

    def test_without_a_query_and_a_draft_nothing_is_called(self, resolver):
        for query in ("", " \n"):
            call = resolver.resolve_tool_call([LIGHT, TIMER], query)
            assert (call.name, call.json, call.status, call.by_step) == (None, None, "unresolved", ())
            assert resolver.resolve(TIMER, query).json is None
        drafted = resolver.resolve_tool_call([LIGHT, TIMER], "", {"name": "start_timer", "arguments": {"minutes": 5}})
        assert (drafted.name, json.loads(drafted.json)) == ("start_timer", {"minutes": 5})

    def test_a_name_that_comes_twice_is_refused(self, resolver):
        with pytest.raises(SchemaError, match="expected every name once, got 'set_light' more than once"):
            resolver.resolve_tool_call([LIGHT, LIGHT], "five minutes")

    def test_tools_that_are_no_list_are_refused(self, resolver):
        for tools, got in ((None, "NoneType"), (LIGHT, "dict"), ("set_light", "str"), (5, "int")):
            with pytest.raises(TrmInputError, match=f"tools: expected a list of tools, got {got}"):
                resolver.resolve_tool_call(tools, "five minutes")

    def test_a_tool_that_is_not_supported_stands_in_nobody_s_way_where_the_draft_names_another(self, resolver):
        broken = {"name": "broken", "parameters": {"type": "object", "properties": {"a": {"pattern": "a"}}}}
        draft = {"name": "start_timer", "arguments": {"minutes": 5}}
        assert resolver.resolve_tool_call([broken, TIMER, LIGHT], "five minutes", draft).name == "start_timer"
        with pytest.raises(SchemaError, match="tool broken: /properties/a"):
            resolver.resolve_tool_call([broken, TIMER, LIGHT], "five minutes")

    def test_tools_are_the_candidates_of_one_slot(self):
        tools = [JsonSlots(LIGHT).tool, JsonSlots(TIMER).tool]
        inputs = bind_tools(tools, "five minutes", SIZES)
        assert [candidate.value for candidate in inputs.candidates] == ["set_light", "start_timer"]
        assert inputs.candidates[1].note == "Start a timer minutes"
        assert inputs.arrays["mask"].shape == (1, 2)
        assert (inputs.y0.tolist(), inputs.slots[0].optional) == ([-1], False)
        either = bind_tools(tools, "five minutes", SIZES, may_decline=True)
        assert [candidate.value for candidate in either.candidates] == [MISSING, "set_light", "start_timer"]
        assert (either.y0.tolist(), either.slots[0].optional) == ([0], True)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        (None, (None, None)),
        ({"name": "f", "arguments": {"a": 1}}, ("f", '{"a": 1}')),
        ({"name": "f", "arguments": '{ "a":1}'}, ("f", '{ "a":1}')),
        ({"type": "function", "function": {"name": "f", "arguments": "{}"}}, ("f", "{}")),
        ('{"name": "f", "arguments": {"a": 1}}', ("f", '{"a": 1}')),
        ('[{"name": "f", "parameters": {"a": 1}}]', ("f", '{"a": 1}')),
        ('{"name": "f", "arguments": {"a": 1', ("f", '{"a": 1')),  # broken, which a reader of the arguments must see
        ('Sure: {"name": "f", "arguments": {"a": 1}} ok?', ("f", '{"a": 1}')),
        (' {"name":"f" ,"arguments" : { "a":"\\u6771" } } ', ("f", '{ "a":"\\u6771" }')),
        ('{"tool_calls": [{"function": {"name": "f", "arguments": {"a" : 1}}}]}', ("f", '{"a" : 1}')),
        ('{"tool_name": "f", "tool_input": {"a": 1}}', ("f", '{"a": 1}')),
        ('{"action": "f", "action_input": {"a": 1}}', ("f", '{"a": 1}')),
        ('<think>f or {g}?</think>{"name": "f", "arguments": {}}', ("f", "{}")),
        ('<think>{</think> so <think>[</think> {"name": "f", "arguments": {}}', ("f", "{}")),
        ('<think>never {"name": "f", "arguments": {}}', ("f", "{}")),
        ("no json at all", (None, None)),
        ({"name": 3, "arguments": 4}, (None, None)),
        ("7", (None, None)),
        ("[]", (None, None)),
        ('[{"name": "f"}, {"name": "g"}]', (None, None)),
        ([], (None, None)),
        ({"type": "tool_use", "name": "f", "input": {"a": 1}}, ("f", '{"a": 1}')),
        ({"function": "f", "arguments": {"a": 1}}, ("f", '{"a": 1}')),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, ("f", "{}")),
        (Dumped({"id": "1", "function": {"name": "f", "arguments": "{}"}}), ("f", "{}")),
        ([Dumped({"function": {"name": "f", "arguments": "{}"}})], ("f", "{}")),
        ('{"name": "g", "arguments": {}} or not\n</think>\n{"name": "f", "arguments": {}}', ("f", "{}")),
        ({"function_call": {"name": "f", "arguments": "{}"}}, ("f", "{}")),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}, ("f", "{}")),
        ('{"choices": [{"message": {"function_call": {"name": "f", "arguments": {"a" : 1}}}}]}', ("f", '{"a" : 1}')),
        ({"choices": [{"message": {"role": "assistant", "content": "hi"}}]}, (None, None)),
        ({"role": "assistant", "content": "hi", "tool_calls": None}, (None, None)),
        ('{"role": "assistant", "content": "hi", "tool_calls": null}', (None, None)),
        ({"tool_calls": []}, (None, None)),
    ],
)
def test_calls_are_read_in_the_forms_that_models_write(draft, expected):
    assert read_call(draft) == expected


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ({"name": "f", "a": 1}, ("f", '{"a": 1}')),
        ({"f": {"a": 1}}, ("f", '{"a": 1}')),
        ('{"f": {"a": 1}}', ("f", '{"a": 1}')),
        ({"a": 1}, (None, '{"a": 1}')),
        (' {"a": 1}', (None, ' {"a": 1}')),
        ({"name": "Ann", "a": 1}, (None, '{"name": "Ann", "a": 1}')),
        ({"name": "other", "arguments": {"a": 1}}, ("other", '{"a": 1}')),
        ('<function=f>{"a": 1}</function>', ("f", '{"a": 1}')),
        ('functions.f {"a": 1}', ("f", '{"a": 1}')),
        ('f({"a": 1})', ("f", '{"a": 1}')),
        ('[f(a="x", b=[1, 2.5], c=None)]', ("f", '{"a": "x", "b": [1, 2.5], "c": null}')),
        ("f(a=1 + x)", ("f", None)),
        ("f(1)", ("f", None)),
        ("f() or g()", (None, None)),
        ("I would call f.", ("f", None)),
        ("off(a=1)", (None, None)),
        ({}, (None, None)),
    ],
)
def test_with_the_names_that_are_offered_more_forms_are_calls(draft, expected):
    assert read_call(draft, ["f", "g", None]) == expected


@pytest.mark.parametrize("text", ["<think>", " ", "arguments ", '"f', "f(", "{", "args: ["])
def test_a_long_text_is_read_in_time_that_grows_as_it_does(text):
    def late(*_):
        raise AssertionError("a million characters took minutes; by their square it would be hours")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(180)
    try:
        read_call(text * (1_000_000 // len(text)), [f"tool_{i}" for i in range(64)])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (7, "draft: expected one call as text, an object or None, got int"),
        (b"{}", "got bytes"),
        ([{"name": "f"}, {"name": "g"}], "got 2 in a list"),
        ({"name": "f", "arguments": {"a": float("nan")}}, "draft: its arguments are not JSON: Out of range float"),
        ({"name": "f", "arguments": {"a": {1}}}, "draft: its arguments are not JSON: .*set is not JSON"),
    ],
)
def test_what_is_no_call_is_refused(draft, message):
    with pytest.raises(TrmInputError, match=message):
        read_call(draft)


def test_numbers_beyond_float32_leave_the_draft_as_it_is():
    largest = {"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308}
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": largest}}}
    bundle = make_bundle("slots", max_context=12, **{f"{n}_size": getattr(SIZES, f"{n}_size") for n in PARTS}, steps=2)
    tensors = {name: value * np.float32(1e38) if "encoder" in name else value for name, value in bundle.tensors.items()}
    draft = '{"a": 1e308}'
    for weights, status in ((bundle.tensors, None), (tensors, "abstained")):
        resolver = Resolver(bundle_bytes(replace(bundle, tensors=weights, golden=())), by_step=True)
        call = resolver.resolve_tool_call([tool], "5", {"name": "f", "arguments": draft})
        assert status is None or (call.status, call.json, call.confidence) == (status, draft, -1.0)
        assert len(call.by_step) == 2 and call.json is not None
    chosen = resolver.resolve_tool_call([LIGHT, TIMER], "5")
    assert (chosen.name, chosen.status, chosen.json) == (None, "unresolved", None)


class TestHead:
    def test_another_kind_of_head_is_refused(self):
        with pytest.raises(TrmInputError, match="expected one that answers slots, got one that answers actions"):
            Resolver(bundle_bytes(make_bundle("actions")))

    def test_a_head_of_other_widths_is_refused(self):
        with pytest.raises(TrmInputError, match="slot_size 5, a provider of width"):
            Resolver(bundle_bytes(make_bundle("slots", context_size=16)))

    def test_a_head_that_says_what_it_was_trained_for_is_taken_at_its_word(self):
        def head(backend="fused", **says):
            return load(bundle_bytes(replace(read_bundle(make_head()), provenance=says)), backend=backend)

        for backend in ("fused", "reference"):
            Resolver(head(backend, features=FEATURES, declines="yes"), decline_bonus=0)
            Resolver(head(backend, features=FEATURES, declines="no"))
            Resolver(head(backend, source="of another trainer"), decline_bonus=0)
            with pytest.raises(TrmInputError, match=r"decline_bonus: .* has not learned to decline, got 0"):
                Resolver(head(backend, declines="no"), decline_bonus=0)
            with pytest.raises(TrmVersionError, match=f"trained on features 'tool calls 0', .* makes '{FEATURES}'"):
                Resolver(head(backend, features="tool calls 0"))

    def test_options_that_are_none_are_refused(self):
        for name, value, message in (
            ("steps", 0, r"steps: expected an int in 1\.\.64, got 0"),
            ("steps", 2.0, r"steps: expected an int, got 2\.0"),
            ("steps", 2.5, "got 2.5"),
            ("steps", None, "got None"),
            ("steps", True, "got True"),
            ("draft_bonus", "x", r"draft_bonus: expected 0\.\.1e\+06, got 'x'"),
            ("draft_bonus", 1e39, "got 1e"),
            ("decline_bonus", True, r"decline_bonus: expected None or -1e\+06\.\.1e\+06, got True"),
            ("decline_bonus", np.nan, "got nan"),
            ("abstain_below", None, "abstain_below: expected a number, got None"),
            ("provider", 3, "provider: expected one with a width and tokens, got int"),
        ):
            with pytest.raises(TrmInputError, match=message):
                make_resolver(**{name: value})

    def test_without_a_query_the_draft_s_function_stays(self, resolver):
        for draft, told in (({"minutes": 5}, '{"minutes": 5}'), ("", None)):
            named = {"name": "start_timer", "arguments": draft}
            call = resolver.resolve_tool_call([LIGHT, TIMER], " ", named, rename=True)
            assert (call.name, call.json) == ("start_timer", told)
        unknown = resolver.resolve_tool_call([STOP, LIGHT], " ", {"name": "no_such", "arguments": ""})
        assert (unknown.name, unknown.json, unknown.status) == (None, None, "unresolved")
