"""Random programs with more kinds of data and of addresses than :mod:`tests.fuzz.program` draws."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fuzz.program import TYPES, WORDS, Array, Writer, plain

if TYPE_CHECKING:
    from tests.fuzz.program import Program

PRELUDE = """struct node { u64 value; struct node *next; u64 *at; operation *run; };
union cell { u64 whole; u32 half[2]; u16 quarter[4]; u8 bytes[8]; };
struct bits { u32 few : 3; u32 some : 7; u32 more : 22; u64 many : 40; u64 rest : 24; };
NOINLINE u64 add(u64 x, u64 y) { return x + y; }
NOINLINE u64 exchange(u64 x, u64 y) { return x << 7 ^ y; }
NOINLINE u64 spell(const char *p) { u64 t = 7; while (*p) t = t * 31 + (u8)*p++; return t; }
""" + "".join(
    f"NOINLINE u64 back_{kind}(const {kind} *end, u64 n) {{ u64 t = n; while (n--) t = t * 3 + *--end; return t; }}\n"
    f"NOINLINE u64 span_{kind}({kind} *p, {kind} *end) {{ u64 t = 1; while (p != end) t = t * 5 + ++*p++; return t; }}\n"
    f"NOINLINE {kind} *seek_{kind}({kind} *p, const {kind} *end, u64 x) {{ while (p != end && *p != ({kind})x) ++p; return p; }}\n"
    for kind in TYPES
)
LEAVES = ("add", "exchange")
TLS = """__attribute__((section(".tls"))) char _tls_start = 0;
__attribute__((section(".tls$ZZZ"))) char _tls_end = 0;
u32 _tls_index;
const struct { void *start, *end; u32 *index; void *callbacks; u32 zeros, flags; } _tls_used =
    {&_tls_start, &_tls_end, &_tls_index, 0, 0, 0};
