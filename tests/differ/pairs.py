"""Pairs of builds that differ in one thing, as C sources: ``«old|new»`` stands for what the base and the fixed image have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOICE = re.compile(r"«([^|»]*)\|([^»]*)»")


@dataclass(frozen=True)
class Pair:
    """What to build and what to find.

    Attributes:
        source: With ``«old|new»``.
        changed: Functions with a verdict other than identical or relocated.
        rules: Of the findings, with PDBs.
        rules_without: Of the findings without PDBs, where they are others.
        with_pdb_only: Functions whose verdict is only claimed with PDBs.
        cosmetic: Of the changed functions, those with the note ``cosmetic``, with PDBs; without them where ``cosmetic_without`` says none
            other.
        cautious: Whether, without PDBs, contradicting votes may be found too: which datum is meant hangs on the machine's code.
        build: Lines of the manifest's ``[build.all]``.
    """

    source: str
    changed: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    rules_without: tuple[str, ...] | None = None
    with_pdb_only: tuple[str, ...] = ()
    cosmetic: tuple[str, ...] = ()
    cosmetic_without: tuple[str, ...] | None = None
    cautious: bool = False
    build: str = ""

    def side(self, number: int) -> str:
        """The source of the base (0) or the fixed image (1)."""
        return '#include "common/fixture.h"\n' + _CHOICE.sub(lambda found: found[number + 1], self.source)


_TLS = """
__attribute__((section(".tls"))) char _tls_start = 0;
__attribute__((section(".tls$ZZZ"))) char _tls_end = 0;
u32 _tls_index;
const struct { void *start, *end; u32 *index; void *callbacks; u32 zeros, flags; } _tls_used =
    {&_tls_start, &_tls_end, &_tls_index, 0, 0, 0};
