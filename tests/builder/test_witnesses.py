"""Live data that are told by their distances from one address alone: whether who uses them shows that they are where they were."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.builder.ownership import FARTHEST
from hotpatch.builder.reached import Reached
from hotpatch.cases import find_case
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.differ.follow import ways_from_named
from hotpatch.differ.view import View
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.test_reaches import reaches, reads
from tests.emulator.pe import DATA, TEXT, Pe

START = DATA + 0x100
each_machine = pytest.mark.parametrize("machine", Machine)

MOVED = {
    "two-in-each-others-place": ({"a": 8, "b": 8, "c": 16}, {"a": 16, "b": 16, "c": 8}),
    "another-in-its-place": ({"a": 8, "b": 8, "c": 24}, {"a": 16, "b": 16, "c": 8}),
    "two-that-one-function-uses-each": ({"a": 8, "b": 24}, {"a": 24, "b": 8}),
}
STAYED = {
    "all-the-same": ({"a": 8, "b": 16}, {"a": 8, "b": 16}),
    "one-uses-what-others-do": ({"a": 8, "b": 8, "c": 16}, {"a": 16, "b": 8, "c": 16}),
}


def pair(machine: Machine, *distances: dict[str, int]) -> ImageDiff:
    """Functions, by name, that reach what lies at a distance from one address, and one that names that address; the first changed."""
    images = []
    for there in distances:
        pe = Pe(machine)
        entries = [("named", TEXT)]
        pe.put(TEXT, reads(machine, TEXT, START, 1))
        for name, distance in there.items():
            at = TEXT + 0x40 * len(entries)
            pe.put(at, reaches(machine, at, START, distance, changed=name == "a" and there is distances[1]))
            entries.append((name, at))
        pe.exports("reach.dll", entries)
        images.append(pe.build("reach.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("name", MOVED)
def test_what_may_be_something_else_is_refused(machine: Machine, name: str) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(pair(machine, *MOVED[name]))
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.UNRESOLVED_REFERENCE}


@each_machine
@pytest.mark.parametrize("name", STAYED)
def test_what_others_use_as_before_is_the_same(machine: Machine, name: str) -> None:
    assert build_patch(pair(machine, *STAYED[name])).carried == ()


class Image(NamedTuple):
    """Functions of an image, by name, and what they do: read what lies at a distance from the shared address, by an index or not.

    ``direct``: what reads what it names, at a distance from there.
    """

    plain: dict[str, int]
    indexed: dict[str, int]
    direct: dict[str, int]


UNPROVEN = {
    "one-uses-what-may-be-an-element": (Image({"a": 8}, {}, {}), Image({"a": 12}, {}, {})),
    "what-was-gone-over-by-an-index-is-one-number-now": (Image({"b": 0x20}, {"a": 8}, {}), Image({"a": 8, "b": 0x20}, {}, {})),
    "what-was-one-number-is-gone-over-now": (Image({"a": 8, "b": 0x20}, {}, {}), Image({"b": 0x20}, {"a": 8}, {})),
    "another-begins-where-the-first-did": (
        Image({}, {"goes": 0}, {"a": 0x10, "c": 0}),
        Image({"c": 8}, {"goes": 0}, {"a": 0}),
    ),
    "gone-over-where-nothing-was": (Image({"a": 8, "b": 0x10}, {}, {}), Image({"b": 0x10}, {"a": 0x20}, {})),
    "behind-all-that-is-known": (Image({"a": 0x10, "b": 8}, {}, {}), Image({"a": 0x28, "b": 8}, {}, {})),
    "new-perhaps-where-another-was-at-a-distance": (Image({"a": 0x20, "b": 8}, {}, {}), Image({"b": 8}, {}, {"a": 0x40})),
}
"""What a build has, and the next, in which ``a`` is another datum or may be one."""


def laid(machine: Machine, builds: tuple[Image, Image]) -> ImageDiff:
    images = []
    for number, build in enumerate(builds):
        pe = Pe(machine)
        every = sorted({*build.plain, *build.indexed, *build.direct})
        entries = [("named", TEXT)]
        pe.put(TEXT, reads(machine, TEXT, START, 1))
        for name in every:
            at = TEXT + 0x40 * len(entries)
            if name in build.direct:
                pe.put(at, reads(machine, at, START + build.direct[name], 2 + ord(name[0]) + number))
            else:
                distance, changed = {**build.plain, **build.indexed}[name], name == "a" and bool(number)
                pe.put(at, reaches(machine, at, START, distance, changed=changed, indexed=name in build.indexed))
            entries.append((name, at))
        pe.exports("reach.dll", entries[1:] if any(0 in one.direct.values() for one in builds) else entries)
        images.append(pe.build("reach.dll"))
    return diff_images(*images)


@each_machine
def test_a_later_element_of_what_is_gone_over_is_the_same(machine: Machine) -> None:
    diff = laid(machine, (Image({}, {"a": 0, "b": 0}, {}), Image({}, {"a": 8, "b": 0}, {})))
    assert build_patch(diff, only=("a",)).carried == ()


@each_machine
@pytest.mark.parametrize("name", UNPROVEN)
def test_what_nothing_shows_to_be_the_same_is_refused(machine: Machine, name: str) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(laid(machine, UNPROVEN[name]), only=("a",))
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.UNRESOLVED_REFERENCE}


@pytest.mark.parametrize("machine", Machine)
def test_what_functions_reach_is_told_as_if_all_were_followed(machine: Machine) -> None:
    image = hotpatch.open(find_case("interpreter").image(machine))
    view, functions = View(image), image.functions
    named = [(target, number) for number, function in enumerate(functions) for target in view.body(function.entry).whole_targets]
    ways = [ways_from_named(image, function) for function in functions]
    every = [frozenset(place for place, _ in found) for found in ways]
    places = sorted(frozenset().union(*every))
    reached = Reached(view, functions)
    for rva in random.Random(1).sample(places, len(places)):
        near = {number for target, number in named if -FARTHEST <= target - rva < FARTHEST}
        found = {place for number in near for place in every[number] if abs(place - rva) <= FARTHEST and view.writable(place)}
        assert reached.users(rva) == {number for number in near if rva in every[number]}
        for indexed in (False, True):
            assert reached.users(rva, indexed=indexed) == {number for number in near if (rva, indexed) in ways[number]}
        assert reached.before(rva) == max((place for place in found if place < rva), default=None)
        assert reached.near(frozenset(near), rva) == sorted(found)
