"""Policies, who may decide and how many: the rules themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Deciders, Policy
from perdure.access.principals import Role
from perdure.errors import ForbiddenError, InvalidRequestError
from perdure.interruptions.policies.deciders import ROLES, check_may_decide, identity_of
from perdure.interruptions.policies.policy import Then
from perdure.interruptions.policies.question_rules import NO_RULES, Rules, rules_for
from perdure.interruptions.policies.verdicts import about, verdict
from perdure.runs.gates import ASK_FIRST, asked_first


@dataclass(frozen=True)
class Person:
    subject: str | None = None
    roles: frozenset[str] = frozenset({"decisions:write"})
    groups: frozenset[str] = frozenset()
    source: str | None = None
    type: str = "service_key"
    id: str | None = field(default_factory=lambda: str(uuid4()))


def _then(policies: list[Policy], arguments: Any, tool: str = "refund", agent: str = "a") -> str:
    return _counting(policies, arguments, tool, agent) or "-"


def _counting(
    policies: list[Policy], arguments: Any, tool: str = "refund", agent: str = "a"
) -> str | None:
    found = verdict(about(policies, agent=agent, tool=tool), arguments)
    return None if found is None else found.name


def test_the_roles_are_those_there_are() -> None:
    assert list(ROLES) == [role.value for role in Role]


def test_the_first_match_counts_but_any_deny_before_all() -> None:
    large = {"/cents": {"gt": 5000}}
    policies = [
        Policy("small", tool="refund*", when={"/cents": {"lte": 100}}, then="allow"),
        Policy("others", tool=["refund*", "pay"], agent="b"),
        Policy("any", tool="refund*"),
        Policy("never", tool="refund*", when=large, then="deny", message="Too much."),
    ]
    for arguments, tool, agent, counts in (
        ({"cents": 100}, "refund", "a", "small"),
        ({"cents": 101}, "refund", "a", "any"),
        ({"cents": 101}, "refund_all", "b", "others"),
        ({"cents": 5001}, "refund", "b", "never"),
        ({"cents": 1}, "pay", "a", "-"),
        ({"cents": 1}, "pay", "b", "others"),
        ({"cents": 1}, "Refund", "b", "-"),
        ({}, "refund", "a", "any"),
        (None, "refund", "a", "never"),
    ):
        assert _then(policies, arguments, tool, agent) == counts, (arguments, tool, agent)


_RESTRICTING: tuple[Then, ...] = ("ask", "deny")


@pytest.mark.parametrize(
    ("when", "got_round"),
    [
        ({"/cents": {"gt": 5000}}, ["6000", " 6000 ", "6_000", "6000.5", "6e3", 6000.5]),
        ({"/cents": {"in": [1, 2]}}, ["1", "2.0", True]),
        ({"/cents": {"eq": True}}, ["yes", "TRUE", "1", 1, "on"]),
        ({"/cents": {"ne": True}}, ["no", 0, False]),
    ],
)
def test_no_way_of_writing_gets_round_a_policy_that_restricts(
    when: dict[str, Any], got_round: list[Any]
) -> None:
    for value in got_round:
        for then in _RESTRICTING:
            policy = Policy("p", when=when, then=then)
            assert _then([policy], {"cents": value}) == "p", value
    # Nor does it get through one that allows: only what is written counts there.
    for value in got_round:
        if isinstance(value, str):
            assert _then([Policy("p", when=when, then="allow")], {"cents": value}) in ("-", "p")
    assert _then([Policy("p", when=when, then="allow")], None) == "-"
    allow = Policy("p", when={"/cents": {"lte": 5}}, then="allow")
    assert _then([allow], {"cents": "5"}) == "-"
    assert _then([Policy("p", when={"/order": {"ne": "42"}})], {"order": "42"}) == "-"


def test_what_is_no_policy_is_refused_by_name() -> None:
    named = Deciders(subjects=["a"])
    for wrong, pointer in (
        ({"name": ""}, "/name"),
        ({"name": "a\0"}, "/name"),
        ({"tool": []}, "/tool"),
        ({"tool": ["a", ""]}, "/tool/1"),
        ({"agent": 5}, "/agent"),
        ({"when": {"cents": {"gt": 1}}}, "/when/cents"),
        ({"when": {"/cents": {"over": 1}}}, "/when/~1cents/over"),
        ({"then": "maybe"}, "/then"),
        ({"required": 0}, "/required"),
        ({"required": True}, "/required"),
        ({"deciders": named, "required": 2}, "/required"),
        ({"expires_after": 0.5}, "/expires_after"),
        ({"expires_after": float("nan")}, "/expires_after"),
        ({"on_expire": "fail"}, "/expires_after"),
        ({"on_expire": "escalate", "expires_after": 60}, "/escalate_to"),
        ({"escalate_to": named, "expires_after": 60}, "/escalate_to"),
        ({"remind_every": "daily"}, "/remind_every"),
        ({"then": "deny", "deciders": named}, "/deciders"),
        ({"then": "allow", "required": 2}, "/required"),
        ({"message": ""}, "/message"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            Policy(**{"name": "p", **wrong})  # type: ignore[arg-type]
        assert refused.value.errors[0].pointer == pointer, wrong
    for definition, pointer in (
        ({}, "/name"),
        ({"name": "p", "tools": "x"}, "/tools"),
        ({"name": "p", "id": "x"}, "/id"),
        ({"name": "p", "deciders": {"roles": ["boss"]}}, "/deciders/roles/0"),
        ({"name": "p", "deciders": {}}, "/deciders"),
        ({"name": "p", "deciders": {"people": ["a"]}}, "/deciders"),
        ({"name": "p", "escalate_to": [{"groups": "x"}]}, "/escalate_to/0/groups"),
        ({"name": "p", "escalate_to": "x"}, "/escalate_to"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            Policy.from_json(definition)
        assert refused.value.errors[0].pointer == pointer, definition


_FULL = Policy(
    "refunds",
    tool=["refund*", "pay"],
    agent="support",
    when={"/cents": {"gt": 5000}},
    deciders=Deciders(groups=["finance"], subjects=["boss"]),
    requester_may_decide=False,
    required=2,
    expires_after=timedelta(hours=4),
    on_expire="escalate",
    escalate_to=[Deciders(roles=["admin"]), Deciders(groups=["board"])],
    remind_every=3600,
    message="Look at the receipt.",
)


def test_a_policy_and_its_rules_survive_their_json() -> None:
    assert Policy.from_json(_FULL.as_json()) == _FULL
    assert Policy.from_json({"name": "p"}) == Policy("p")
    made = Policy.from_json(_FULL.as_json(), uuid4())
    rules = rules_for([made], agent="support", tool="pay", arguments={"cents": 6000})
    assert Rules.from_json(rules.as_json()) == rules
    assert Rules.from_json({**rules.as_json(), "of_a_later_build": 1}) == rules
    assert rules.policy_id == str(made.id)
    assert NO_RULES.as_json() == {}
    assert Rules.from_json({}) == NO_RULES


def test_when_the_time_is_over_others_are_asked_one_after_the_other() -> None:
    rules = rules_for([_FULL], agent="support", tool="pay", arguments={"cents": 6000})
    first = rules.escalated()
    assert first is not None
    assert first.deciders == Deciders(roles=["admin"])
    second = first.escalated()
    assert second is not None
    assert second.deciders == Deciders(groups=["board"])
    assert second.escalated() is None
    assert second.at_the_end() == "reject"
    assert Rules(on_expire="approve", expires_after=1.0).at_the_end() == "approve"
    doubt = Rules(on_expire="approve", expires_after=1.0, required=2).of_a_doubt()
    assert (doubt.required, doubt.at_the_end()) == (1, "fail")


def test_a_run_that_asks_first_asks_whatever_is_allowed() -> None:
    policies = [
        Policy("large", when={"/cents": {"gt": 5000}}, then="deny"),
        Policy("medium", when={"/cents": {"gt": 100}}, expires_after=60, on_expire="approve"),
        Policy("small", then="allow"),
    ]

    def asked(cents: int, made: list[Policy]) -> Rules:
        return asked_first(rules_for(made, agent="a", tool="refund", arguments={"cents": cents}))

    assert asked(6000, policies).then == "deny"
    medium = asked(500, policies)
    assert (medium.policy, medium.then, medium.on_expire) == ("medium", "ask", "reject")
    small = asked(5, policies)
    assert (small.policy, small.then, small.expires_after) == ("replay", "ask", None)
    # A person may let it be made with other arguments, if no policy denies these.
    with pytest.raises(InvalidRequestError):
        small.edited({"cents": 6000})
    assert small.edited({"cents": 7}).then == "ask"
    assert asked(5, []) == ASK_FIRST


def test_edited_arguments_are_asked_about_as_much_as_their_policy_and_the_first_ask_for() -> None:
    small = Policy("small", when={"/cents": {"lte": 50}}, then="allow")
    never = Policy("never", when={"/cents": {"gt": 9000}}, then="deny", message="Never so much.")
    finance = Deciders(groups=["finance"])
    middle = Policy("middle", when={"/cents": {"gt": 1000}}, deciders=finance, required=2)
    rest = Policy("rest", requester_may_decide=False)
    rules = rules_for([small, never, middle, rest], agent="a", tool="t", arguments={"cents": 100})
    assert (rules.policy, rules.required) == ("rest", 1)
    assert rules.edited({"cents": 200}).as_json() == rules.as_json()
    assert rules.edited({"cents": 1}) == rules
    more = rules.edited({"cents": 2000})
    assert (more.policy, more.required, more.deciders) == ("middle", 2, finance)
    assert not more.requester_may_decide
    less = more.edited({"cents": 100})
    assert (less.policy, less.required, less.deciders) == ("rest", 2, finance)
    with pytest.raises(InvalidRequestError, match=r"Never so much\."):
        rules.edited({"cents": 9001})
    # Also where only the tool's own gate asked at first.
    gate = rules_for([never, middle], agent="a", tool="t", arguments={"cents": 1})
    assert gate.policy is None
    assert gate.edited({"cents": 2000}).required == 2


@pytest.mark.parametrize(
    ("deciders", "person", "may"),
    [
        (None, Person(), True),
        (Deciders(groups=["finance"]), Person(groups=frozenset({"finance"})), True),
        (Deciders(groups=["finance"]), Person(roles=frozenset({"admin"})), False),
        (Deciders(roles=["decisions:write"]), Person(), True),
        (Deciders(roles=["runs:write"]), Person(), False),
        (Deciders(roles=["runs:write"]), Person(roles=frozenset({"admin"})), True),
        (Deciders(subjects=["ann"]), Person("ann"), True),
        (Deciders(subjects=["ann"]), Person("bob"), False),
        (Deciders(subjects=["ann"]), Person(), False),
        (Deciders(subjects=["ann"], groups=["finance"]), Person("ann"), True),
    ],
)
def test_who_may_decide(deciders: Deciders | None, person: Person, may: bool) -> None:
    def check() -> None:
        check_may_decide(
            uuid4(),
            person,
            deciders=deciders,
            requester_may_decide=True,
            started_by=None,
            user_id=None,
        )

    if may:
        check()
    else:
        with pytest.raises(ForbiddenError, match=str(deciders)):
            check()


def _key(subject: str | None, id: str | None = "k1", type: str = "service_key") -> Any:
    return {"type": type, "id": id, "subject": subject}


@pytest.mark.parametrize(
    ("started_by", "user_id", "person", "own"),
    [
        (_key("ann"), None, Person("ann", id="k2"), True),
        (_key("ann", type="program", id=None), None, Person("ann"), True),
        (_key("ann"), None, Person("bob", id="k1"), False),
        (_key(None), None, Person(None, id="k1"), True),
        (_key(None), None, Person(None, id="k2"), False),
        (_key(None), None, Person("ann", id="k1"), False),
        (_key(None, None, "program"), None, Person(None, id=None, type="program"), True),
        (_key("backend"), "ann", Person("ann"), True),
        (_key("backend"), "ann", Person("bob"), False),
        (None, None, Person(None), False),
    ],
)
def test_whose_own_it_is(started_by: Any, user_id: str | None, person: Person, own: bool) -> None:
    def check(requester_may_decide: bool) -> None:
        check_may_decide(
            uuid4(),
            person,
            deciders=None,
            requester_may_decide=requester_may_decide,
            started_by=started_by,
            user_id=user_id,
        )

    check(True)
    if not own:
        check(False)
        return
    with pytest.raises(ForbiddenError, match="somebody else"):
        check(False)


_GLOBS = st.sampled_from(["*", "t*", "t1", "t2", "*1"])
_POLICIES = st.lists(
    st.builds(
        Policy,
        name=st.integers(0, 99).map(str),
        tool=_GLOBS,
        agent=st.sampled_from(["*", "a", "b"]),
        when=st.sampled_from(
            [{}, {"/n": {"gt": 5}}, {"/n": {"lte": 5}}, {"/n": {"exists": False}}]
        ),
        then=st.sampled_from(["allow", "ask", "deny"]),
    ),
    max_size=6,
)
_ARGUMENTS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.just({}), st.integers(0, 10).map(lambda n: {"n": n}), st.just({"n": "7"})
)


@given(
    _POLICIES, _POLICIES, st.sampled_from(["t1", "t2", "u1"]), st.sampled_from("abc"), _ARGUMENTS
)
def test_of_any_policies(
    first: list[Policy], second: list[Policy], tool: str, agent: str, arguments: Any
) -> None:
    def counting(policies: list[Policy]) -> Policy | None:
        return verdict(about(policies, agent=agent, tool=tool), arguments)

    alone, both = counting(first), counting([*first, *second])
    matching = [one for one in [*first, *second] if counting([one]) is one]
    denies = [one for one in matching if one.then == "deny"]
    # One that counts matches by itself; a deny counts wherever it stands; else the first.
    assert both is (denies[0] if denies else matching[0] if matching else None)
    # What stands behind changes nothing but by denying.
    if alone is not None and alone is not both:
        assert both is not None
        assert both.then == "deny"
    # What cannot be read is held up at least as much as anything that can.
    strictness = {"allow": 0, "ask": 1, "deny": 2}
    unread = verdict(about([*first, *second], agent=agent, tool=tool), None)
    if any(one.then == "deny" for one in matching):
        assert unread is not None
        assert strictness[unread.then] == 2


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([None, "x", "y"])), max_size=8))
def test_two_are_one_person_when_their_subject_is_or_all_else(people: list[Any]) -> None:
    given_people = [Person(subject, id=id) for id, subject in people]
    distinct = {identity_of(one) for one in given_people}
    expected = {one.subject or (one.id,) for one in given_people}
    assert len(distinct) == len(expected)