"""
"""What the C library would define for thread-local data; the linker finds the directory by its name."""

_REPORTERS = "".join(
    f"EXPORT NOINLINE u64 f{number}(u64 x) {{ if (x > {number}) return report(__LINE__); return x; }}\n" for number in range(8)
)
_REPORTED = {f"f{number}": "changed" for number in range(8)}
_SIZES = "".join(
    f"EXPORT NOINLINE u64 f{number}(u64 x) {{ return reserve(x, «{64 * number + 64}|{64 * number + 80}») + x; }}\n" for number in range(8)
)
_VARIED = ", ".join(f"«{old}|{new}»" for old, new in ((101, 131), (103, 133), (107, 90), (109, 139), (113, 143), (127, 157), (131, 161)))
_MIXED = "".join(
    f"EXPORT NOINLINE u64 f{number}(u64 x) {{ return report({value}) + x; }}\n" for number, value in enumerate(_VARIED.split(", "))
)

PAIRS: dict[str, Pair] = {
    "line-numbers": Pair(
        "static u64 seen;\nEXPORT NOINLINE u64 report(u64 line) { seen += line; return seen; }\n«|\n\n\n/* more */\n»" + _REPORTERS,
        _REPORTED,
        cosmetic=tuple(_REPORTED),
    ),
    "one-line-number": Pair(
        """
        static u64 seen;
        EXPORT NOINLINE u64 report(u64 line) { seen += line; return seen; }
        «|

        »
        EXPORT NOINLINE u64 f(u64 x) { return x ? report(__LINE__) : 3; }
        """,
        {"f": "changed"},
        cosmetic=("f",),
        cosmetic_without=(),
    ),
    "a-line-number-and-another-number": Pair(
        """
        static u64 seen;
        EXPORT NOINLINE u64 report(u64 line) { seen += line; return seen; }
        «|

        »
        EXPORT NOINLINE u64 f(u64 x) { return x > «64|32» ? report(__LINE__) : 3; }
        EXPORT NOINLINE u64 g(u64 x) { return x + __LINE__; }
        """,
        {"f": "changed", "g": "changed"},
    ),
    "sizes-that-grow-alike-are-no-line-numbers": Pair(
        "static u64 seen;\nEXPORT NOINLINE u64 reserve(u64 x, u64 size) { seen += size * x; return seen; }\n" + _SIZES, _REPORTED
    ),
    "numbers-that-do-not-keep-their-order": Pair(
        "static u64 seen;\nEXPORT NOINLINE u64 report(u64 x) { seen += x; return seen; }\n" + _MIXED,
        {f"f{number}": "changed" for number in range(7)},
    ),
    "texts-of-a-version": Pair(
        """
        EXPORT NOINLINE const char *version(void) { return "codec 1.2.«3|4»"; }
        EXPORT NOINLINE u64 version_number(void) { return 1020«3|4»; }
        EXPORT NOINLINE const char *built(void) { return "«2026-04-09 11:41:38|2026-05-05 10:34:17»"; }
        EXPORT NOINLINE const char *peer(void) { return "«127.0.0.1|10.0.0.1»"; }
        EXPORT NOINLINE const char *form(void) { return "%«5|6».2f of %s"; }
        EXPORT NOINLINE u64 other_number(void) { return 1020«5|6»; }
        """,
        dict.fromkeys(("version", "version_number", "built", "peer", "form", "other_number"), "changed"),
        cosmetic=("built", "version", "version_number"),
    ),
    "nothing-differs": Pair("static u64 n; EXPORT u64 next(void) { return ++n; } EXPORT u64 seen(void) { return n; }"),
    "another-text-of-the-same-length": Pair(
        """
        EXPORT NOINLINE const char *hello(void) { return "«Hallo|Hello», you"; }
        EXPORT NOINLINE const char *bye(void) { return "farewell to you"; }
        """,
        {"hello": "changed"},
    ),
    "a-longer-text-shifts-the-others": Pair(
        """
        EXPORT NOINLINE const char *first(void) { return "one«| and a half and some more text»"; }
        EXPORT NOINLINE const char *second(void) { return "two little words"; }
        EXPORT NOINLINE const char *third(void) { return "and three more"; }
        """,
        {"first": "changed"},
    ),
    "an-entry-of-a-constant-table": Pair(
        """
        static const u32 limits[6] = {1, 2, «3|4», 40, 50, 66};
        static const u32 others[6] = {9, 8, 7, 60, 51, 47};
        EXPORT NOINLINE u32 limit(u32 i) { return limits[i % 6]; }
        EXPORT NOINLINE u32 other(u32 i) { return others[i % 6]; }
        """,
        {"limit": "changed"},
        with_pdb_only=("other",),
    ),
    "a-longer-constant-table": Pair(
        """
        static const u32 limits[] = {1, 2, 3, 40«|, 50, 51, 52, 53»};
        static const u32 others[6] = {9, 8, 7, 60, 51, 47};
        EXPORT NOINLINE const u32 *limit(void) { return limits; }
        EXPORT NOINLINE u32 other(u32 i) { return others[i % 6]; }
        """,
        {"limit": "changed"},
    ),
    "a-constant-table-of-texts": Pair(
        """
        static const char *const names[] = {"zero", "«won|one»", "two"};
        static const char *const units[] = {"m", "kg", "s"};
        EXPORT NOINLINE const char *name(u32 i) { return names[i % 3]; }
        EXPORT NOINLINE const char *unit(u32 i) { return units[i % 3]; }
        """,
        {"name": "changed"},
    ),
    "a-constant-table-of-functions-with-another-entry": Pair(
        """
        EXPORT NOINLINE u64 add(u64 x) { return x + 1; }
        EXPORT NOINLINE u64 twice(u64 x) { return x * 2; }
        EXPORT NOINLINE u64 third(u64 x) { return x / 3; }
        static u64 (*const operations[])(u64) = {add, «twice|third», add};
        EXPORT NOINLINE u64 operate(u32 i, u64 x) { return operations[i % 3](x); }
        """,
        {"operate": "changed"},
    ),
    "a-function-behind-a-constant-table": Pair(
        """
        static NOINLINE u64 add(u64 x) { return x + «1|2»; }
        static NOINLINE u64 twice(u64 x) { return x * 2; }
        static u64 (*const operations[])(u64) = {add, twice, add};
        EXPORT NOINLINE u64 operate(u32 i, u64 x) { return operations[i % 3](x); }
        EXPORT NOINLINE u64 run(u64 x) { return OPAQUE(add(x)) + OPAQUE(twice(x)); }
        """,
        {"add": "changed"},
    ),
    "an-initial-value": Pair(
        """
        static u64 quota = «5|6»;
        EXPORT NOINLINE u64 take(void) { return quota ? quota-- : 0; }
        EXPORT NOINLINE void refill(u64 by) { quota += by; }
        """,
        rules=("data-init",),
    ),
    "source-folders": Pair(
        """
        struct entry { char text[24]; const char *file; };
        static const char file[] = "C:/tmp/build-«13k2ep66|bc7zu607»/src/codec.c";
        static const struct entry entry = {"what it does, at length", file};
        static const struct entry *current = &entry;
        EXPORT NOINLINE const struct entry *get(void) { return current; }
        EXPORT NOINLINE void set(const struct entry *other) { current = other; }
        EXPORT NOINLINE const char *whence(void) { return file; }
        EXPORT NOINLINE const char *script(void) { return "C:/tmp/«one|two»/start.lua"; }
        """,
        {"whence": "changed", "script": "changed"},
        cosmetic=("whence",),
    ),
    "a-live-pointer-to-another-text": Pair(
        """
        static const char *motd = "«old|new» message";
        EXPORT NOINLINE const char *get(void) { return motd; }
        EXPORT NOINLINE void set(const char *text) { motd = text; }
        """,
        rules=("data-init",),
    ),
    "a-live-pointer-to-a-text-that-moved": Pair(
        """
        static const char *motd = "message";
        EXPORT NOINLINE const char *more(void) { return "some text«| and more text than before»"; }
        EXPORT NOINLINE const char *get(void) { return motd; }
        EXPORT NOINLINE void set(const char *text) { motd = text; }
        """,
        {"more": "changed"},
    ),
    "a-global-becomes-constant": Pair(
        """
        «|const» u64 table[3] = {1, 2, 3};
        EXPORT NOINLINE u64 get(u32 i) { return table[i % 3]; }
        «EXPORT NOINLINE void set(u32 i, u64 to) { table[i % 3] = to; }|EXPORT NOINLINE void set(void) { }»
        """,
        {"get": "changed", "set": "changed"},
        rules=("data-layout",),
        rules_without=(),
    ),
    "live-data-of-other-types": Pair(
        """
        struct range { u32 «low|high»; u32 «high|low»; };
        struct pair { «u32 half[2]|u64 whole»; };
        struct row { u32 «a; u32 b|b; u32 a»; u64 c; };
        struct bits { u32 «on : 4; u32 off : 4|off : 4; u32 on : 4»; u32 rest : 24; };
        struct link { u64 key; «struct row *next|u64 next»; };
        typedef struct «old|new» { u32 «x|left»; «u32 y|__INT32_TYPE__ y»; «u32 rest[2]|struct { u32 one, two; } rest»; } renamed;
        enum state { IDLE, BUSY };
        static struct range swapped;
        static struct pair joined;
        static «u64|double» real;
        static struct row many[100];
        static struct bits flags;
        static struct link address;
        static renamed same;
        static volatile «u32|enum state» state;
        static «const|» u32 *volatile list[4];
        struct seen { «u32|__INT32_TYPE__» *«first|begin»; «volatile|» u64 count; union { u64 all; u32 «part[2]|parts[2]»; }; };
        static struct seen seen;
        #define SHOWN(name) EXPORT NOINLINE void *at_##name(void) { return (void *)&name; }
        SHOWN(swapped) SHOWN(joined) SHOWN(real) SHOWN(many) SHOWN(flags) SHOWN(address) SHOWN(same) SHOWN(state) SHOWN(list) SHOWN(seen)
        EXPORT NOINLINE u64 f(u64 x) { return x * «3|5»; }
        """,
        {"f": "changed"},
        rules=("data-layout",),
        rules_without=(),
    ),
    "new-globals-before-the-others": Pair(
        """
        «|static u64 fresh = 9; static u32 newer;»
        static u64 a = 3, b = 4;
        EXPORT NOINLINE u64 sum(void) { return a++ + 2 * b; }
        EXPORT NOINLINE u64 other(void) { return b++ «|+ fresh++ + newer++»; }
        EXPORT NOINLINE u64 third(void) { return a + b; }
        """,
        {"other": "changed"},
    ),
    "another-callee": Pair(
        """
        static NOINLINE u64 add(u64 x) { return x + 1; }
        static NOINLINE u64 sub(u64 x) { return x * 5 - 1; }
        EXPORT NOINLINE u64 one(u64 x) { return OPAQUE(add(x)) * 3; }
        EXPORT NOINLINE u64 two(u64 x) { return OPAQUE(sub(x)) * 7; }
        EXPORT NOINLINE u64 three(u64 x) { return OPAQUE(«add|sub»(x)) * 9; }
        """,
        {"three": "changed"},
    ),
    "another-global": Pair(
        """
        static u64 a, b;
        EXPORT NOINLINE u64 one(u64 x) { return a += x; }
        EXPORT NOINLINE u64 two(u64 x) { return b += 2 * x; }
        EXPORT NOINLINE u64 three(u64 x) { return «a|b» * x; }
        EXPORT NOINLINE void four(void) { a = 7; }
        EXPORT NOINLINE void five(void) { b = 9; }
        """,
        {"three": "changed"},
    ),
    "another-import": Pair(
        """
        __declspec(dllimport) u32 GetCurrentThreadId(void);
        __declspec(dllimport) u32 GetProcessHeap(void);
        EXPORT NOINLINE u32 first(void) { return GetCurrentThreadId() * 3; }
        EXPORT NOINLINE u32 second(void) { return GetProcessHeap() * 5; }
        EXPORT NOINLINE u32 third(void) { return «GetCurrentThreadId|GetProcessHeap»() * 7; }
        """,
        {"third": "changed"},
        build="kernel32 = true",
    ),
    "fields-change-places": Pair(
        """
        struct { u64 «a, b|b, a»; } state;
        EXPORT NOINLINE void start(u64 x) { state.a = x; }
        EXPORT NOINLINE u64 next(void) { return state.a++; }
        EXPORT NOINLINE u64 both(void) { return state.a * 3 - state.b; }
        """,
        {"start": "changed", "next": "changed", "both": "changed"},
        rules=("data-layout",),
        rules_without=(),
        with_pdb_only=("start", "next", "both"),
    ),
    "functions-in-another-order": Pair(
        """
        static u64 state;
        «static NOINLINE u64 a(u64 x) { return x * 3 + state++; }|»
        static NOINLINE u64 b(u64 x) { return (x ^ 0x55) - state; }
        «|static NOINLINE u64 a(u64 x) { return x * 3 + state++; }»
        EXPORT NOINLINE u64 run(u64 x) { return OPAQUE(a(x)) + OPAQUE(b(x)); }
        """,
    ),
    "folded-in-the-base": Pair(
        """
        NOINLINE u64 one(u64 x) { return x * 3 + 1; }
        NOINLINE u64 two(u64 x) { return x * 3 + «1|2»; }
        EXPORT NOINLINE u64 ask_one(u64 x) { return OPAQUE(one(x)) * 5; }
        EXPORT NOINLINE u64 ask_two(u64 x) { return OPAQUE(two(x)) * 7; }
        """,
        {"ask_two": "changed", "two": "added"},
        build='ldflags = ["/opt:icf", "/opt:ref"]',
    ),
    "folded-in-the-fixed-image": Pair(
        """
        NOINLINE u64 one(u64 x) { return x * 3 + 1; }
        NOINLINE u64 two(u64 x) { return x * 3 + «2|1»; }
        EXPORT NOINLINE u64 ask_one(u64 x) { return OPAQUE(one(x)) * 5; }
        EXPORT NOINLINE u64 ask_two(u64 x) { return OPAQUE(two(x)) * 7; }
        """,
        {"two": "changed"},
        build='ldflags = ["/opt:icf", "/opt:ref"]',
        with_pdb_only=("two", "ask_two"),
    ),
    "folded-and-exported": Pair(
        """
        EXPORT NOINLINE u64 one(u64 x) { return x * 3 + 1; }
        EXPORT NOINLINE u64 two(u64 x) { return x * 3 + «1|2»; }
        """,
        {"two": "added"},
        rules=("export-abi",),
        build='ldflags = ["/opt:icf", "/opt:ref"]',
    ),
    "a-new-export": Pair(
        """
        EXPORT NOINLINE u64 a(u64 x) { return x * 3 + 1; }
        «|EXPORT NOINLINE u64 z(u64 x) { return x * 3 + 7; }»
        """,
        {"z": "added"},
    ),
    "a-callee-that-changes-leaves-its-callers": Pair(
        """
        static NOINLINE u64 deep(u64 x) { return x > «4|5» ? x : 0; }
        static NOINLINE u64 middle(u64 x) { return OPAQUE(deep(x)) + 1; }
        EXPORT NOINLINE u64 top(u64 x) { return OPAQUE(middle(x)) * 3; }
        EXPORT NOINLINE u64 beside(u64 x) { return OPAQUE(deep(x)) * 5; }
        """,
        {"deep": "changed"},
    ),
    "the-switch-leads-elsewhere": Pair(
        """
        static NOINLINE u64 a(u64 x) { return x + 11; }
        static NOINLINE u64 b(u64 x) { return x * 22; }
        EXPORT NOINLINE u64 run(u32 op, u64 x)
        {
            switch (op) {
            case 0: return a(x) + 3;
            case 1: return «b|a»(x) + «5|3»;
            case 2: return a(x) ^ 0x700;
            case 3: return b(x) + 9;
            case 4: return «a|b»(x) + «3|5»;
            case 5: return x;
            case 6: return b(x) * 77;
            default: return 0;
            }
        }
        """,
        {"run": "changed"},
    ),
    "a-counter-beside-the-only-user": Pair(
        """
        static u64 «hits;|misses, hits;»
        EXPORT NOINLINE u64 count(u64 x) { «(void)x;|if (x) return ++misses;» return ++hits; }
        """,
        {"count": "changed"},
        rules_without=("contradicting-votes",),
    ),
    "a-counter-before-the-only-user": Pair(
        """
        static u64 «hits = 5;|first = 9, hits = 5;»
        EXPORT NOINLINE u64 count(u64 x) { «|first += x;» hits += x; return hits; }
        """,
        {"count": "changed"},
    ),
    "one-of-two-counters-goes": Pair(
        """
        static u64 «first, |»second;
        EXPORT NOINLINE u64 count(u64 x) { «first += x;|» second ^= x * 3; return second; }
        """,
        {"count": "changed"},
        cautious=True,
    ),
    "the-only-user-changes-its-counter": Pair(
        """
        static u64 «first = 1|second = 2»;
        EXPORT NOINLINE u64 count(u64 x) { return «first|second» += x«| + 1»; }
        """,
        {"count": "changed"},
        rules_without=("data-init",),
    ),
    "an-array-grows-between-others": Pair(
        """
        static u64 before[4] = {1}, table[«4|8»] = {2}, after[4] = {3};
        EXPORT NOINLINE u64 get(u64 i) { return table[i % COUNT(table)]++; }
        EXPORT NOINLINE u64 others(u64 i) { return before[i & 3]++ + after[i & 3]++; }
        """,
        {"get": "changed"},
        rules=("data-layout",),
    ),
    "a-new-array-between-others": Pair(
        """
        static u64 before[4] = {1}, table[4] = {2}, «|fresh[4] = {7}, »after[4] = {3};
        EXPORT NOINLINE u64 get(u64 i) { return table[i & 3]++ «|+ fresh[i & 3]++»; }
        EXPORT NOINLINE u64 others(u64 i) { return before[i & 3]++ + after[i & 3]++ + table[0]; }
        """,
        {"get": "changed"},
    ),
    "a-field-that-the-base-never-reads": Pair(
        """
        struct settings { u64 limit, floor, step; } settings = {100, 10, 1};
        EXPORT NOINLINE u64 check(u64 x) { return x < settings.limit «|&& x > settings.floor»; }
        EXPORT NOINLINE u64 next(u64 x) { return x + settings.step; }
        """,
        {"check": "changed"},
    ),
    "many-counters-and-every-user-changes": Pair(
        """
        static u64 a = 11, b = 22, c = 33, d = 44;
        EXPORT NOINLINE u64 one(u64 x) { return a += x «|+ 1»; }
        EXPORT NOINLINE u64 two(u64 x) { return b -= x «|+ 2»; }
        EXPORT NOINLINE u64 three(u64 x) { return c ^= x «|+ 3»; }
        EXPORT NOINLINE u64 four(u64 x) { return d |= x «|+ 4»; }
        """,
        {"one": "changed", "two": "changed", "three": "changed", "four": "changed"},
    ),
    "thread-local-data-grow": Pair(
        _TLS
        + """
        static __declspec(thread) u64 mine = 5«|, more = 6»;
        EXPORT NOINLINE u64 bump(void) { return ++mine«| + ++more»; }
        EXPORT NOINLINE u64 get(u64 *out) { return *out = mine; }
        """,
        {"bump": "changed"},
        rules=("data-layout",),
    ),
    "thread-local-data-start-otherwise": Pair(
        _TLS
        + """
        static __declspec(thread) u64 mine = «5|6»;
        EXPORT NOINLINE u64 bump(void) { return ++mine; }
        """,
        rules=("data-init",),
    ),
    "thread-local-data-stay": Pair(
        _TLS
        + """
        static __declspec(thread) u64 mine = 5;
        static u64 «calls|fresh = 77, calls»;
        EXPORT NOINLINE u64 bump(void) { return ++mine; }
        EXPORT NOINLINE u64 count(void) { «|fresh++;» return ++calls; }
        EXPORT NOINLINE u64 counted(void) { return calls; }
        """,
        {"count": "changed"},
    ),
}
