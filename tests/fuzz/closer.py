"""Random programs in which changed functions name what lies near what they named, and data that are alike change places, come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fuzz.program import CALLED, TYPES
from tests.fuzz.wider import LEAVES, Wider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.program import Program

ANCHOR = "struct node {"
PRELUDE = """struct mixed { u32 a, b; u16 c, d; u64 e, f; u8 g[4]; u32 h, i; };
"""
MEMBERS = {"a": "u32", "b": "u32", "c": "u16", "d": "u16", "e": "u64", "f": "u64", "g[1]": "u8", "g[2]": "u8", "h": "u32", "i": "u32"}
LIKE = (("a", "b"), ("c", "d"), ("e", "f"), ("g[1]", "g[2]"), ("h", "i"), ("b", "h"), ("a", "e"), ("c", "g[2]"))
"""Members, two at a time, that are taken for each other."""
KINDS = ("element", "gone_over", "member", "wide", "zeroed", "swapped", "added", "replaced", "first_value", "end", "beginning")
"""Changes, each drawn by a method."""
NEVER = "t == 0x1234567812345ull"
"""A condition that no call meets."""
Place = tuple[str, str]
"""What can be assigned to, and its type."""


class Closer(Wider):
    """Draws one program; ``kinds`` says which of the kinds of change that this class adds are in it."""

    def __init__(self, seed: int) -> None:
        """Begin the program of ``seed``: nothing of what other writers draw changes in its functions, or as little or as much as there."""
        super().__init__(seed)
        self.calm = self.random.choice((0.0, 0.0, 0.2, 1.0))
        self.kinds: list[str] = []

    def body(self, size: int, chance: float) -> str:
        return super().body(size, chance * self.calm)

    def draw_functions(self) -> None:
        super().draw_functions()
        for kind in self.random.sample(KINDS, self.random.randrange(1, 5)):
            self.kinds.append(kind)
            getattr(self, f"draw_{kind}")()

    def place(self, prefix: str, text: str) -> None:
        """Put statements into a function that is there, or into one of their own."""
        random = self.random
        if random.random() < 0.3:
            head = f"EXPORT NOINLINE u64 f{random.randrange(CALLED)}("
            at = next(at for at, function in enumerate(self.functions) if function.startswith(head))
            self.functions[at] = self.functions[at].removesuffix("return t; }") + text + " return t; }"
            return
        other = random.choice(("", "", "«|t += 3;»", "«|t ^= x * 5;»", "«|if (y == 9) return t;»")) if "«" in text else ""
        whole = f"EXPORT NOINLINE u64 touch_{self.name(prefix)}(u64 x) {{ u64 y = x >> 5, t = x * 3; {other} {text} return t; }}"
        self.functions.insert(random.randrange(len(self.functions) + 1), whole)

    def use(self, place: Place) -> str:
        """Read and write what can be assigned to."""
        at, of = place
        return self.random.choice(
            (
                f"{at} += ({of})x; t ^= {at};",
                f"t += {at}++;",
                f"{at} ^= ({of})(t * {self.random.randrange(3, 9)});",
                f"if (t & 4) {at} = ({of})y; t -= {at};",
                f"t = t * 7 + {at}; {at} = ({of})(t + {self.random.randrange(9)});",
                f"{at} = ({of}){self.random.choice(LEAVES)}({at}, t);",
            )
        )

    def uses(self, place: Place, other: Place) -> tuple[str, str]:
        """The same done with each of two."""
        text = self.use(("@", "#"))
        return text.replace("@", place[0]).replace("#", place[1]), text.replace("@", other[0]).replace("#", other[1])

    def array(self, prefix: str, of: str, length: int, first: str | None = None) -> str:
        name = self.name(prefix)
        filled = self.random.choice(("", f" = {{{self.values(of, length)}}}")) if first is None else first
        self.data.append(f"static {of} {name}[{length}]{filled};")
        return name

    # what lies near what was named ------------------------------------------------------------------------------------------------------

    def other_places(self, places: Sequence[Place]) -> str:
        """A change from some of the places of a datum to others: ``places`` are three, of which the first two are most alike."""
        random = self.random
        first, second, third = places
        one, same = self.uses(first, second)
        mine, yours = self.uses(third, first)
        return random.choice(
            (
                f"«{one}|{same}»",
                f"«{same}|{one}»",
                f"{mine} «{one}|{same}»",
                f"«{one}|{same}» {mine}",
                f"{one} «|{self.use(second)}»",
                f"«{one} {same}|{same}»",
                f"«{one} {same}|{one}»",
                f"«{one} {mine}|{same} {yours}»",
                f"«{one} {mine}|{mine} {same}»",
                f"«{one}|{mine}» «|{self.use(second)}»",
            )
        )

    def witness(self, prefix: str, places: Sequence[Place]) -> None:
        """Another function that uses the places between which there is a change: without one, nothing would tell it from other names."""
        self.place(prefix, " ".join(self.use(place) for place in places) + self.random.choice(("", "", "«|t += 2;»")))

    def elements(self, name: str, of: str, length: int) -> list[Place]:
        first = self.random.randrange(length - 1)
        third = self.random.choice([at for at in range(length) if at not in (first, first + 1)])
        return [(f"{name}[{at}]", of) for at in (first, first + 1, third)]

    def over(self, name: str, of: str, length: int) -> str:
        """Goes over an array, or to an element by an index."""
        return self.random.choice(
            (
                f"for (u32 i = 0; i < {length}; ++i) t = t * 3 + {name}[i]++;",
                f"{name}[x % {length}] += ({of})t; t ^= {name}[y % {length}];",
                f"for ({of} *p = {name} + {length}; p-- > {name};) t = t * 5 + *p; {name}[x % {length}]++;",
                f"t += span_{of}({name}, {name} + {length});",
            )
        )

    def draw_element(self) -> None:
        of, length = self.random.choice(list(TYPES)), self.random.choice((3, 4, 8, 16))
        name = self.array("element", of, length)
        places = self.elements(name, of, length)
        text = self.other_places(places)
        if self.random.random() < 0.2:
            old, new = self.uses((f"{name}[{length // 2}]", of), (f"{name}[x % {length}]", of))
            text = self.random.choice((f"«{old}|{new}»", f"«{new}|{old}»"))
        self.place("element", text)
        self.witness("element", places)

    def draw_gone_over(self) -> None:
        of, length = self.random.choice(list(TYPES)), self.random.choice((3, 4, 8, 16))
        name = self.array("gone_over", of, length)
        self.place("gone_over", self.other_places(self.elements(name, of, length)))
        self.place("gone_over", self.over(name, of, length))

    def draw_member(self) -> None:
        random = self.random
        name, length = self.name("member"), random.choice(("", "", "[3]"))
        self.data.append(f"static struct mixed {name}{length}{random.choice(('', ' = {1, 2, 3, 4, 5, 6}' if not length else ''))};")
        at = random.choice(("[0]", "[1]", "[2]", "[x % 3]")) if length else ""
        pair = random.choice(LIKE)
        names = [*random.sample(pair, 2), random.choice([one for one in MEMBERS if one not in pair])]
        places = [(f"{name}{at}.{one}", MEMBERS[one]) for one in names]
        self.place("member", self.other_places(places))
        if length and random.random() < 0.5:
            self.place("member", f"for (struct mixed *p = {name}; p != {name} + 3; ++p) t += p->{random.choice(names)}++;")
        self.witness("member", places)

    def four(self, prefix: str) -> list[str]:
        """Four places of four bytes in a row, which unchanged code may go over."""
        random = self.random
        if random.random() < 0.5:
            name = self.array(prefix, "u32", 6, random.choice(("", " = {1, 2, 3, 4, 5, 6}")))
            self.place(prefix, self.over(name, "u32", 6))
            first = random.randrange(3)
            return [f"{name}[{first + at}]" for at in range(4)]
        name = self.name(prefix)
        self.data.append(f"static struct mixed {name};")
        self.place(prefix, f"{name}.a += x; {name}.h ^= (u32)t; t += {name}.i++ + {name}.b++;")
        return [f"{name}.{one}" for one in random.choice(("abhi", "hiab"))]

    def draw_wide(self) -> None:
        """Two places that the compiler reads or writes at once."""
        random = self.random
        a, b, c, d = self.four("wide")
        texts = [
            random.choice(
                (
                    f"t += {one} + ((u64){other} << 32);",
                    f"if ({one} == 3 && {other} == 4) t += 9;",
                    f"{one} = (u32)x; {other} = (u32)(x >> 32);",
                    f"{one} += 5; {other} += 7; t ^= {one} * {other};",
                )
            )
            for one, other in ((a, b), (b, c), (c, d))
        ]
        first, middle, last = texts
        single = self.use((random.choice((a, b, c, d)), "u32"))
        changes = (
            f"«{first}|{last}»",
            f"«{first}|{middle}»",
            f"«{last}|{middle}»",
            f"{first} «|{last}»",
            f"«{single}|{first}»",
            f"«{first}|{single}»",
            f"«{first} {single}|{single} {last}»",
        )
        self.place("wide", random.choice(changes))
        if random.random() < 0.5:
            self.place("wide", self.use((random.choice((a, b, c, d)), "u32")) + " «|t += 2;»")

    def draw_zeroed(self) -> None:
        """What is set to zero alone, or stored where the process ends."""
        random = self.random
        a, b, c, d = self.four("zeroed")
        kept = [
            random.choice((f"{one} = 0;", f"{one} = 0;", f"if ({NEVER}) {{ {one} = (u32)x; __builtin_trap(); }}")) for one in (a, b, c, d)
        ]
        first, second, *_ = texts = random.sample(kept, 4)
        single = self.use((random.choice((a, b, c, d)), "u32"))
        changes = (
            f"«{first}|{second}»",
            f"«{first} {single}|{second} {single}»",
            f"{first} «|{second}»",
            f"«{single}|{first}»",
            f"«{first}|{single}»",
            f"«{first}|{' '.join(texts)}»",
        )
        self.place("zeroed", random.choice(changes))
        if random.random() < 0.5:
            self.place("zeroed", f"t += {a} + {b}; {c} += (u32)x; {d}++;" + random.choice(("", " «|t += 2;»")))

    # data that are alike ----------------------------------------------------------------------------------------------------------------

    def alike(self, prefix: str, count: int) -> tuple[list[str], list[Place], str]:
        """Statics of one size and first value, a place of each, and their declaration with ``@`` for the name; the last is not declared."""
        random = self.random
        of = random.choice(list(TYPES))
        length = random.choice((0, 0, 2, 4, 8))
        first = f" = {random.randrange(1, 99)}" if random.random() < 0.3 else ""
        if first and length:
            first = f" = {{{self.values(of, length)}}}"
        declaration = f"static {of} @{f'[{length}]' if length else ''}{first};"
        names = [self.name(prefix) for _ in range(count)]
        self.data += [declaration.replace("@", name) for name in names[:-1]]
        index = random.choice((f"[x % {length}]", f"[t % {length}]", f"[{random.randrange(length)}]")) if length else ""
        return names, [(f"{name}{index}", of) for name in names], declaration

    def each(self, places: Sequence[Place]) -> list[str]:
        """Something else done with each: what is done with it is all that tells it from the others."""
        shapes: list[str] = []
        while len(shapes) < len(places):
            shape = self.use(("@", "#"))
            shapes += [shape] * (shape not in shapes)
        return [shape.replace("@", place[0]).replace("#", place[1]) for shape, place in zip(shapes, places, strict=True)]

    def draw_swapped(self) -> None:
        """Two statements that change places, and with them the data that they name."""
        names, places, declaration = self.alike("swapped", 2)
        self.data.append(declaration.replace("@", names[1]))
        first, second = self.each(places)
        text = f"«{first} {second}|{second} {first}»"
        if self.random.random() < 0.3:
            text = f"«{first}|{second}» {self.use(('t', 'u64'))} «{second}|{first}»"
        self.place("swapped", text)
        if self.random.random() < 0.3:
            self.place("swapped", " ".join(self.each(self.random.sample(places, 2))) + " «|t += 3;»")

    def draw_added(self) -> None:
        """A static that is new before, between or behind two that it is like."""
        names, places, declaration = self.alike("added", 3)
        self.data.insert(self.random.randrange(len(self.data) + 1), f"«|{declaration.replace('@', names[2])}»")
        first, second, new = self.each(places)
        rows = [first, second]
        rows.insert(self.random.randrange(3), f"«|{new}»")
        self.place("added", " ".join(rows))
        if self.random.random() < 0.3:
            self.place("added", self.use(places[self.random.randrange(2)]) + self.random.choice(("", "«|t += 2;»")))

    def draw_replaced(self) -> None:
        """A static that is gone and another of its size, with another first value, that has come; or one used in another's place."""
        random = self.random
        names, places, declaration = self.alike("replaced", 3)
        first, second, third = self.each(places)
        if random.random() < 0.4 and "[" not in declaration:
            start = declaration.partition(" = ")[0].rstrip(";").replace("@", names[2])
            self.data.append(f"«|{start} = {random.randrange(100, 200)};»")
            rows = [f"«{first}|{third}»", second]
        else:
            new = declaration.replace("@", names[2])
            self.data.append(f"«|{new}»" if random.random() < 0.5 else new)
            rows = [f"«{first}|{first.replace(names[0], names[2])}»", second]
            self.place("replaced", self.use(places[0]) + random.choice(("", "«|t += 2;»")))
        random.shuffle(rows)
        self.place("replaced", " ".join(rows))

    def draw_first_value(self) -> None:
        """Statics of which the first value changes, or two that exchange theirs."""
        random = self.random
        of = random.choice(list(TYPES))
        one, other = (self.name("first_value") for _ in range(2))
        low, high = random.sample(range(1, 99), 2)
        if random.random() < 0.2:
            low = 0
        self.data.append(f"static {of} {one} = {self.either(str(low), str(high))};")
        self.data.append(f"static {of} {other} = {self.either(str(high), random.choice((str(low), str(high))))};")
        texts = self.each([(one, of), (other, of)])
        self.place("first_value", random.choice((" ".join(texts), f"«{' '.join(texts)}|{' '.join(reversed(texts))}»")) + "«|t += 2;»")
        if random.random() < 0.3:
            self.place("first_value", self.use((one, of)))

    # ends -------------------------------------------------------------------------------------------------------------------------------

    def other_end(self, name: str, of: str, length: int) -> str:
        """An address at a distance from where an array begins that becomes one at another distance, the end among others."""
        random = self.random
        one, other = random.choice(((length, length - 1), (length - 1, length), (length, length), (length - 1, length - 2)))
        old, new = (f"{name} + {self.random.choice((at, at, length))}" for at in (one, other))
        least = random.randrange(1, length - 1)
        return random.choice(
            (
                f"t += back_{of}({self.either(old, new)}, {least});",
                f"t += span_{of}({name} + {random.randrange(least)}, {self.either(old, new)});",
                f"t += seek_{of}({name}, {self.either(old, new)}, x) - {name};",
                f"for ({of} *p = {self.either(old, new)}; p-- > {name};) t = t * 3 + *p;",
                f"«t += back_{of}({old}, {least});|t += span_{of}({name}, {new});»",
                f"t += back_{of}({name} + {length - 1}, {least}); «|t += back_{of}({name} + {length}, {least});»",
                f"t += back_{of}({self.either(f'{name} + {length}', new)}, 1); {name}[{length - 1}] ^= ({of})x;",
            )
        )

    def draw_end(self) -> None:
        of, length = self.random.choice(list(TYPES)), self.random.choice((3, 4, 8))
        name = self.array("end", of, length)
        behind = self.array("behind", of, length)
        rows = [self.other_end(name, of, length), self.over(name, of, length), self.over(behind, of, length)]
        self.place("end", " ".join(self.random.sample(rows, self.random.randrange(1, 4))) + "«|t += 2;»")
        for row in rows[1:]:
            if self.random.random() < 0.6:
                self.place("end", row)

    def draw_beginning(self) -> None:
        """What begins where an array ends becomes the array's end, or the other way round."""
        of, length = self.random.choice(list(TYPES)), self.random.choice((4, 8))
        name = self.array("beginning", of, length, "")
        behind = self.array("beginning", of, length, "")
        least = self.random.randrange(1, length)
        used = self.over(name, of, length), self.over(behind, of, length)
        end, start = f"t += back_{of}({name} + {length}, {least});", f"t += span_{of}({behind}, {behind} + {least});"
        changes = (
            f"«{end}|{start}»",
            f"«{start}|{end}»",
            f"{end} «|{start}»",
            f"{start} «|{end}»",
            f"«{end} {start}|{start} {end}»",
        )
        rows = [self.random.choice(changes)]
        rows += [row for row in used if self.random.random() < 0.5]
        self.random.shuffle(rows)
        self.place("beginning", " ".join(rows))
        self.place("beginning", " ".join(used))

    # the whole --------------------------------------------------------------------------------------------------------------------------

    def program(self, seed: int) -> Program:
        whole = super().program(seed)
        return replace(whole, sources=tuple(text.replace(ANCHOR, PRELUDE + ANCHOR, 1) for text in whole.sources))
