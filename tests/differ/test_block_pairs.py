"""Which basic block is which: small pairs of control-flow graphs with what should be paired, and what holds of any pair."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotpatch.differ.block_pairs import heaviest_rise, pair_blocks, pair_lines
from hotpatch.differ.blocks import Exit, Way
from hotpatch.differ.nodes import Node

WAYS = {"n": Way.NEXT, "t": Way.TAKEN, "j": Way.JUMP, "c": Way.CASE}


def graph(text: str) -> list[Node]:
    """Blocks as ``line line … > n1 t4``: instructions (``operation.operands``, after ``@`` what they refer to), then ways and targets."""
    found: list[Node] = []
    first = 0
    for row in text.strip().splitlines():
        lines, _, exits = row.partition(">")
        content = tuple(lines.split())
        tokens = tuple(line.partition("@")[0] for line in content)
        shapes = tuple(token.partition(".")[0] for token in tokens)
        ways = [exit.strip() for exit in exits.split()]
        found.append(Node(first, (content, tokens, shapes), tuple(Exit(WAYS[way[0]], 0, int(way[1:])) for way in ways)))
        first += len(content)
    return found


def said(base, fixed) -> list[str]:
    """The alignment: ``lines | lines`` for a pair, ``~`` before it where it moved, ``-`` and ``+`` before what only one side has."""
    found = pair_blocks(base, fixed)
    partner = dict(found.pairs)
    lines = [[" ".join(node.levels[0]) for node in side] for side in (found.base, found.fixed)]
    rows = [
        f"{'~ ' * (b in found.moved)}{text} | {lines[1][partner[b]]}" if b in partner else f"- {text}" for b, text in enumerate(lines[0])
    ]
    taken = set(partner.values())
    return rows + [f"+ {text}" for f, text in enumerate(lines[1]) if f not in taken]


TABLE = {
    "nothing": ("", "", []),
    "the same": ("a b jcc > n1 t1\nret", "a b jcc > n1 t1\nret", ["a b jcc | a b jcc", "ret | ret"]),
    "only in the fixed": ("", "a ret", ["+ a ret"]),
    "a line differs": ("a b mov.1 > n1\nc ret", "a b mov.2 > n1\nc ret", ["a b mov.1 | a b mov.2", "c ret | c ret"]),
    "a check is inserted": (
        "a b jcc > n1 t2\nc d > n2\ne ret",
        "a b jcc > n1 t3\nload cmp jcc > n2 t4\nc d > n3\ne ret\nmov.error call.fail ret",
        ["a b jcc | a b jcc", "c d | c d", "e ret | e ret", "+ load cmp jcc", "+ mov.error call.fail ret"],
    ),
    "a check is removed": (
        "a b jcc > n1 t3\nload cmp jcc > n2 t4\nc d > n3\ne ret\nmov.error call.fail ret",
        "a b jcc > n1 t2\nc d > n2\ne ret",
        ["a b jcc | a b jcc", "- load cmp jcc", "c d | c d", "e ret | e ret", "- mov.error call.fail ret"],
    ),
    "a block moves to the end": (
        "a b jcc > n1 t2\nslow slower jmp > j3\nc d e > n3\nf ret",
        "a b jcc > n1 t3\nc d e > n2\nf ret\nslow slower jmp > j2",
        ["a b jcc | a b jcc", "~ slow slower jmp | slow slower jmp", "c d e | c d e", "f ret | f ret"],
    ),
    "a branch is inserted within a block": (
        "a b c d e ret",
        "a b test jcc > n1 t2\nc d e ret\nx ret",
        ["a b | a b test jcc", "c d e ret | c d e ret", "+ x ret"],
    ),
    "the larger piece is the first": (
        "a b c d e ret",
        "a b c d test jcc > n1 t2\ne ret\nx call.fail ret",
        ["a b c d | a b c d test jcc", "e ret | e ret", "+ x call.fail ret"],
    ),
    "two branches are inserted within a block": (
        "a b c d e f g h ret",
        "a b c jcc.1 > n1 t3\nd e f jcc.2 > n2 t3\ng h ret\nx call.fail ret",
        ["a b c | a b c jcc.1", "d e f | d e f jcc.2", "g h ret | g h ret", "+ x call.fail ret"],
    ),
    "a branch is taken out of a block": (
        "a b test jcc > n1 t2\nc d e ret\nx ret",
        "a b c d e ret",
        ["a b test jcc | a b", "c d e ret | c d e ret", "- x ret"],
    ),
    "a new branch leads into a block": (
        "a jcc > n1 t2\nb c jmp > j3\nd e f g > n3\nret",
        "a jcc > n1 t2\nb c jmp > j3\nd e > n3\nf g > n4\nret\nx y jmp > j3",
        ["a jcc | a jcc", "b c jmp | b c jmp", "d e | d e", "f g | f g", "ret | ret", "+ x y jmp"],
    ),
    "a loop is rotated": (
        "a b > n1\ncmp.n jcc > n2 t3\nload add.4 jmp > j1\nmov ret",
        "a b cmp.n jcc > n1 t2\nload add.4 cmp.n jcc > t1 n2\nmov ret",
        ["a b | a b cmp.n jcc", "~ cmp.n jcc | cmp.n jcc", "load add.4 jmp | load add.4", "mov ret | mov ret"],
    ),
    "twins are told apart by what is around them": (
        "a jcc > n1 t2\nz.1 ret\nb jcc > n3 t4\nx ret\nx ret",
        "a jcc > n1 t2\nz.1 ret\nnew jcc > n3 t6\nb jcc > n4 t5\nx ret\nx ret\nx ret",
        ["a jcc | a jcc", "z.1 ret | z.1 ret", "b jcc | b jcc", "x ret | x ret", "x ret | x ret", "+ new jcc", "+ x ret"],
    ),
    "what is referred to tells more than the instructions": (
        "a jcc > n1 t2\nlea call@f jmp > j3\nlea call@g jmp > j3\nret",
        "a jcc > n1 t2\nlea call@g jmp > j3\nlea call@f jmp > j3\nret",
        ["a jcc | a jcc", "~ lea call@f jmp | lea call@f jmp", "lea call@g jmp | lea call@g jmp", "ret | ret"],
    ),
    "another register everywhere": (
        "mov.1 add.1 jcc > n1 t2\nsub.1 mul.1 > n2\nmov.1 ret",
        "mov.2 add.2 jcc > n1 t2\nsub.2 mul.2 > n2\nmov.2 ret",
        ["mov.1 add.1 jcc | mov.2 add.2 jcc", "sub.1 mul.1 | sub.2 mul.2", "mov.1 ret | mov.2 ret"],
    ),
    "nothing in common": ("a b c d ret.1", "p q r s u v", ["- a b c d ret.1", "+ p q r s u v"]),
    "a case is added to a switch": (
        "cmp ijmp > c1\none one.1 jmp > j2\nend ret",
        "cmp ijmp > c1 c2\none one.1 jmp > j3\ntwo two.1 jmp > j3\nend ret",
        ["cmp ijmp | cmp ijmp", "one one.1 jmp | one one.1 jmp", "end ret | end ret", "+ two two.1 jmp"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_pairs(name) -> None:
    base, fixed, expected = TABLE[name]
    assert said(graph(base), graph(fixed)) == expected


@st.composite
def graphs(draw) -> list[Node]:
    """Few kinds of lines, so that much is alike; edges anywhere."""
    count = draw(st.integers(0, 7))
    rows = []
    for at in range(count):
        lines = draw(st.lists(st.sampled_from(["a.1", "a.2", "b.1", "b@x", "b@y", "c.1"]), min_size=1, max_size=5))
        ways = [f"n{at + 1}"] if at + 1 < count and draw(st.booleans()) else []
        ways += [f"t{draw(st.integers(0, count - 1))}"] if draw(st.booleans()) else []
        rows.append(f"{' '.join(lines)} > {' '.join(ways)}")
    return graph("\n".join(rows))


@given(graphs(), graphs())
@settings(max_examples=80, deadline=None)
def test_alignment_is_one_to_one_whole_and_the_same_from_either_side(base, fixed) -> None:
    found, back = pair_blocks(base, fixed), pair_blocks(fixed, base)
    assert len({b for b, _ in found.pairs}) == len({f for _, f in found.pairs}) == len(found.pairs)
    for nodes, given_nodes in ((found.base, base), (found.fixed, fixed)):
        assert [line for node in nodes for line in node.levels[0]] == [line for node in given_nodes for line in node.levels[0]]
        assert [node.first for node in nodes] == [sum(node.size for node in nodes[:at]) for at in range(len(nodes))]
        assert {node.first for node in given_nodes} <= {node.first for node in nodes}, "blocks are cut, never joined"
        assert all(node.size for node in nodes)
        assert all(target < len(nodes) for node in nodes for _, _, target in node.exits)
    assert (back.base, back.fixed) == (found.fixed, found.base)
    assert back.pairs == tuple(sorted((f, b) for b, f in found.pairs))
    assert {dict(found.pairs)[b] for b in found.moved} == back.moved
    for b, f in found.pairs:
        assert pair_lines(found.fixed[f], found.base[b]) == tuple((two, one) for one, two in pair_lines(found.base[b], found.fixed[f]))
    stay = [f for b, f in found.pairs if b not in found.moved]
    assert stay == sorted(stay)


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_a_function_aligns_with_itself(nodes) -> None:
    found = pair_blocks(nodes, nodes)
    assert found.pairs == tuple((at, at) for at in range(len(nodes)))
    assert (found.moved, found.by_shape) == (frozenset(), 0)


@given(st.permutations(range(6)), st.lists(st.integers(1, 9), min_size=6, max_size=6))
@settings(max_examples=60)
def test_what_stays_weighs_most(values, weights) -> None:
    rows = list(zip(values, weights, strict=True))
    choices = [[at for at in range(len(rows)) if number >> at & 1] for number in range(1 << len(rows))]
    rises = [chosen for chosen in choices if [rows[at][0] for at in chosen] == sorted(rows[at][0] for at in chosen)]
    found = sorted(heaviest_rise(rows))
    assert found in rises
    assert sum(rows[at][1] for at in found) == max(sum(rows[at][1] for at in chosen) for chosen in rises)


def _long(count: int, mark: str) -> list[Node]:
    return graph(
        "\n".join(f"mov.{mark}{at % 97} add.{at % 89} jcc.{at % 7} > n{(at + 1) % count} t{at * 31 % count}" for at in range(count))
    )


def test_large_functions_take_little_time() -> None:
    start = process_time()
    found = pair_blocks(_long(1000, "x"), _long(1000, "y"))
    assert process_time() - start < 10
    assert (len(found.pairs), found.by_shape) == (1000, 0)


def test_more_blocks_than_can_be_compared_each_with_each_pair_by_shape_alone_and_it_says_so() -> None:
    base, fixed = (graph("\n".join(f"op{at} op.{mark}{at} > " for at in range(400))) for mark in "xy")
    found = pair_blocks(base, fixed)
    assert found.by_shape == 399, "all but the entry"
    assert found.pairs == tuple((at, at) for at in range(400))
