"""Random C programs in two versions: what a developer may change between two builds, drawn from a seed.

``«old|new»`` in a program's text stands for what the base and the fixed version have, so that an expression of the old version
holds no ``|``.
No behaviour that C leaves undefined is drawn: indices are reduced, loops and recursion are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

_CHOICE = re.compile(r"«([^|»]*)\|([^»]*)»")
PRELUDE = """#include "common/fixture.h"
int _fltused;
void *memset(void *to, int value, u64 size) { volatile u8 *p = to; while (size--) *p++ = (u8)value; return to; }
void *memcpy(void *to, const void *from, u64 size)
{ volatile u8 *p = to; const u8 *q = from; while (size--) *p++ = *q++; return to; }
struct pair { u32 low; u32 high; };
struct record { u64 id; struct pair inner; u16 tags[3]; };
struct big { u64 a, b, c; };
typedef u64 operation(u64, u64);
"""
WORDS = (
    "alpha",
    "be",
    "gamma ray",
    "delta",
    "epsilon",
    "z",
    "eta and theta",
    "iota",
    "kappa",
    "lambda calculus",
    "mu",
    "nu",
    "xi",
    "omicron",
)
TYPES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
FIELDS = ("id", "inner.low", "inner.high", "tags[1]", "tags[y % 3]")
CALLED = 5
"""Exported functions ``f0`` … of a program, each ``u64 (u64 x, u64 y, u8 *buffer)`` with 32 bytes of buffer."""
BUFFER = 32


@dataclass(frozen=True)
class Program:
    """One program in both versions.

    Attributes:
        seed: That it was drawn from.
        sources: Of base and fixed.
        cflags: Of both.
        ldflags: Of both.
        hotpatch: Whether entries are made patchable.
        calls: Function, x, y, buffer; the patch goes in after the first ``before`` of them.
        before: Calls before the patch.
        arm64_cflags: Of both for Arm64 besides.
    """

    seed: int
    sources: tuple[str, str]
    cflags: tuple[str, ...]
    ldflags: tuple[str, ...]
    hotpatch: bool
    calls: tuple[tuple[str, int, int, bytes], ...]
    before: int
    arm64_cflags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Array:
    """A global array, writable or constant."""

    name: str
    type: str
    length: int


class Writer:
    """Draws one program."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.scalars: list[str] = []
        self.arrays: list[Array] = []
        self.constants: list[Array] = []
        self.texts: list[tuple[str, int]] = []
        self.records: list[tuple[str, int]] = []
        self.floats: list[str] = []
        self.hooks: list[str] = []
        self.tables: list[tuple[str, int]] = []
        self.inlined: list[str] = []
        self.operations: list[str] = []
        self.data: list[str] = []
        self.functions: list[str] = []
        self.prototypes: list[str] = []
        self.fresh = 0

    def number(self) -> str:
        pick = self.random.random()
        if pick < 0.6:
            return str(self.random.randrange(1, 99))
        return f"{self.random.randrange(1 << 31)}u" if pick < 0.8 else f"0x{self.random.randrange(1 << 63):x}ull"

    def name(self, prefix: str) -> str:
        self.fresh += 1
        return f"{prefix}{self.fresh}"

    # data --------------------------------------------------------------------------------------------------------------------------------

    def values(self, kind: str, length: int) -> str:
        top = min(1 << 8 * TYPES[kind], 1 << 63)
        return ", ".join(f"{self.random.randrange(top)}{'ull' if top > 1 << 31 else ''}" for _ in range(length))

    def draw_data(self) -> None:
        random = self.random
        for _ in range(random.randrange(2, 6)):
            self.scalars.append(self.name("g"))
            self.add_datum(f"{self.storage()}u64 {self.scalars[-1]}{random.choice(('', f' = {self.number()}'))};")
        for _ in range(random.randrange(2, 5)):
            array = Array(self.name("a"), random.choice(list(TYPES)), random.choice((3, 5, 8, 13, 40)))
            self.arrays.append(array)
            filled = f" = {{{self.values(array.type, array.length)}}}" if random.random() < 0.5 else ""
            self.add_datum(f"{self.storage()}{array.type} {array.name}[{array.length}]{filled};")
        for _ in range(random.randrange(1, 4)):
            array = Array(self.name("k"), random.choice(list(TYPES)), random.choice((3, 6, 9, 16)))
            self.constants.append(array)
            old = self.values(array.type, array.length)
            new = self.values(array.type, array.length) if random.random() < 0.2 else old
            self.data.append(f"static const {array.type} {array.name}[{array.length}] = {{{self.either(old, new)}}};")
        for _ in range(random.randrange(1, 3)):
            name, length = self.name("names"), random.randrange(2, 6)
            self.texts.append((name, length))
            words = [random.choice(WORDS) for _ in range(length)]
            old, new = (f'"{word}"' for word in (words[0], random.choice(WORDS) if random.random() < 0.2 else words[0]))
            rest = "".join(f', "{word}"' for word in words[1:])
            self.data.append(f"static const char *const {name}[{length}] = {{{self.either(old, new)}{rest}}};")
        for _ in range(random.randrange(1, 3)):
            self.records.append((self.name("r"), random.choice((1, 2, 5))))
            name, length = self.records[-1]
            self.add_datum(f"{self.storage()}struct record {name}[{length}];")
        for _ in range(random.randrange(0, 2)):
            self.floats.append(self.name("d"))
            self.add_datum(f"{self.storage()}double {self.floats[-1]} = {random.randrange(9)}.5;")

    def storage(self) -> str:
        return self.random.choice(("static ", "static ", ""))

    def add_datum(self, text: str) -> None:
        self.data.append(text)
        name = re.findall(r"(\w+)(?:\[\d+\])?(?: = .*)?;$", text)[0]
        if self.random.random() < 0.6:
            length = re.search(re.escape(name) + r"\[(\d+)\]", text)
            if "record" in text:
                body = f"{name}[x % {length[1] if length else 1}].id ^= x; return {name}[0].id;"
            elif length:
                body = f"{name}[x % {length[1]}] += x; return {name}[x % {length[1]}];"
            elif "double" in text:
                body = f"{name} += (double)(s32)(x & 0xff); return (u64)(s64){name};"
            else:
                body = f"return {name} ^= x;"
            self.functions.append(f"EXPORT NOINLINE u64 touch_{name}(u64 x) {{ {body} }}")

    # expressions and statements ----------------------------------------------------------------------------------------------------------

    def either(self, old: str, new: str) -> str:
        return old if old == new else f"«{old}|{new}»"

    def value(self, depth: int = 0) -> str:
        """Of type u64, of anything in sight."""
        random = self.random
        choices = [lambda: "x", lambda: "y", lambda: "t", self.number]
        if depth < 2:
            choices += [
                lambda: f"({self.value(depth + 1)} {random.choice('+-*^&')} {self.value(depth + 1)})",
                lambda: f"({self.value(depth + 1)} >> {random.randrange(1, 30)})",
                lambda: f"({self.value(depth + 1)} {random.choice(('<', '>', '=='))} {self.value(depth + 1)} ? x : t)",
                lambda: f"({self.value(depth + 1)} {random.choice('/%')} {random.randrange(2, 99)})",
                lambda: random.choice(self.scalars),
                lambda: self.element(random.choice(self.arrays)),
                lambda: self.element(random.choice(self.constants)),
                lambda: self.letter(),
                lambda: self.field(),
            ]
            if self.inlined:
                choices.append(lambda: f"{random.choice(self.inlined)}({self.value(depth + 1)})")
            if self.operations:
                choices.append(lambda: f"{random.choice(self.operations)}({self.value(depth + 1)}, {self.value(depth + 1)})")
            if self.tables:
                choices.append(self.dispatch)
        return random.choice(choices)()

    def element(self, array: Array) -> str:
        index = str(self.random.randrange(array.length)) if self.random.random() < 0.3 else f"{self.random.choice('xyt')} % {array.length}"
        return f"{array.name}[{index}]"

    def letter(self) -> str:
        name, length = self.random.choice(self.texts)
        return f"(u8){name}[{self.random.choice('xyt')} % {length}][{self.random.randrange(2)}]"

    def field(self) -> str:
        name, length = self.random.choice(self.records)
        index = self.random.choice("xy")
        return f"{name}[{index} % {length}].{self.random.choice(FIELDS)}"

    def dispatch(self) -> str:
        name, length = self.random.choice(self.tables)
        return f"{name}[{self.random.choice('xyt')} % {length}](t, y)"

    def target(self) -> str:
        random = self.random
        return random.choice(
            (lambda: random.choice(self.scalars), lambda: self.element(random.choice(self.arrays)), lambda: self.field(), lambda: "t")
        )()

    def statement(self, depth: int = 0) -> str:
        random = self.random
        kinds = ["assign"] * 9 + ["loop", "backwards", "buffer", "if", "switch", "big", "static", "text", "pointer"]
        kinds += ["float"] * bool(self.floats) + ["hook"] * bool(self.hooks)
        if depth > 1:
            kinds = ["assign", "assign", "assign", "buffer"] + ["backwards"] * (random.random() < 0.3)
        match random.choice(kinds):
            case "assign":
                return f"{self.target()} {random.choice(('=', '+=', '^=', '-=', '*='))} {self.value()};"
            case "loop":
                array = random.choice(self.arrays)
                return f"for (u32 i = 0; i < {array.length}; ++i) {{ t += {array.name}[i] ^ i; {self.statement(depth + 2)} }}"
            case "backwards":
                array = random.choice(self.arrays + self.constants)
                effect = f"*p = ({array.type})(*p * 3 + t);" if array in self.arrays and random.random() < 0.7 else "t = t * 5 + *p;"
                const = "" if array in self.arrays else "const "
                name, kind = array.name, array.type
                return random.choice(
                    (
                        f"for ({const}{kind} *p = {name} + {array.length}; p-- > {name};) {effect}",
                        f"for ({const}{kind} *p = {name}, *e = {name} + {array.length}; p != e; ++p) {effect}",
                    )
                )
            case "buffer":
                return f"buffer[{random.choice('xyt')} % {BUFFER}] ^= (u8){self.value(1)};"
            case "if":
                other = f" else {{ {self.statement(depth + 1)} }}" if random.random() < 0.5 else ""
                return f"if ({self.value(1)} % {random.randrange(2, 5)}) {{ {self.statement(depth + 1)} }}{other}"
            case "switch":
                return self.switch(depth)
            case "big":
                return f"{{ struct big b = make({self.value(1)}, y); t += b.a ^ b.b; b.c += t; t ^= total(b); }}"
            case "static":
                name = self.name("kept")
                return f"{{ static u64 {name} = {self.number()}; {name} += {self.value(1)}; t ^= {name}; }}"
            case "text":
                word = random.choice(WORDS) + random.choice(WORDS)
                return f'for (const char *p = "{word}"; *p; ++p) t = t * 31 + (u8)*p;'
            case "pointer":
                name, length = random.choice(self.records)
                uses = "q->id += t; q->inner.low ^= (u32)x; q->tags[t % 3]++; OPAQUE(q)->inner.high++;"
                return f"{{ struct record *q = &{name}[y % {length}]; {uses} }}"
            case "float":
                name = random.choice(self.floats)
                factor = random.choice(("0.5", "0.25", "0.125"))
                return f"{name} = {name} * {factor} + (double)(s32)(t & 0xffff) / {random.randrange(2, 9)}.0; t += (u64)(s64){name};"
            case _:
                name = random.choice(self.hooks)
                one, other = random.choice(self.operations), random.choice(self.operations)
                return f"if (x & {1 << random.randrange(4)}) {name} = t & 1 ? {one} : {other}; t += {name}(t, x);"

    def switch(self, depth: int) -> str:
        random = self.random
        dense = random.random() < 0.7
        count = random.randrange(4, 13) if dense else random.randrange(3, 6)
        labels = list(range(count)) if dense else sorted(random.sample(range(1 << 16), count))
        on = random.choice((f"x % {count}", f"t % {count + 3}", "x")) if dense else "x"
        arms = [f"case {label}: {self.arm(depth)}" for label in labels]
        if random.random() < 0.3:
            arms.append(f"«|case {labels[-1] + 1}: {self.arm(depth, plain=True)}»")
        if random.random() < 0.6:
            arms.append(f"default: {self.arm(depth)}")
        return f"switch ({on}) {{ {' '.join(arms)} }}"

    def arm(self, depth: int, *, plain: bool = False) -> str:
        random = self.random
        if depth == 0 and not plain and random.random() < 0.1:
            return f"{self.switch(1)} break;"
        text = random.choice(
            (
                lambda: f"t += {self.value(2)} * {random.randrange(1 << 20)};",
                lambda: f"t ^= {self.value(1)};",
                lambda: f"{random.choice(self.scalars)} -= t;",
                lambda: f"t = {self.letter()} + t * 7;",
                lambda: f"t = {random.choice(self.operations)}(t, x);" if self.operations else "t = ~t;",
            )
        )()
        return f"{text} break;"

    def changed(self, statement: str) -> str:
        """``statement`` as the base has it, and what became of it."""
        random = self.random
        match random.choice(("number", "insert", "insert", "remove", "replace", "guard")):
            case "number":
                return f"t += {self.either(self.number(), self.number())}; {statement}"
            case "insert":
                return f"{statement} «|{self.novelty()}»"
            case "remove":
                return f"«{statement}|;»" if "«" not in statement and "|" not in statement else statement
            case "replace":
                return f"«{statement}|{plain(self.statement(1))}»" if "«" not in statement and "|" not in statement else statement
            case _:
                return f"«|if (y % 7 == {random.randrange(7)}) return {plain(self.value(1))};» {statement}"

    def novelty(self) -> str:
        """A statement that may bring along what the base has not."""
        random = self.random
        match random.choice(("global", "array", "constant", "text", "helper", "table", "old", "old", "static")):
            case "global":
                name = self.name("new")
                self.data.append(f"«|static u64 {name}{random.choice(('', f' = {self.number()}'))};»")
                return f"{name} += t; t ^= {name};"
            case "array":
                name, kind, length = self.name("new"), random.choice(list(TYPES)), random.choice((4, 7, 20))
                self.data.append(f"«|static {kind} {name}[{length}]{random.choice(('', f' = {{{self.values(kind, length)}}}'))};»")
                return f"{name}[t % {length}] += ({kind})x; for ({kind} *p = {name} + {length}; p-- > {name};) t = t * 3 + *p;"
            case "constant":
                name, kind, length = self.name("newk"), random.choice(list(TYPES)), random.choice((4, 7, 20))
                self.data.append(f"«|static const {kind} {name}[{length}] = {{{self.values(kind, length)}}};»")
                return f"t += {name}[x % {length}];"
            case "text":
                words = ", ".join(f'"{random.choice(WORDS)}"' for _ in range(3))
                name = self.name("newnames")
                self.data.append(f"«|static const char *const {name}[3] = {{{words}}};»")
                return f"t = t * 256 + (u8){name}[y % 3][0];"
            case "helper":
                name = self.name("helper")
                inline = random.choice(("NOINLINE ", "NOINLINE ", ""))
                body = f"u64 t = x + y; {plain(self.target())} += {plain(self.value(1))}; return t ^ {plain(self.value())};"
                self.prototypes.append(f"«|static {inline}u64 {name}(u64 x, u64 y);»")
                self.functions.append(f"«|static {inline}u64 {name}(u64 x, u64 y) {{ {body} }}»")
                return f"t += {name}(x, t);"
            case "table":
                chosen = [random.choice(self.operations) for _ in range(3)] if self.operations else []
                if not chosen:
                    return "t += 3;"
                name = self.name("newops")
                self.data.append(f"«|static operation *const {name}[3] = {{{', '.join(chosen)}}};»")
                return f"t += {name}[y % 3](t, x);"
            case "static":
                name = self.name("newkept")
                return f"{{ static u64 {name} = 5; {name} += x; t ^= {name}; }}"
            case _:
                return plain(self.statement(2))

    # functions ---------------------------------------------------------------------------------------------------------------------------

    def body(self, size: int, chance: float) -> str:
        lines = [self.statement() for _ in range(size)]
        return " ".join(self.changed(line) if self.random.random() < chance else line for line in lines)

    def without_buffer(self, text: str) -> str:
        return re.sub(r"buffer\[[^]]*\]", "t", text)

    def draw_functions(self) -> None:
        random = self.random
        self.functions += [
            "NOINLINE struct big make(u64 x, u64 y) { struct big b = {x + 1, y * 3, x ^ y}; return b; }",
            f"NOINLINE u64 total(struct big b) {{ return b.a + b.b * 2 + b.c * {self.either('3', random.choice(('3', '3', '4')))}; }}",
        ]
        self.prototypes += ["NOINLINE struct big make(u64 x, u64 y);", "NOINLINE u64 total(struct big b);"]
        for _ in range(random.randrange(1, 3)):
            name, changes = self.name("inl"), random.random() < 0.3
            new = f"x * {random.randrange(2, 9)} + {random.choice(self.scalars)}"
            self.prototypes.append(f"ALWAYS_INLINE u64 {name}(u64 x);")
            effect, result = f"{random.choice(self.scalars)} ^= x;", self.either(new, new + " + 1" if changes else new)
            self.functions.append(f"ALWAYS_INLINE u64 {name}(u64 x) {{ {effect} return {result}; }}")
            self.inlined.append(name)
        for _ in range(random.randrange(2, 5)):
            name = self.name("op")
            text = self.without_buffer(self.body(random.randrange(1, 3), 0.15))
            loop = f"if (x % 5) t += {name}(x / 5, y + 1);" if random.random() < 0.3 else ""
            self.prototypes.append(f"NOINLINE u64 {name}(u64 x, u64 y);")
            self.functions.append(f"NOINLINE u64 {name}(u64 x, u64 y) {{ u64 t = x ^ y; {text} {loop} return t; }}")
            self.operations.append(name)
        for _ in range(random.randrange(0, 2)):
            name, length = self.name("ops"), random.randrange(2, 5)
            chosen = [random.choice(self.operations) for _ in range(length)]
            constant = random.choice(("const ", ""))
            self.data.append(f"static operation *{constant}{name}[{length}] = {{{', '.join(chosen)}}};")
            self.tables.append((name, length))
        for _ in range(random.randrange(0, 2)):
            self.hooks.append(self.name("hook"))
            self.data.append(f"static operation *{self.hooks[-1]} = {random.choice(self.operations)};")
        for index in range(CALLED):
            text = self.body(random.randrange(2, 6), 0.25)
            self.functions.append(f"EXPORT NOINLINE u64 f{index}(u64 x, u64 y, u8 *buffer) {{ u64 t = x + y * 3; {text} return t; }}")
            self.prototypes.append(f"EXPORT NOINLINE u64 f{index}(u64 x, u64 y, u8 *buffer);")

    def program(self, seed: int) -> Program:
        random = self.random
        self.draw_data()
        self.draw_functions()
        orders = []
        for items in (self.data, self.functions):
            orders.append([list(items), list(items)])
            if random.random() < 0.3:
                random.shuffle(orders[-1][1])
        texts = ["\n".join((PRELUDE, *self.prototypes, *orders[0][side], *orders[1][side], "")) for side in (0, 1)]
        sources = (_CHOICE.sub(r"\1", texts[0]), _CHOICE.sub(r"\2", texts[1]))
        cflags = (
            random.choice(("-O0", "-O1", "-O2", "-O2", "-Os", "-O3")),
            "-fno-sanitize=undefined",
            "-fno-stack-protector",
            "-Wno-error",
            "-w",
        )
        if random.random() < 0.3:
            cflags += ("-fvectorize", "-fslp-vectorize", "-funroll-loops")
        ldflags = ("/opt:icf",) if random.random() < 0.2 else ()
        calls = []
        touched = re.findall(r"touch_\w+", " ".join(self.functions))
        for _ in range(14):
            name = random.choice(touched) if touched and random.random() < 0.2 else f"f{random.randrange(CALLED)}"
            x = random.choice((random.randrange(14), random.randrange(1 << 16), random.randrange(1 << 63)))
            calls.append((name, x, random.randrange(20), random.randbytes(BUFFER)))
        for index in range(CALLED):
            calls += [(f"f{index}", x, random.randrange(20), random.randbytes(BUFFER)) for x in (index, random.randrange(1 << 30))]
        return Program(seed, sources, cflags, ldflags, random.random() < 0.7, tuple(calls), 10)


def plain(text: str) -> str:
    """Of a piece of text with both versions in it, the new one alone."""
    return _CHOICE.sub(lambda found: found[2], text)
