"""Blocks of exception data are told by their functions, and short functions that nothing leads to by their places."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hotpatch.differ.funclets import Funclets
from hotpatch.differ.idle import Idle
from hotpatch.differ.matching import Evidence, Matching
from hotpatch.differ.names import Names
from hotpatch.image.funclets import Block, BlockRole, blocks

DATA = 0x9000
ALIKE = {"aB": 0.75, "bB": 1.0, "aA": 1.0}
"""How alike functions of other bodies are; of the same letter they are the same."""


def view(functions, rows=()):
    """An image with ``functions``, the letters of their bodies by entry; ``rows`` tells whose exception data lead to which of them."""
    found = {entry: SimpleNamespace(entry=entry, size=12) for entry in functions}
    data = {DATA + home: tuple(Block(BlockRole(role), entry) for role, entry in own) for home, own in rows}
    image = SimpleNamespace(
        kept=lambda make: data if make is blocks else None,
        unwind_entries=[SimpleNamespace(handler_data=DATA + home, handler=None, range=SimpleNamespace(start=home)) for home, _ in rows],
        function_at=found.get,
        exports=(),
        guard_functions=(),
        entry_point=None,
    )
    bodies = {
        entry: SimpleNamespace(letter=letter, is_like=lambda other, letter=letter: other.letter == letter, whole_targets=())
        for entry, letter in functions.items()
    }
    return SimpleNamespace(image=image, functions=found, bodies=bodies, referenced=frozenset())


def likeness(base, fixed):
    return SimpleNamespace(affinity=lambda old, new: ALIKE.get(base.bodies[old].letter + fixed.bodies[new].letter, 0.0))


def pairing(*pairs):
    matching = Matching()
    for pair in pairs:
        matching.pair(*pair, Evidence.BODY)
    return matching


UNWIND, CATCH, DESTRUCTOR = "unwind", "catch", "destructor"

# bodies and exception data of the base, of the fixed image, whose blocks, what is each other
FAMILIES = [
    pytest.param({1: "f", 2: "a", 3: "b"}, {1: "f", 2: "a", 3: "b"}, [(2, 2), (3, 3)], id="all-the-same"),
    pytest.param({1: "f", 2: "a", 3: "a"}, {1: "f", 2: "a", 3: "B"}, [(2, 2), (3, 3)], id="one-differs-and-stays-in-its-place"),
    pytest.param({1: "f", 2: "a", 3: "b"}, {1: "f", 2: "x", 3: "a", 4: "b"}, [(2, 3), (3, 4)], id="one-more-in-front"),
    pytest.param({1: "f", 2: "x", 3: "a", 4: "b"}, {1: "f", 2: "a", 3: "b"}, [(3, 2), (4, 3)], id="one-less"),
]


@pytest.mark.parametrize(("base", "fixed", "expected"), FAMILIES)
def test_blocks_of_one_function(base, fixed, expected):
    there, here = (view(side, [(1, [(UNWIND, entry) for entry in side if entry != 1])]) for side in (base, fixed))
    assert Funclets(there, here, pairing((1, 1)), likeness(there, here)).pairs(1, 1) == expected


def test_a_block_is_no_block_of_another_role():
    there, here = view({1: "f", 2: "a"}, [(1, [(UNWIND, 2)])]), view({1: "f", 2: "a"}, [(1, [(CATCH, 2)])])
    assert Funclets(there, here, pairing((1, 1)), likeness(there, here)).pairs(1, 1) == []


# what the functions 1 and 2 of the base are in the fixed image; whether their block 3 (of 1) can be 3 (of 1) there, and 4 (of 2)
OWNERS = [
    pytest.param((), UNWIND, False, False, id="unknown"),
    pytest.param([(1, 1)], UNWIND, True, False, id="the-same"),
    pytest.param([(1, 2)], UNWIND, False, True, id="the-other"),
    pytest.param((), DESTRUCTOR, True, True, id="a-function-that-anybody-may-call"),
]


@pytest.mark.parametrize(("known", "role", "one", "other"), OWNERS)
def test_whose_block_it_is(known, role, one, other):
    rows = [(1, [(role, 3)]), (2, [(role, 4)])]
    there, here = (view({1: "f", 2: "g", 3: "a", 4: "a"}, rows) for _ in range(2))
    family = Funclets(there, here, pairing(*known), likeness(there, here))
    assert (family.may_pair(3, 3), family.may_pair(3, 4)) == (one, other)
    assert family.may_pair(1, 2)
    assert family.may_pair(3, 1) == (role is DESTRUCTOR)


def test_where_one_image_has_no_exception_data_they_tell_nothing():
    there, here = view({1: "f", 3: "a"}, [(1, [(UNWIND, 3)])]), view({1: "f", 3: "a"})
    assert Funclets(there, here, pairing(), likeness(there, here)).may_pair(3, 3)


# bodies of what stands between the matched functions 1 and 9, whether what two lead to is the same, what is each other
PLACES = [
    pytest.param("aab", "aab", True, [(2, 2), (3, 3), (4, 4)], id="all-the-same"),
    pytest.param("ab", "aB", False, [(2, 2), (3, 3)], id="as-many"),
    pytest.param("ab", "aaB", False, [(2, 2)], id="one-more-and-nothing-shows-that-the-other-is-the-same"),
    pytest.param("ab", "xaB", True, [(2, 3), (3, 4)], id="one-more-and-the-other-leads-to-the-same"),
]


@pytest.mark.parametrize(("base", "fixed", "agreed", "expected"), PLACES)
def test_what_nothing_leads_to_keeps_its_order(base, fixed, agreed, expected):
    there, here = (view({1: "f", **dict(enumerate(side, 2)), 9: "g"}) for side in (base, fixed))
    for side in (there, here):
        side.referenced = frozenset({1, 9})
    idle = Idle(there, here, likeness(there, here))
    assert sorted(idle.in_place(pairing((1, 1), (9, 9)), lambda _: agreed)) == expected
    assert idle.has(2, 2)
    assert not idle.has(1, 9)


def named(*names):
    """An image with one function for each of ``names``, by number."""
    functions = {entry: SimpleNamespace(entry=entry, name=name, names=(name,)) for entry, name in enumerate(names, 1)}
    bodies = {entry: SimpleNamespace(is_like=lambda _: True) for entry in functions}
    return SimpleNamespace(functions=functions, bodies=bodies)


F0, F1, F2 = (f"`f'::`1'::dtor${number}" for number in range(3))
M0, M1, M2 = (f"?dtor${number}@?0??f@@YAXXZ@4HA" for number in range(3))

# names of the base's functions and of the fixed image's, those that are each other, whether the first of both can be
NUMBERS = [
    pytest.param([F0, F1], [F0, F1], {1: 1, 2: 2}, True, id="the-same"),
    pytest.param([F0, F1], [F1, F2], {}, True, id="others"),
    pytest.param([F0, "g"], [F0, F1, "g"], {2: 3}, True, id="one-more"),
    pytest.param([M0, M1], [M1, M2], {}, True, id="others-with-signatures"),
    pytest.param([F0, "`f'::`1'::catch$0"], [F1, "`f'::`1'::catch$0"], {2: 2}, True, id="another-kind"),
    pytest.param(["f$0", "g"], ["h", "f$0"], {1: 2}, False, id="no-block"),
    pytest.param(["fin$1", "g"], ["fin$0", "fin$1"], {1: 2}, False, id="no-block-though-it-is-called-so"),
]


@pytest.mark.parametrize(("base", "fixed", "expected", "allowed"), NUMBERS)
def test_numbers_of_blocks_are_names_only_where_all_are_the_same(base, fixed, expected, allowed):
    names, matching = Names(named(*base), named(*fixed)), Matching()
    names.match(matching)
    assert matching.forward == expected
    assert names.allow(1, 1) == allowed