"""
"""What the C library would define for thread-local data."""


class Wider(Writer):
    """Draws one program: pointers into, to the end of and between data, unions, bit fields, thread-local data, texts that share tails."""

    def __init__(self, seed: int) -> None:
        """Begin the program of ``seed``."""
        super().__init__(seed)
        self.nodes: list[tuple[str, int]] = []
        self.cells: list[tuple[str, int]] = []
        self.bits: list[tuple[str, int]] = []
        self.grids: list[tuple[str, str, int, int]] = []
        self.edges: list[tuple[str, Array]] = []
        self.inner: list[tuple[str, Array]] = []
        self.reals: list[tuple[str, int]] = []
        self.locals: list[str] = []

    # data --------------------------------------------------------------------------------------------------------------------------------

    def draw_data(self) -> None:
        super().draw_data()
        random = self.random
        for kind in random.sample(
            ("nodes", "cells", "bits", "grid", "edges", "edges", "inner", "zeros", "reals", "thread"), random.randrange(3, 7)
        ):
            length = random.choice((2, 3, 5))
            name = self.name(kind)
            match kind:
                case "nodes":
                    self.nodes.append((name, length))
                case "cells":
                    self.cells.append((name, length))
                    filled = random.choice(("", f" = {{{{{self.number()}}}, {{{self.number()}}}}}"))
                    self.data.append(f"{self.storage()}union cell {name}[{length}]{filled};")
                case "bits":
                    self.bits.append((name, length))
                    self.data.append(f"{self.storage()}struct bits {name}[{length}]{random.choice(('', ' = {{1, 2, 3, 4, 5}}'))};")
                case "grid":
                    self.grids.append((name, random.choice(list(TYPES)), length, random.choice((3, 5, 8))))
                    _, of, _, width = self.grids[-1]
                    self.data.append(
                        f"{self.storage()}{of} {name}[{length}][{width}]{random.choice(('', f' = {{{{{self.values(of, 2)}}}}}'))};"
                    )
                case "edges":
                    array = random.choice(self.arrays)
                    self.edges.append((name, array))
                    self.data.append(f"static {array.type} *const {name}[2] = {{{array.name}, {array.name} + {array.length}}};")
                case "inner":
                    array = random.choice(self.arrays)
                    self.inner.append((name, array))
                    at = random.randrange(array.length)
                    self.data.append(f"{self.storage()}{array.type} *{name} = &{array.name}[{at}];")
                case "zeros":
                    array = Array(name, random.choice(list(TYPES)), random.choice((4, 8)))
                    self.constants.append(array)
                    filled = random.choice(("{0}", f"{{[1] = {random.randrange(99)}}}"))
                    self.data.append(f"static const {array.type} {name}[{array.length}] = {filled};")
                case "reals":
                    self.reals.append((name, length))
                    values = ", ".join(f"{random.randrange(99)}.{random.choice((0, 25, 5))}" for _ in range(length))
                    self.data.append(
                        f"static {random.choice(('const ', ''))}{random.choice(('double', 'float'))} {name}[{length}] = {{{values}}};"
                    )
                case _:
                    self.locals.append(name)
                    self.data.append(f"static __declspec(thread) u64 {name}{random.choice(('', ' = 5'))};")

    def draw_functions(self) -> None:
        super().draw_functions()
        for name, length in self.nodes:
            rows = []
            for at in range(length):
                following = f"&{name}[{self.random.randrange(at + 1, length)}]" if at + 1 < length and self.random.random() < 0.8 else "0"
                rows.append(f"{{{self.number()}, {following}, &{self.random.choice(self.scalars)}, {self.random.choice(LEAVES)}}}")
            self.data.append(f"{self.storage()}struct node {name}[{length}] = {{{', '.join(rows)}}};")
        for name in (*self.scalars, *(array.name for array in self.arrays)):
            whole = next(found for text in self.data if (found := re.match(rf"(static )?(\w+ {name}(?:\[\d+\])?)(?: = |;)", text)))
            self.prototypes.append(f"{whole[1] or 'extern '}{whole[2]};")

    # statements --------------------------------------------------------------------------------------------------------------------------

    def statement(self, depth: int = 0) -> str:
        return self.wider(depth) if self.random.random() < 0.4 else super().statement(depth)

    def wider(self, depth: int) -> str:
        random = self.random
        kinds = [
            "handed",
            "handed",
            "handed constant",
            "seek",
            "span",
            "less",
            "down",
            "tail",
            "tail",
            "copy",
            "records",
            "real",
            "same name",
        ]
        for kind in ("nodes", "cells", "bits", "grids", "edges", "inner", "reals", "locals"):
            kinds += [kind, kind] if getattr(self, kind) else []
        if depth > 1:
            kinds = [kind for kind in kinds if kind not in ("nodes", "grids", "copy", "records")]
        array = random.choice(self.arrays)
        name, of, length = array.name, array.type, array.length
        match random.choice(kinds):
            case "handed":
                return f"t += back_{of}({name} + {length}, {random.randrange(1, length + 1)});"
            case "handed constant":
                one = random.choice(self.constants)
                return f"t ^= back_{one.type}({one.name} + {one.length}, {random.randrange(1, one.length + 1)});"
            case "seek":
                return f"t += seek_{of}({name}, {name} + {length}, x) - {name};"
            case "span":
                first = random.randrange(length)
                return f"t += span_{of}({name} + {first}, {name} + {random.randrange(first, length + 1)});"
            case "less":
                less = random.randrange(1, length)
                return f"if (x % {length} >= {less}) {name}[x % {length} - {less}] += ({of})t;"
            case "down":
                return f"for (u32 i = {length}; i > 0; --i) t = t * 3 + {name}[i - 1];"
            case "tail":
                word = random.choice(WORDS)
                return f't += spell("{random.choice(("", "un", "gamma ", "z"))}{word[random.randrange(len(word)) :]}");'
            case "copy":
                record, count = random.choice(self.records)
                return f"{record}[x % {count}] = {record}[y % {count}]; t += {record}[{count - 1}].tags[2];"
            case "records":
                record, count = random.choice(self.records)
                field = random.choice(("id", "inner.high", "tags[1]"))
                return f"for (struct record *q = {record} + {count}; q-- > {record};) t = t * 3 + q->{field};"
            case "real":
                return f"t += (u64)(s64)((double)(s32)(x & 0xffff) * {random.randrange(99)}.{random.choice((25, 5, 125))});"
            case "same name":
                return f"{{ static u64 again{random.choice(('', ' = 3'))}; again += {self.value(2)}; t ^= again; }}"
            case "nodes":
                node, count = random.choice(self.nodes)
                effect = random.choice(("t += n->value++;", "t ^= *n->at; *n->at += x;", "t += n->run(t, y);"))
                return f"for (struct node *n = &{node}[x % {count}]; n; n = n->next) {{ {effect} }}"
            case "cells":
                cell, count = random.choice(self.cells)
                part = random.choice(("whole", "half[x & 1]", "quarter[y & 3]", "bytes[t & 7]", "half[1]"))
                return f"{cell}[y % {count}].{part} += {self.value(2)}; t ^= {cell}[x % {count}].whole;"
            case "bits":
                field, count = random.choice(self.bits)
                return (
                    f"{field}[x % {count}].{random.choice(('few', 'some', 'more', 'many', 'rest'))} += t; t ^= {field}[{count - 1}].many;"
                )
            case "grids":
                grid, of, rows, width = random.choice(self.grids)
                row = random.randrange(1, rows)
                return random.choice(
                    (
                        f"{grid}[x % {rows}][y % {width}] ^= ({of})t; t += {grid}[y % {rows}][{random.randrange(width)}];",
                        f"for ({of} *p = {grid}[{row}]; p-- > {grid}[{row - 1}];) t = t * 3 + (*p += ({of})x);",
                        f"t += back_{of}({grid}[{rows - 1}] + {width}, {width});",
                    )
                )
            case "edges":
                edge, of = random.choice(self.edges)
                return random.choice(
                    (
                        f"for ({of.type} *p = {edge}[0]; p != {edge}[1]; ++p) t = t * 3 + (*p += ({of.type})y);",
                        f"t += {edge}[1][-1]; {edge}[0][x % {of.length}] ^= ({of.type})x;",
                    )
                )
            case "inner":
                pointer, of = random.choice(self.inner)
                moved = f"if (t & {1 << random.randrange(4)}) {pointer} = &{of.name}[x % {of.length}];"
                return f"{moved} t += *{pointer}; *{pointer} ^= ({of.type})y;"
            case "reals":
                real, count = random.choice(self.reals)
                return f"t += (u64)(s64)({real}[x % {count}] * {random.choice(('2', '0.5', '3.25'))});"
            case _:
                local = random.choice(self.locals)
                return f"{local} += {self.value(2)}; t ^= {local};"

    def novelty(self) -> str:
        random = self.random
        if random.random() < 0.6:
            return super().novelty()
        match random.choice(("edges", "wider", "wider", "wider", "inner", "cells", "zeros")):
            case "edges":
                name, array = self.name("newedges"), random.choice(self.arrays)
                self.data.append(f"«|static {array.type} *const {name}[2] = {{{array.name} + {array.length}, &{array.name}[1]}};»")
                return f"t += {name}[0][-1] + {name}[1][-1];"
            case "inner":
                name, array = self.name("newinner"), random.choice(self.arrays)
                self.data.append(f"«|static {array.type} *{name} = &{array.name}[1];»")
                return f"t += *{name}; {name} = &{array.name}[x % {array.length}];"
            case "cells":
                name = self.name("newcells")
                self.data.append(f"«|static union cell {name}[3];»")
                return f"{name}[x % 3].half[y & 1] += t; t ^= {name}[y % 3].whole;"
            case "zeros":
                name = self.name("newzeros")
                self.data.append(f"«|static const u32 {name}[4];»")
                return f"t += back_u32({name} + 4, 3) + {name}[x % 4];"
            case _:
                return plain(self.wider(2))

    # the whole ---------------------------------------------------------------------------------------------------------------------------

    def program(self, seed: int) -> Program:
        """The program; the state of thread-local data cannot be carried over."""
        whole = super().program(seed)
        anchor = "typedef u64 operation(u64, u64);\n"
        prelude = anchor + PRELUDE + (TLS if self.locals else "")
        texts = (text.replace(anchor, prelude, 1) for text in whole.sources)
        return replace(whole, sources=tuple(texts), before=0 if self.locals else whole.before)
