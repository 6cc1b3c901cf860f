"""Pairs of builds as C sources (``«old|new»``), each with calls on which the patched base must do what the fixed build does."""

from __future__ import annotations

from dataclasses import dataclass

from hotpatch.arch import Machine
from tests.differ.pairs import Pair

BUILT = "built"
"""No rule."""


@dataclass(frozen=True)
class Trial(Pair):
    """What to build, what to call in this order, and what the builder is expected to make of it.

    Attributes:
        calls: Function and integer arguments.
        travels: The functions that are replaced.
        carried: Kinds of what comes along, with the names that PDBs give (a name in brackets is not claimed);
            ``maybe``: not on every machine;
            ``any``: whatever else comes along.
        imports: Of the patch itself.
        refused: The rule, where the builder refuses (with PDBs).
        refused_on: The machines that ``refused`` is said of; the other reckons the address from another.
        refused_without: The rule, where it refuses without PDBs; :data:`BUILT` where it builds only without.
    """

    calls: tuple[tuple[str, ...], ...] = ()
    travels: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    refused: str | None = None
    refused_on: tuple[Machine, ...] = tuple(Machine)
    refused_without: str | None = None


TRIALS: dict[str, Trial] = {
    "one-of-two-folded-functions": Trial(
        """
        static u64 last;
        static NOINLINE u64 at_home(u64 amount) { last = amount; return amount / 50 + 3; }
        static NOINLINE u64 abroad(u64 amount) { last = amount; return amount / «50|20» + 3; }
        EXPORT NOINLINE u64 f(u64 amount) { return amount + at_home(OPAQUE(amount)); }
        EXPORT NOINLINE u64 g(u64 amount) { return amount * 2 + abroad(OPAQUE(amount)); }
        """,
        build='ldflags = ["/opt:icf"]\ncflags = ["-ffunction-sections"]',
        calls=(("f", 1000), ("g", 1000)),
        travels=("g",),
        carried=("function abroad",),
    ),
    "two-folded-functions-that-become-others": Trial(
        """
        static u64 last, frozen;
        static NOINLINE u64 reads(u64 amount) { «|if (frozen) return 0; »last = amount; return amount / «50 + 3|20»; }
        static NOINLINE u64 writes(u64 amount) { «|if (frozen) return 0; »last = amount; return amount / «50 + 3|30»; }
        static NOINLINE u64 moves(u64 amount) { if (frozen) return 0; last = amount; return amount / 20; }
        static NOINLINE u64 erases(u64 amount) { if (frozen) return 0; last = amount; return amount / 30; }
        EXPORT NOINLINE u64 f(u64 amount) { return reads(OPAQUE(amount)) + 2 * writes(OPAQUE(amount)); }
        EXPORT NOINLINE u64 g(u64 amount) { frozen = amount == 7; return moves(OPAQUE(amount)) + 3 * erases(OPAQUE(amount)); }
        """,
        build='ldflags = ["/opt:icf"]\ncflags = ["-ffunction-sections"]',
        calls=(("f", 1000), ("g", 1000), ("g", 7), ("f", 1000)),
        travels=("f",),
        refused="folded-function",
        refused_without=BUILT,
    ),
    "a-getter-that-becomes-the-same-as-another": Trial(
        """
        typedef u64 (*get)(u64);
        static NOINLINE u64 row(u64 at) { return at >> 32; }
        static NOINLINE u64 column(u64 at) { return «at & 0xffff|at * 3 + 4»; }
        static NOINLINE u64 size(u64 at) { return at * 3 + 4; }
        static struct { const char *name; get get; } members[] = {{"row", row}, {"column", column}, {"size", size}};
        EXPORT NOINLINE u64 f(u64 index, u64 at) { return members[index % 3].get(at); }
        EXPORT NOINLINE void set(u64 index) { members[index % 3].get = row; }
        """,
        build='ldflags = ["/opt:icf"]\ncflags = ["-ffunction-sections"]',
        calls=(("f", 0, 70000), ("f", 1, 70000), ("f", 2, 70000), ("set", 2), ("f", 1, 70001)),
        travels=("column",),
    ),
    "copies-of-what-one-function-became": Trial(
        """
        typedef u64 (*call)(u64);
        static u64 last;
        static NOINLINE u64 once(u64 x) { «|if (x == 7) return 0; »last = x; return x * 3; }
        «|static NOINLINE u64 again(u64 x) { if (x == 7) return 0; last = x; return x * 3; }»
        static NOINLINE u64 other(u64 x) { return last + x; }
        static struct { u64 number; call call; } slots[] = {{17, once}, {23, other}, {29, «once|again»}};
        EXPORT NOINLINE u64 f(u64 index, u64 x) { return slots[index % 3].call(x); }
        EXPORT NOINLINE void set(u64 index) { slots[index % 3].call = other; }
        """,
        calls=(("f", 0, 7), ("f", 1, 1), ("f", 2, 7), ("f", 2, 9), ("f", 1, 2), ("set", 0), ("f", 0, 1)),
        travels=("once",),
        refused="data-init",
        refused_without=BUILT,
    ),
    "a-getter-that-was-a-callback-too-and-becomes-the-same-as-another": Trial(
        """
        typedef u64 (*get)(u64);
        static NOINLINE u64 row(u64 at) { return at >> 32; }
        static NOINLINE u64 column(u64 at) { return «at & 0xffff|at * 3 + 4»; }
        static NOINLINE u64 size(u64 at) { return at * 3 + 4; }
        static NOINLINE u64 other(u64 at) { return «at & 0xffff|at * 7 + 9»; }
        static NOINLINE u64 third(u64 at) { return at * 7 + 9; }
        static struct { const char *name; get get; } members[] = {{"row", row}, {"column", column}, {"size", size}};
        static get callback;
        EXPORT NOINLINE u64 f(u64 index, u64 at) { return members[index % 3].get(at); }
        EXPORT NOINLINE void set(u64 index) { members[index % 3].get = row; }
        EXPORT NOINLINE u64 direct(u64 x) { return third(OPAQUE(x)) + 1; }
        EXPORT NOINLINE void start(u64 x) { callback = x == 9 ? row : other; }
        EXPORT NOINLINE u64 calls(u64 x) { return callback(x) + 11; }
        """,
        build='ldflags = ["/opt:icf"]\ncflags = ["-ffunction-sections"]',
        refused="folded-function",
        refused_without="data-init",
    ),
    "copies-that-code-tells-apart": Trial(
        """
        typedef u64 (*call)(u64);
        static u64 last;
        static NOINLINE u64 once(u64 x) { «|if (x == 7) return 0; »last = x; return x * 3; }
        «|static NOINLINE u64 again(u64 x) { if (x == 7) return 0; last = x; return x * 3; }»
        static NOINLINE u64 other(u64 x) { return last + x; }
        static struct { u64 number; call call; } slots[] = {{17, once}, {23, other}, {29, «once|again»}};
        EXPORT NOINLINE u64 f(u64 index, u64 x) { return slots[index % 3].call(x); }
        EXPORT NOINLINE u64 is(u64 index) { return slots[index % 3].call == «once|again» ? 5 : 6; }
        EXPORT NOINLINE void set(u64 index) { slots[index % 3].call = other; }
        """,
        refused="data-init",
    ),
    "an-end-of-live-data-where-the-next-section-begins": Trial(
        """
        #define IN(name) __attribute__((section(name)))
        IN(".first") static u32 table[1024] = {1, 2, 3};
        «IN(".first") static u32 gone = 7;|»
        IN(".second") static u32 other[1024] = {5, 6};
        EXPORT NOINLINE u32 sum(const volatile u32 *at, const volatile u32 *end) { u32 n = 0; while (at != end) n += *at++; return n; }
        EXPORT NOINLINE u32 g(u32 n) { return other[n & 1023] += n; }
        EXPORT NOINLINE u32 h(u32 n) { return table[n & 1023] += n; }
        EXPORT NOINLINE u32 k(u32 n) { return «gone += n|n * 3»; }
        EXPORT NOINLINE u32 f(u32 n) { return sum(table, table + 1024) * (n + «3|5»); }
        """,
        calls=(("g", 2), ("f", 1), ("k", 5), ("f", 2)),
        travels=("f", "k"),
        refused="unresolved-reference",
        refused_on=(Machine.X64,),
    ),
    "line-numbers-do-not-travel": Trial(
        """
        static u64 seen;
        EXPORT NOINLINE u64 report(u64 line) { seen += line; return seen; }
        EXPORT NOINLINE u64 f(u64 x) { return x * «3|5»; }
        «|


        »
        """
        + "".join(f"EXPORT NOINLINE u64 f{at}(u64 x) {{ return x > {at} ? report(__LINE__) : x; }}\n" for at in range(8)),
        calls=(("f", 7), ("f3", 2)),
        travels=("f",),
    ),
    "a-text-of-live-data-that-nothing-travelling-uses": Trial(
        """
        static const char *volatile label = "«an old|a new» name";
        EXPORT NOINLINE const char *name(void) { return label; }
        EXPORT NOINLINE u64 f(u64 x) { return x * «3|5»; }
        """,
        calls=(("f", 7),),
        travels=("f",),
    ),
    "a-text-of-live-data-that-travelling-code-uses": Trial(
        """
        static const char *volatile label = "«an old|a new» name";
        EXPORT NOINLINE const char *name(void) { return label; }
        EXPORT NOINLINE u64 f(u64 x) { return x * «3|5» + label[0]; }
        """,
        refused="data-init",
    ),
    "one-number": Trial(
        "EXPORT NOINLINE u64 f(u64 x) { return x * «3|5»; }",
        calls=(("f", 7), ("f", 0)),
        travels=("f",),
    ),
    "new-import": Trial(
        """
        #include "common/kernel32.h"
        EXPORT NOINLINE u64 f(u64 x) { «|x += GetCurrentThreadId();» return x + 1; }
        EXPORT NOINLINE u64 g(u64 x) { Sleep((u32)x); return x; }
        """,
        build="kernel32 = true",
        calls=(("f", 7), ("g", 3)),
        travels=("f",),
        carried=("import GetCurrentThreadId",),
        imports=("GetCurrentThreadId",),
    ),
    "known-import": Trial(
        """
        #include "common/kernel32.h"
        EXPORT NOINLINE u64 f(u64 x) { «|x += GetCurrentThreadId();» return x + 1; }
        EXPORT NOINLINE u64 g(u64 x) { return x + GetCurrentThreadId(); }
        """,
        build="kernel32 = true",
        calls=(("f", 7), ("g", 3)),
        travels=("f",),
    ),
    "new-table-of-functions-old-and-new": Trial(
        """
        typedef u64 operation(u64);
        EXPORT NOINLINE u64 twice(u64 x) { return x * 2; }
        EXPORT NOINLINE u64 half(u64 x) { return x / 2; }
        «|static NOINLINE u64 plus_nine(u64 x) { return x + 9; }»
        «|static operation *const table[] = {twice, plus_nine, half};»
        EXPORT NOINLINE u64 f(u64 i, u64 x) { return «twice(x) + i|table[i % 3](x)»; }
        """,
        calls=tuple(("f", i, 100) for i in range(4)),
        travels=("f",),
        carried=("constant table", "function plus_nine"),
    ),
    "new-data-that-points-at-live-data": Trial(
        """
        static u64 hits = 5, misses = 6;
        EXPORT NOINLINE u64 *look(u64 i) { return i ? &hits : &misses; }
        EXPORT NOINLINE u64 count(u64 i) { return i ? ++hits : ++misses; }
        «|static u64 *which[2] = {&misses, &hits}; static u64 rounds = 40;»
        EXPORT NOINLINE u64 f(u64 i) { «return *look(i)|which[i & 1] = &hits; ++rounds; return rounds * 1000 + *which[~i & 1]»; }
        """,
        calls=(("count", 0), ("f", 0), ("f", 1), ("count", 1), ("f", 1), ("f", 0), ("count", 0)),
        travels=("f",),
        carried=("data which", "data rounds"),
        refused_without="unresolved-reference",
    ),
    "zeroed-data-of-many-bytes": Trial(
        """
        static u64 total;
        EXPORT NOINLINE u64 sum(u64 x) { return total += x; }
        «|static u64 seen[4000]; static u32 initial[3] = {1, 2, 3};»
        EXPORT NOINLINE u64 f(u64 i) { «return sum(i)|return sum(i) + seen[i % 4000]++ + initial[i % 3]++»; }
        """,
        calls=(("f", 3), ("f", 3), ("f", 4003), ("f", 5), ("sum", 1)),
        travels=("f",),
        carried=("data seen", "data initial"),
    ),
    "switch-with-new-cases": Trial(
        """
        static u64 state = 1;
        EXPORT NOINLINE u64 f(u64 op, u64 x)
        {
            switch (op) {
            case 0: state += x; break;
            case 1: state *= x; break;
            case 2: state ^= x; break;
            case 3: state -= x; break;
            case 4: state = x; break;
            case 5: state = ~x; break;
            case 6: state <<= x & 7; break;
            «|case 7: state >>= x & 7; break; case 8: state = state * 31 + x; break;»
            default: return 99;
            }
            return state;
        }
        """,
        calls=tuple(("f", op, 3) for op in (0, 1, 8, 2, 3, 4, 7, 5, 6, 8, 7, 0)),
        travels=("f",),
        carried=("maybe constant table",),
    ),
    "switch-on-a-remainder-before-pointers-and-another-switch": Trial(
        """
        EXPORT NOINLINE u64 f(u64 x)
        {
            u64 t = x;
            switch (x % 11) {
            case 0: t += 11111111111; break;
            case 1: t ^= x << 3; break;
            case 2: t *= 77; break;
            case 3: t -= x * x; break;
            case 4: t = x / 3; break;
            case 5: t |= 0x1234567890; break;
            case 6: t = ~x * 9; break;
            case 7: t = x * x * x; break;
            case 8: t ^= x >> 5; break;
            case 9: t = x / 7; break;
            case 10: t = x - (x >> 9); break;
            }
            «| static const char *const more[3] = {"zz", "abc", "q"}; t = t * 256 + (u8)more[x % 3][0];»
            return t;
        }
        EXPORT NOINLINE u64 g(u64 x)
        {
            u64 t = x;
            switch (x % 9) {
            case 0: t += 3; break;
            case 1: t ^= 5; break;
            case 2: t *= 7; break;
            case 3: t -= 9; break;
            case 4: t = 11; break;
            case 5: t |= 13; break;
            case 6: t = ~t; break;
            case 7: t = t * t; break;
            case 8: t ^= t >> 5; break;
            }
            return t;
        }
        """,
        calls=(*(("f", x) for x in range(11)), *(("g", x) for x in range(9))),
        travels=("f",),
        carried=("any more",),
    ),
    "both-of-two-that-call-each-other": Trial(
        """
        EXPORT NOINLINE u64 odd(u64 n);
        EXPORT NOINLINE u64 even(u64 n) { return n == 0 ? «1|11» : OPAQUE(odd(n - 1)); }
        EXPORT NOINLINE u64 odd(u64 n) { return n == 0 ? «0|10» : OPAQUE(even(n - 1)); }
        """,
        calls=tuple((name, n) for name in ("odd", "even") for n in (0, 1, 2, 9)),
        travels=("even", "odd"),
    ),
    "calls-itself": Trial(
        "EXPORT NOINLINE u64 f(u64 n) { return n < 2 ? «1|2» : OPAQUE(f(n - 1)) + OPAQUE(f(n - 2)); }",
        calls=(("f", 1), ("f", 9)),
        travels=("f",),
    ),
    "address-of-itself": Trial(
        """
        EXPORT NOINLINE u64 f(u64 x);
        static u64 (*kept)(u64);
        EXPORT NOINLINE u64 same(void) { return kept == f; }
        EXPORT NOINLINE u64 f(u64 x) { kept = f; return x + «1|2»; }
        """,
        calls=(("same",), ("f", 5), ("same",)),
        travels=("f",),
    ),
    "before-the-first-element": Trial(
        """
        static u64 table[8] = {1, 2, 3, 4, 5, 6, 7, 8}, other[4] = {9, 9, 9, 9};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return table[i & 7] = x; }
        EXPORT NOINLINE u64 sum(u64 i) { return other[i & 3]; }
        EXPORT NOINLINE u64 f(u64 i) { u64 s = 0; for (u64 k = 1; k <= (i & 7); ++k) s += table[k - 1] «|* 3»; return s; }
        """,
        calls=(("f", 3), ("set", 1, 40), ("f", 7)),
        travels=("f",),
    ),
    "floating-point-constants": Trial(
        """
        int _fltused = 0;
        EXPORT NOINLINE u64 f(u64 x) { double d = (double)(s64)x; return (u64)(s64)(d * «1.5|2.25» + 3.125); }
        EXPORT NOINLINE u64 g(u64 x) { double d = (double)(s64)x; return (u64)(s64)(d * 7.5 - 3.125); }
        """,
        calls=(("f", 10), ("g", 10)),
        travels=("f",),
        carried=("maybe constant real",),
    ),
    "image-base": Trial(
        """
        extern char __ImageBase;
        static u32 cells[4] = {1, 2, 3, 4};
        EXPORT NOINLINE u64 offset(void) { return (u64)((char *)cells - &__ImageBase); }
        EXPORT NOINLINE u64 f(u64 i) { return ++cells[i & 3] + «0|7» + (*(u16 *)&__ImageBase == 0x5a4d); }
        """,
        calls=(("f", 1), ("f", 1), ("offset",)),
        travels=("f",),
    ),
    "thread-local": Trial(
        """
        u32 _tls_index = 3;
        __declspec(allocate(".tls")) char _tls_start = 0;
        __declspec(thread) u64 mine = 5;
        EXPORT NOINLINE u64 get(void) { return mine; }
        EXPORT NOINLINE u64 f(u64 x) { return mine += x «|* 2»; }
        """,
        calls=(("f", 1), ("get",), ("f", 10), ("get",)),
        travels=("f",),
    ),
    "exception-handler": Trial(
        """
        static u64 filtered;
        EXPORT NOINLINE s32 __C_specific_handler(void *a, void *b, void *c, void *d) { (void)a; (void)b; (void)c; (void)d; return 1; }
        EXPORT NOINLINE u64 risky(u64 x) { return x / 3; }
        EXPORT NOINLINE u64 f(u64 x)
        {
            u64 r = 0;
            __try { r = risky(x) «|+ 4»; } __except (++filtered, 1) { r = 77; }
            return r;
        }
        """,
        build='cflags = ["-Wno-language-extension-token", "-fms-extensions", "-Wno-unused-command-line-argument"]',
        calls=(("f", 30), ("f", 31)),
        travels=("f",),
        carried=("function [filter]",),
    ),
    "large-frame-with-a-cookie": Trial(
        """
        u64 __security_cookie = 0x2b992ddfa232;
        static u64 checks;
        EXPORT NOINLINE __attribute__((no_stack_protector)) u64 __security_check_cookie(u64 x)
        { checks += x == __security_cookie; return x; }
        EXPORT NOINLINE u64 checked(void) { return checks; }
        EXPORT NOINLINE u64 use(u64 *p, u64 n) { u64 s = 0; for (u64 i = 0; i < n; ++i) s += p[i] * i; return s; }
        EXPORT NOINLINE u64 f(u64 x) { u64 a[60]; for (u64 i = 0; i < 60; ++i) a[i] = x «+|^» i; return use(a, 60); }
        """,
        build='cflags = ["-fstack-protector-all"]',
        calls=(("f", 30), ("checked",), ("f", 31)),
        travels=("f",),
    ),
    "new-helpers-that-need-more": Trial(
        """
        static u64 live = 3;
        EXPORT NOINLINE u64 bump(u64 x) { return live += x; }
        «|static u64 fresh = 8;
        static const u32 weights[5] = {3, 1, 4, 1, 5};
        static NOINLINE u64 inner(u64 x) { return OPAQUE(bump(x)) + fresh++ + weights[x % 5]; }
        static NOINLINE u64 outer(u64 x) { return OPAQUE(inner(x)) * 2 + live; }»
        EXPORT NOINLINE u64 f(u64 x) { return «bump(x)|OPAQUE(outer(x)) + OPAQUE(inner(1))»; }
        """,
        calls=(("f", 2), ("bump", 1), ("f", 7), ("bump", 0)),
        travels=("f",),
        carried=("function outer", "function inner", "data fresh", "constant weights"),
    ),
    "removed-function-left-its-counter": Trial(
        """
        static u64 a = 1;
        EXPORT NOINLINE u64 f(u64 x);
        «static u64 n = 100; static NOINLINE u64 step(u64 x) { n += OPAQUE(x); return n; }|static u64 m = 100;»
        EXPORT NOINLINE u64 f(u64 x) { return «OPAQUE(step(x)) * 2 + a|(m += OPAQUE(x)) * 3 + a»; }
        EXPORT NOINLINE u64 g(u64 x) { return a += x; }
        """,
        calls=(),
        travels=("f",),
        carried=("data m",),
        refused_without="unresolved-reference",
    ),
    "longer-table-of-texts": Trial(
        """
        static const char *const messages[] = {"ok", "truncated", "not a picture", "wrong sum"«|, "no area", "no colour"»};
        EXPORT NOINLINE u64 f(u64 i)
        { const char *s = i < COUNT(messages) ? messages[i] : "?"; u64 h = 0; while (*s) h = h * 31 + (u8)*s++; return h; }
        """,
        calls=tuple(("f", i) for i in range(7)),
        travels=("f",),
        carried=("any messages",),
    ),
    "longer-table-of-numbers": Trial(
        """
        static const u32 limits[] = {10, 20, 30, 40«|, 50, 60, 70, 80»};
        static const u32 others[] = {9, 8, 7, 6, 5, 4, 3, 2};
        EXPORT NOINLINE u64 f(u64 i) { return i < COUNT(limits) ? limits[i] : 1; }
        EXPORT NOINLINE u64 g(u64 i) { return others[i & 7]; }
        """,
        calls=(*(("f", i) for i in range(9)), ("g", 1)),
        travels=("f",),
        carried=("any limits",),
    ),
    "table-of-distances": Trial(
        """
        static const char red[] = "red", green[] = "green", blue[] = "blue", white[] = "«white|rather white»",
            black[] = "black", none[] = "none";
        static NOINLINE const char *colour(u32 i)
        {
            switch (i) {
            case 0: return red; case 1: return green; case 2: return blue; case 3: return white; case 4: return black; default: return none;
            }
        }
        EXPORT NOINLINE u64 f(u64 i) { const char *s = OPAQUE(colour((u32)i)); u64 h = 0; while (*s) h = h * 31 + (u8)*s++; return h; }
        """,
        calls=tuple(("f", i) for i in range(7)),
        travels=("colour",),
        carried=("any white",),
    ),
    "texts-shared-and-new": Trial(
        """
        EXPORT NOINLINE const char *name(u64 i) { return i ? "alpha" : "omega"; }
        EXPORT NOINLINE u64 f(u64 i) { const char *s = «i ? "alpha" : "omega"|i == 2 ? "gamma ray" : i ? "alpha" : "omega"»;
          u64 h = 0; while (*s) h = h * 31 + (u8)*s++; return h; }
        """,
        calls=(("f", 0), ("f", 1), ("f", 2)),
        travels=("f",),
        carried=("constant [text]",),
    ),
    "another-element-of-an-array": Trial(
        """
        static u32 before[4], table[16], after[4];
        EXPORT NOINLINE u64 b(u64 i) { return before[i & 3]++; }
        EXPORT NOINLINE u64 set(u64 i) { return table[i & 15] = (u32)i * 11; }
        EXPORT NOINLINE u64 get(u64 i) { return table[i & 15]; }
        EXPORT NOINLINE u64 a(u64 i) { return after[i & 3]++; }
        EXPORT NOINLINE u64 f(u64 i) { return table[«5|6»] + i * «3|5»; }
        """,
        calls=(("set", 5), ("set", 6), ("f", 1), ("get", 5), ("get", 6)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "two-statements-that-changed-places-with-their-data": Trial(
        """
        static u64 before, one[4], other[4], after;
        EXPORT NOINLINE u64 b(u64 x) { return before += x; }
        EXPORT NOINLINE u64 f(u64 x) {
            «other[x & 3] ^= x * 3; one[x & 3] += x;|one[x & 3] += x; other[x & 3] ^= x * 3;»
            return x * «3|5»;
        }
        EXPORT NOINLINE u64 a(u64 x) { return after += x; }
        """,
        refused="unresolved-reference",
    ),
    "two-calls-that-changed-places-with-what-they-get": Trial(
        """
        static u64 before, one, other, after;
        EXPORT NOINLINE void count(volatile u64 *at) { *at += 3; }
        EXPORT NOINLINE void mark(volatile u64 *at, u64 x) { *at ^= x; }
        EXPORT NOINLINE u64 b(u64 x) { return before += x; }
        EXPORT NOINLINE u64 f(u64 x) { «mark(&one, x); count(&other);|count(&other); mark(&one, x);» return x * «3|5»; }
        EXPORT NOINLINE u64 a(u64 x) { return after += x; }
        """,
        refused="unresolved-reference",
    ),
    "another-element-and-nothing-else": Trial(
        """
        static u64 before, table[16], after;
        EXPORT NOINLINE u64 b(u64 i) { return before += i; }
        EXPORT NOINLINE u64 set(u64 i) { return table[i & 15] = i * 11; }
        EXPORT NOINLINE u64 get(u64 i) { return table[i & 15]; }
        EXPORT NOINLINE u64 f(u64 i) { return table[«5|6»] += i; }
        EXPORT NOINLINE u64 a(u64 i) { return after += i; }
        """,
        calls=(("set", 5), ("set", 6), ("f", 1), ("get", 5), ("get", 6)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "another-member-and-nothing-else": Trial(
        """
        static struct { u64 in, limit_in, limit_out, out; } c;
        EXPORT NOINLINE u64 all(u64 x) { u64 *p = (u64 *)&c; for (u64 i = 0; i < 4; ++i) x = x * 3 + (p[i] += x); return x; }
        EXPORT NOINLINE u64 f(u64 x) { return x > c.«limit_in|limit_out» ? c.out++ : x; }
        """,
        calls=(("all", 1), ("f", 10), ("f", 100), ("all", 5)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "one-of-two-users-of-a-datum-uses-a-new-one": Trial(
        """
        static u64 before, shared, after«|, fresh»;
        EXPORT NOINLINE u64 b(u64 i) { return before += i; }
        EXPORT NOINLINE u64 f(u64 i) { shared += i * 3; return shared «|+ 2»; }
        EXPORT NOINLINE u64 g(u64 i) { «shared|fresh» ^= i * 8; return i; }
        EXPORT NOINLINE u64 a(u64 i) { return after += i; }
        """,
        calls=(("f", 5), ("g", 1), ("f", 1)),
        travels=("f", "g"),
        carried=("data fresh",),
        refused_without="unresolved-reference",
    ),
    "a-new-counter-behind-another": Trial(
        """
        static u64 sold«|, cheap»;
        EXPORT NOINLINE u64 f(u64 x) {
            __atomic_fetch_add(&sold, x, __ATOMIC_SEQ_CST);
            «|if (x > 9) __atomic_fetch_add(&cheap, 1, __ATOMIC_SEQ_CST);»
            return x * «3|5»;
        }
        """,
        calls=(("f", 7), ("f", 10)),
        travels=("f",),
        carried=("data cheap",),
    ),
    "a-new-counter-before-another": Trial(
        """
        static u64 sold;
        «|static u64 cheap = 1;»
        EXPORT NOINLINE u64 f(u64 x) {
            __atomic_fetch_add(&sold, x, __ATOMIC_SEQ_CST);
            «|if (x > 9) __atomic_fetch_add(&cheap, 1, __ATOMIC_SEQ_CST);»
            return x * «3|5»;
        }
        """,
        calls=(("f", 7), ("f", 10)),
        travels=("f",),
        carried=("data cheap",),
    ),
    "end-of-an-array-before-padding": Trial(
        """
        static u16 cells[5] = {1, 2, 3, 4, 5};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 5] = (u16)x; }
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 5]; }
        EXPORT NOINLINE u64 f(u64 x)
        { «|for (u16 *p = cells + 5; p-- > cells;) *p = (u16)(*p + x);» return x + cells[x % 5]; }
        """,
        build='cflags = ["-Os"]',
        calls=(("set", 2, 5), ("f", 1), ("get", 2)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "end-of-an-array-where-a-new-one-begins": Trial(
        """
        static u64 cells[4] = {1, 2, 3, 4};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 4] = x; }
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 4]; }
        «|static u64 fresh[4] = {9, 8, 7, 6}; EXPORT NOINLINE u64 next(u64 i) { return fresh[i % 4]++; }»
        static u64 others[4] = {5, 6, 7};
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        EXPORT NOINLINE u64 f(u64 x)
        { u64 t = x; «|t += next(x); for (u64 *p = cells + 4; p-- > cells;) *p = *p * 3 + t;» return t + cells[x % 4] + others[x % 4]; }
        """,
        build='cflags = ["-Os"]',
        refused="unresolved-reference",
        refused_without="unresolved-reference",
    ),
    "later-elements-that-only-new-code-uses": Trial(
        """
        static u32 cells[40];
        EXPORT NOINLINE u64 set(u64 i, u64 x) { cells[i % 40] = (u32)x; return x; }
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 40]; }
        EXPORT NOINLINE u64 f(u64 x) { return x + 1 «|+ cells[20]++ + cells[21]++»; }
        """,
        calls=(("set", 20, 50), ("f", 1), ("f", 1)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "end-of-a-small-array-where-live-data-begin": Trial(
        """
        static u16 cells[3] = {1, 2, 3};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 3] = (u16)x; }
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 3]; }
        «|static u16 fresh[4] = {9, 8, 7, 6};»
        static u64 others[4] = {5, 6, 7};
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        EXPORT NOINLINE u64 f(u64 x)
        { u64 t = x; «|fresh[t % 4] += x; for (u16 *p = fresh + 4; p-- > fresh;) t = t * 3 + *p;» return t + others[x % 4]; }
        """,
        build='cflags = ["-Os"]',
        refused="unresolved-reference",
        refused_without="unresolved-reference",
    ),
    "a-new-text-that-ends-as-another": Trial(
        """
        EXPORT NOINLINE u64 sum(const char *p) { u64 t = 0; while (*p) t = t * 31 + (u8)*p++; return t; }
        EXPORT NOINLINE u64 f(u64 x) { return x «|+ sum("lambda and then kappa")»; }
        EXPORT NOINLINE u64 g(u64 x) { return x «|+ sum("kappa")»; }
        """,
        calls=(("f", 1), ("g", 2)),
        travels=("f", "g"),
        carried=("any [text]",),
    ),
    "a-part-of-a-struct-that-only-new-code-uses-where-the-base-has-another-datum": Trial(
        """
        struct record { u64 id, other, more; };
        static struct record kept;
        static u64 cell, behind;
        EXPORT NOINLINE u64 next(u64 x) { return kept.id += x; }
        «EXPORT NOINLINE u64 set(u64 x) { return cell = x; }|»
        EXPORT NOINLINE u64 last(u64 x) { return behind += x; }
        «|EXPORT NOINLINE u64 set(u64 x) { return cell = x; }»
        EXPORT NOINLINE u64 get(u64 x) { return cell + x; }
        EXPORT NOINLINE u64 f(u64 x) { «|kept.more += x;» return x + kept.id «|+ kept.more»; }
        """,
        calls=(("set", 50), ("next", 9), ("f", 3), ("f", 4), ("get", 0)),
        travels=("f",),
        carried=("data [part]",),
    ),
    "a-new-datum-in-the-place-of-one-that-moved": Trial(
        """
        static u64 first = 1, cell = 2, behind = 3;
        EXPORT NOINLINE u64 next(u64 x) { return first += x; }
        «EXPORT NOINLINE u64 set(u64 x) { return cell = x; }|EXPORT NOINLINE u64 f(u64 x) { static u64 fresh = 5; return fresh += x; }»
        EXPORT NOINLINE u64 last(u64 x) { return behind += x; }
        «EXPORT NOINLINE u64 f(u64 x) { return x; }|EXPORT NOINLINE u64 set(u64 x) { return cell = x; }»
        EXPORT NOINLINE u64 get(u64 x) { return cell + x; }
        """,
        calls=(("set", 50), ("next", 9), ("f", 3), ("f", 4), ("get", 0), ("last", 6)),
        travels=("f",),
        carried=("data fresh",),
    ),
    "the-end-of-an-array-is-handed-on-where-another-begins": Trial(
        """
        static u64 cells[4] = {1, 2, 3, 4}, others[4] = {5, 6, 7}, spare[4] = {8, 9};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 4] = x; }
        «EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }|»
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        «|EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }»
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 4] * 3 + others[i % 4] * 7 + spare[i % 4]; }
        EXPORT NOINLINE u64 last(const u64 *p) { return p[-1]; }
        EXPORT NOINLINE u64 f(u64 x) { return «x|x * 3» + last(cells + 4); }
        """,
        calls=(("set", 3, 50), ("put", 3, 60), ("f", 1)),
        travels=("f",),
    ),
    "the-end-of-an-array-before-a-gap-is-handed-on": Trial(
        """
        static u8 cells[5] = {1, 2, 3, 4, 5};
        static u64 others[4] = {5, 6, 7}, spare[4] = {8, 9};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 5] = (u8)x; }
        «EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }|»
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        «|EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }»
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 5] * 3 + others[i % 4] * 7 + spare[i % 4]; }
        EXPORT NOINLINE u64 last(const u8 *p) { return p[-1]; }
        EXPORT NOINLINE u64 f(u64 x) { return «x|x * 3» + last(cells + 5) + others[x % 4]; }
        """,
        calls=(("set", 4, 50), ("put", 3, 60), ("f", 1)),
        travels=("f",),
    ),
    "the-end-of-an-array-is-handed-on-by-new-code-where-another-begins": Trial(
        """
        static u64 cells[4] = {1, 2, 3, 4}, others[4] = {5, 6, 7}, spare[4] = {8, 9};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 4] = x; }
        «EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }|»
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        «|EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }»
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 4] * 3 + others[i % 4] * 7 + spare[i % 4]; }
        EXPORT NOINLINE u64 last(const u64 *p) { return p[-1]; }
        EXPORT NOINLINE u64 f(u64 x) { return x «|+ last(cells + 4)»; }
        """,
        refused="unresolved-reference",
    ),
    "a-new-pointer-to-the-end-of-an-array-where-another-begins": Trial(
        """
        static u64 cells[4] = {1, 2, 3, 4}, others[4] = {5, 6, 7}, spare[4] = {8, 9};
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 4] = x; }
        «EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }|»
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return others[i % 4] = x; }
        «|EXPORT NOINLINE u64 keep(u64 i, u64 x) { return spare[i % 4] = x; }»
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 4] * 3 + others[i % 4] * 7 + spare[i % 4]; }
        EXPORT NOINLINE u64 last(const u64 *p) { return p[-1]; }
        «|static u64 *const ends[2] = {cells + 4, cells + 1};»
        EXPORT NOINLINE u64 f(u64 x) { return x «|+ last(ends[x % 2])»; }
        """,
        refused="unresolved-reference",
    ),
    "the-end-of-constants-is-handed-on": Trial(
        """
        static const u16 cells[5] = {11, 22, 33, 44, 55}, others[6] = {6, 7, 8}, spare[6] = {9, 8, 7, 6};
        EXPORT NOINLINE u64 first(u64 i) { return cells[i % 5]; }
        EXPORT NOINLINE u64 second(u64 i) { return «others|spare»[i % 6]; }
        EXPORT NOINLINE u64 third(u64 i) { return «spare|others»[i % 6]; }
        EXPORT NOINLINE u64 last(const u16 *p) { return p[-1]; }
        EXPORT NOINLINE u64 f(u64 x) { return x «|+ last(cells + 5) + last(others + 6) + last(spare + 6)»; }
        """,
        calls=(("f", 1), ("first", 4)),
        travels=("f", "second", "third"),
        carried=("any [constants]",),
    ),
    "numbers-of-constants-whose-end-alone-is-named": Trial(
        """
        static const u32 cells[3] = {«1, 2, 3|4, 5, 6»};
        static const u64 behind[2] = {7, 8};
        EXPORT NOINLINE u64 last(const u32 *p) { return p[-1]; }
        EXPORT NOINLINE u64 f(u64 x) { return x + last(cells + 3); }
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 3]; }
        EXPORT NOINLINE u64 other(u64 i) { return behind[i % 2]; }
        """,
        calls=(("f", 1), ("get", 1)),
        travels=("f", "get"),
        carried=("any [constants]",),
    ),
    "a-new-pointer-to-the-end-of-constants": Trial(
        """
        static const u16 cells[5] = {11, 22, 33, 44, 55}, others[6] = {6, 7, 8}, spare[6] = {9, 8, 7, 6};
        «|static const u16 *const ends[3] = {cells + 5, others + 6, spare + 6};»
        EXPORT NOINLINE u64 first(u64 i) { return cells[i % 5]; }
        EXPORT NOINLINE u64 second(u64 i) { return «others|spare»[i % 6]; }
        EXPORT NOINLINE u64 third(u64 i) { return «spare|others»[i % 6]; }
        EXPORT NOINLINE u64 f(u64 x) { return x «|+ (*OPAQUE(&ends))[x % 3][-5]»; }
        """,
        calls=(("f", 0), ("f", 1), ("f", 2), ("first", 4)),
        travels=("f", "second", "third"),
        carried=("any [constants]",),
    ),
    "vectors-of-numbers-that-differ": Trial(
        """
        static u32 cells[16];
        EXPORT NOINLINE u64 get(u64 i) { return cells[i % 16]; }
        EXPORT NOINLINE u64 f(u64 x)
        {
            u64 t = x;
            for (u32 i = 0; i < 16; ++i) cells[i] += (u32)x ^ (i + «2|6»);
            for (u32 i = 0; i < 16; ++i) t += cells[i] ^ i;
            return t;
        }
        """,
        build='cflags = ["-O3", "-fvectorize", "-fslp-vectorize", "-funroll-loops"]',
        calls=(("f", 7), ("get", 3), ("f", 9)),
        travels=("f",),
        carried=("any [vectors]",),
    ),
    "end-of-an-array-with-a-middle-where-a-new-datum-begins": Trial(
        """
        static u64 cells[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        «|static u64 fresh = 62;»
        static u64 other = 9;
        EXPORT NOINLINE u64 set(u64 i, u64 x) { return cells[i % 8] = x; }
        EXPORT NOINLINE u64 sixth(u64 x) { return cells[5] ^ x; }
        EXPORT NOINLINE u64 next(u64 x) { return «other += x|other += fresh += x»; }
        EXPORT NOINLINE u64 put(u64 x) { return other ^= x; }
        EXPORT NOINLINE u64 f(u64 x)
        { u64 t = x «|* 3»; for (u64 *p = cells + 8; p-- > cells;) { t = t * 5 + *p; *p = t; } return t; }
        """,
        calls=(("set", 5, 50), ("f", 1), ("next", 3), ("f", 2)),
        travels=("f", "next"),
        carried=("data fresh",),
    ),
    "zeros-in-the-place-of-other-zeros": Trial(
        """
        u64 first = 0;
        «u16 small[4] = {0}|u64 moved = 0»;
        u64 behind[4] = {0};
        «u64 moved = 0|u16 small[4] = {0}»;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 many(u64 x) { return behind[x % 4] += x; }
        EXPORT NOINLINE u64 f(u64 x) { «small[x % 4] = (u16)x; moved = x; return x|return x * 3 + *(volatile u8 *)&moved»; }
        """,
        calls=(("one", 1), ("f", 5), ("many", 3), ("f", 6)),
        travels=("f",),
        refused_without="contradicting-votes",
    ),
    "zeros-that-changed-places": Trial(
        """
        u64 first = 0;
        «u8 small[8] = {0}|u64 sum = 0»;
        «u64 sum = 0|u8 small[8] = {0}»;
        u64 behind[4] = {0};
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 many(u64 x) { return behind[x % 4] += x; }
        EXPORT NOINLINE u64 f(u64 x) { «small[x % 8] = (u8)x; sum = x; return x|return x * 3 + sum + *(volatile u8 *)&small[0]»; }
        """,
        calls=(("one", 1), ("f", 5), ("many", 3), ("f", 6)),
        travels=("f",),
        refused_without="contradicting-votes",
    ),
    "end-of-a-small-new-array-where-a-number-begins-that-is-used-too": Trial(
        """
        u64 first = 3;
        «|u8 fresh[8] = {11, 22, 33, 44, 55, 66, 77, 88};»
        u64 sum = 9;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 next(u64 x) { return sum += x; }
        EXPORT NOINLINE u64 f(u64 x)
        { u64 t = x + first; «|for (u8 *p = fresh + 8; p-- > fresh;) { t = t * 5 + *p; *p = (u8)t; }» sum += t; return t; }
        """,
        refused="unresolved-reference",
        refused_without="unresolved-reference",
    ),
    "new-array-with-elements-named-one-by-one": Trial(
        """
        static u64 seen = 4;
        EXPORT NOINLINE u64 see(u64 x) { return seen += x; }
        «|static u64 fresh[6] = {11, 22, 33, 44, 55, 66};»
        EXPORT NOINLINE u64 f(u64 x)
        {
            «return seen ^ x|u64 t = seen ^ x; fresh[x % 6] += x;
            t = t * 5 + fresh[5]; t = t * 5 + fresh[4]; t = t * 5 + fresh[3]; t = t * 5 + fresh[1]; return t»;
        }
        """,
        calls=(*(("f", x) for x in range(7)), ("see", 1)),
        travels=("f",),
        carried=("data fresh",),
    ),
    "end-of-eight-bytes-handed-on-where-another-array-begins": Trial(
        """
        NOINLINE u64 back(const u8 *end, u64 n) { u64 t = n; while (n--) t = t * 3 + *--end; return t; }
        u64 first = 3;
        u8 few[8] = {80, 15, 175, 172, 166, 202, 199, 46};
        «u64 between[5] = {4, 5, 6, 7, 8};|»
        u64 behind[5] = {14, 15, 16, 17, 18};
        «|u64 between[5] = {4, 5, 6, 7, 8};»
        EXPORT NOINLINE u64 put(u64 i, u64 x) { return first += few[i % 8] += (u8)x; }
        EXPORT NOINLINE u64 one(u64 i) { return between[i % 5] += i; }
        EXPORT NOINLINE u64 other(u64 i) { return behind[i % 5] += i; }
        EXPORT NOINLINE u64 f(u64 x) { return back(few + 8, x % 9) «|* 3»; }
        """,
        calls=(("put", 3, 5), ("f", 8), ("f", 3)),
        travels=("f",),
    ),
    "another-function-in-the-place-of-a-lost-one": Trial(
        """
        «NOINLINE u64 span(u64 x) { return x * 3 + (x >> 4); }|NOINLINE u64 spell(u64 x) { return x * 3 + (x >> 4) + 7; }»
        EXPORT NOINLINE u64 f(u64 x) { return OPAQUE(«span|spell»(x)) «|* 3»; }
        """,
        calls=(("f", 1), ("f", 300)),
        travels=("f", "span"),
    ),
    "state-that-a-table-of-pointers-alone-led-to": Trial(
        """
        u64 first = 5;
        «|u64 state = 1;»
        u64 second = 6;
        u64 third = 7;
        «u64 state = 1;|»
        u64 fourth = 8;
        «static u64 *const table[2] = {&state, &second}; static NOINLINE u64 step(u64 x) { return *table[x % 2] += x; }|»
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        EXPORT NOINLINE u64 three(u64 x) { return third ^= x; }
        EXPORT NOINLINE u64 four(u64 x) { return fourth ^= x; }
        EXPORT NOINLINE u64 f(u64 x) { «return step(x) * 3|state += x; return state + x * 3»; }
        """,
        calls=(("f", 2), ("f", 4)),
        travels=("f",),
        refused_without="unresolved-reference",
    ),
    "new-number-in-the-place-of-what-a-table-of-pointers-alone-led-to": Trial(
        """
        u64 first = 5;
        u64 «old|fresh» = 1;
        u64 second = 6;
        «static u64 *const table[2] = {&old, &second}; static NOINLINE u64 step(u64 x) { return *table[x % 2] += x; }|»
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        EXPORT NOINLINE u64 f(u64 x) { «return step(x) * 3|fresh += x; return fresh + x * 3»; }
        """,
        calls=(("f", 2), ("f", 4)),
        travels=("f",),
        carried=("data fresh",),
        refused_without="unresolved-reference",
    ),
    "new-array-handed-on-in-the-place-of-what-a-table-of-pointers-alone-led-to": Trial(
        """
        u64 first = 5;
        u64 «old|fresh»[3] = {1, 2, 3};
        u64 second = 6;
        «static u64 *const table[2] = {old, &second}; static NOINLINE u64 step(u64 x) { return *table[x % 2] += x; }|»
        NOINLINE u64 use(u64 *at) { return *at += 7; }
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x + use(&second); }
        EXPORT NOINLINE u64 f(u64 x) { «return step(x) * 3|return use(fresh) + x * 3»; }
        """,
        calls=(("f", 2), ("f", 4)),
        travels=("f",),
        carried=("data fresh",),
        refused_without="unresolved-reference",
    ),
    "a-new-count-at-the-instructions-of-one-that-another-function-goes-on-with": Trial(
        """
        u64 first = 5;
        «|u64 total = 1;»
        u64 count = 1;
        u64 second = 6;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        EXPORT NOINLINE u64 g(u64 x) { «return x * 9|return count += x»; }
        EXPORT NOINLINE u64 f(u64 x) { «count += x; return x * 3|total += x; return x * 3 + g(x)»; }
        """,
        calls=(("f", 2), ("g", 4), ("f", 3)),
        travels=("f", "g"),
        carried=("data total",),
        refused_without="unresolved-reference",
    ),
    "a-new-count-before-one-that-another-function-goes-on-with-and-more-behind": Trial(
        """
        u64 first = 5;
        «|u64 total = 1;»
        u64 count = 1;
        «|u64 extra = 77;»
        u64 second = 6;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        EXPORT NOINLINE u64 g(u64 x) { «return x * 9|extra += x; return count += x»; }
        EXPORT NOINLINE u64 f(u64 x) { «count += x; return x * 3|total += x; return x * 3 + g(x)»; }
        """,
        calls=(("f", 2), ("g", 4), ("f", 3)),
        travels=("f", "g"),
        carried=("data total", "data extra"),
        refused_without="unresolved-reference",
    ),
    "end-of-an-array-that-is-kept-where-something-new-begins": Trial(
        """
        u64 cells[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        «|u64 fresh[3] = {62, 63, 64};»
        u64 other = 9;
        u64 *top = &cells[4];
        EXPORT NOINLINE u64 set(u64 x) { return cells[x % 8] = x; }
        EXPORT NOINLINE u64 sixth(u64 x) { return cells[5] ^ x; }
        EXPORT NOINLINE u64 put(u64 x) { return other ^= x; }
        EXPORT NOINLINE u64 next(u64 x) { return «other += x|other += fresh[0] += x»; }
        EXPORT NOINLINE u64 push(u64 x) { if (top == cells) return 0; *--top = x; return top - cells; }
        EXPORT NOINLINE u64 f(u64 x) { «return x|top = cells + 8; return x * 3»; }
        """,
        calls=(("push", 3), ("f", 5), ("push", 7), ("next", 1)),
        travels=("f", "next"),
        carried=("data fresh",),
        refused="unresolved-reference",
        refused_without="unresolved-reference",
    ),
    "an-element-that-a-new-function-names-of-an-array-that-others-go-over": Trial(
        """
        u64 first = 5;
        u64 cells[5] = {1, 2, 3, 4, 5};
        «|u64 fresh = 77;»
        u64 second = 6;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        EXPORT NOINLINE u64 g(u64 x) { return cells[x % 5] += x; }
        «|NOINLINE u64 last(u64 x) { return cells[4] += x + fresh++; }»
        EXPORT NOINLINE u64 f(u64 x) { «return x * 3|return last(x) * 3»; }
        """,
        calls=(("g", 4), ("f", 2), ("g", 9)),
        travels=("f",),
        carried=("function last", "data fresh"),
        refused_without="unresolved-reference",
    ),
    "an-element-that-a-new-function-names-of-an-array-that-others-hand-on": Trial(
        """
        u64 first = 5;
        u64 cells[5] = {1, 2, 3, 4, 5};
        «|u64 fresh = 77;»
        u64 second = 6;
        EXPORT NOINLINE u64 one(u64 x) { return first += x; }
        EXPORT NOINLINE u64 two(u64 x) { return second ^= x; }
        NOINLINE u64 sum(u64 *at) { return at[0] + at[1] * 3 + (at[4] += 5); }
        EXPORT NOINLINE u64 g(u64 x) { return sum(cells) + x; }
        «|NOINLINE u64 last(u64 x) { return cells[4] += x + fresh++; }»
        EXPORT NOINLINE u64 f(u64 x) { «return x * 3|return last(x) * 3»; }
        """,
        calls=(("g", 4), ("f", 2), ("g", 9)),
        travels=("f",),
        carried=("function last", "data fresh"),
        refused_without="unresolved-reference",
    ),
    "end-of-numbers-where-a-jump-table-begins": Trial(
        """
        static const u32 weights[16] = {9, 8, 7, 6, 5, 4, 3, 2, 19, 18, 17, 16, 15, 14, 13, 12};
        EXPORT NOINLINE u64 g(u64 op, u64 x)
        {
            switch (op) {
            case 0: return x * «3|5»;
            case 1: return x ^ 77;
            case 2: return x / 9;
            case 3: return x - (x >> 3);
            case 4: return x * x;
            case 5: return ~x;
            case 6: return x << (x & 7);
            case 7: return x % 1000;
            case 8: return x * 31 + 5;
            default: return 99;
            }
        }
        EXPORT NOINLINE u64 f(u64 x)
        { u64 t = x «|* 3» + weights[x % 16]; for (const u32 *p = weights + 16; p-- > weights;) t = t * 5 + *p; return t; }
        """,
        build='cflags = ["-Os"]',
        calls=(*(("f", x) for x in range(3)), *(("g", op, 300) for op in range(10))),
        travels=("f", "g"),
        carried=("any [weights]",),
    ),
}

MERGED: dict[str, Trial] = {
    "the-same-distances": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        EXPORT NOINLINE u32 f(u32 n) { first += n«| * 3»; second ^= n; third += second; return first * second; }
        EXPORT NOINLINE u32 g(u32 n) { first ^= n; return second + third; }
        """,
        calls=(("f", 4), ("g", 2), ("f", 9)),
        travels=("f",),
    ),
    "arrays-at-the-same-distances": Trial(
        """
        static u32 first = 3, table[8] = {1, 2, 3, 4, 5, 6, 7, 8}, other[8] = {9, 8, 7, 6, 5, 4, 3, 2};
        EXPORT NOINLINE u32 f(u32 n) { first += n«| * 3»; table[(n & 3) + 4] ^= n; return first * other[n & 7]; }
        EXPORT NOINLINE u32 g(u32 n) { first ^= n; return table[n & 7] + other[(n + 3) & 7]; }
        """,
        calls=(("f", 4), ("g", 2), ("f", 9), ("g", 5)),
        travels=("f",),
    ),
    "the-end-of-one-where-another-begins": Trial(
        """
        u64 first = 28;
        static __attribute__((aligned(16))) u64 later;
        static u64 gone = 5«|, extra = 6», table[3] = {11, 22, 33};
        EXPORT NOINLINE u64 back(const u64 *at, u64 n) { u64 t = 0; while (n--) t = t * 3 + *--at; return t; }
        EXPORT NOINLINE u64 touch(u64 i, u64 x) { table[i % 3] += x; return table[i % 3]; }
        EXPORT NOINLINE u64 g(u64 x) { later ^= x; return later; }
        EXPORT NOINLINE u64 f(u64 x) { first += x; return back(table + 3, 3) + x * «3|5»; }
        EXPORT NOINLINE u64 one(u64 x) { return first ^= gone += x«| + extra++»; }
        """,
        refused="unresolved-reference",
        refused_without="data-init",
    ),
    "nothing-else-uses-them": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        EXPORT NOINLINE u32 f(u32 n) { first += n«| * 3»; second ^= n; third += second; return first * second; }
        """,
        calls=(("f", 4), ("f", 9)),
        travels=("f",),
    ),
    "a-new-one-among-them": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        «|static u32 mode = 9;»
        EXPORT NOINLINE u32 f(u32 n) { first += n«| + mode; mode++»; second ^= n; third += second; return first * second; }
        EXPORT NOINLINE u32 g(u32 n) { return n + second; }
        EXPORT NOINLINE u32 h(u32 n) { second += n; return second + first; }
        """,
        refused="unresolved-reference",
    ),
    "a-new-one-before-padding": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        «|static u32 mode = 9;»
        static __attribute__((aligned(16))) u32 calls[8] = {1};
        EXPORT NOINLINE u32 f(u32 n) { first += n«| + mode; mode++»; second ^= n; third += second; return first * second; }
        EXPORT NOINLINE u32 g(u32 n) { calls[n & 7] += n; return calls[(n + 1) & 7]; }
        """,
        refused="unresolved-reference",
        refused_without="data-init",
    ),
    "a-new-one-before-padding-and-all-zero": Trial(
        """
        static u32 first, second, third;
        «|static u32 mode;»
        static __attribute__((aligned(16))) u32 calls[8], more[8];
        EXPORT NOINLINE u32 f(u32 n) { first += n«| + mode; mode++»; second ^= n; third += second; return first * second; }
        EXPORT NOINLINE u32 g(u32 n) { calls[n & 7] += n; return calls[(n + 1) & 7]; }
        EXPORT NOINLINE u32 h(u32 n) { more[n & 7] ^= n; return more[(n + 1) & 7]; }
        """,
        refused="unresolved-reference",
    ),
    "addresses-in-another-order": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        static NOINLINE u32 use(volatile u32 *at, u32 n) { *at += n; return *at * 3; }
        «|EXPORT NOINLINE u32 k(u32 n) { return third * n; }»
        EXPORT NOINLINE u32 g(u32 n) { return n + first; }
        EXPORT NOINLINE u32 h(u32 n) { return n + second; }
        EXPORT NOINLINE u32 f(u32 n) { return use(&first, n«| * 3») + use(&second, n) + use(&third, n + 1); }
        «EXPORT NOINLINE u32 k(u32 n) { return third * n; }|»
        """,
        refused="unresolved-reference",
    ),
    "addresses-in-another-order-to-different-functions": Trial(
        """
        typedef struct { u32 value, kind; } Cell;
        static Cell first = {3, 1}, second = {5, 2}, third = {7, 3};
        EXPORT NOINLINE u32 add(volatile Cell *at, u32 n) { at->value += n; return at->value; }
        EXPORT NOINLINE u32 mix(volatile Cell *at, u32 n) { at->value ^= n; return at->value * 5; }
        EXPORT NOINLINE u32 cut(volatile Cell *at, u32 n) { at->value >>= n & 3; return at->value + at->kind; }
        «|EXPORT NOINLINE u32 k(u32 n) { return third.value * n + third.kind; }»
        EXPORT NOINLINE u32 g(u32 n) { return n + first.value - first.kind; }
        EXPORT NOINLINE u32 h(u32 n) { return n ^ second.value ^ second.kind; }
        EXPORT NOINLINE u32 f(u32 n) { return add(&first, n) + mix(&second, n) + cut(&third, n)«| * 3»; }
        «EXPORT NOINLINE u32 k(u32 n) { return third.value * n + third.kind; }|»
        """,
        calls=(("f", 4), ("g", 2), ("h", 1), ("k", 2), ("f", 9), ("g", 1), ("h", 5), ("k", 3)),
        travels=("f",),
        refused="unresolved-reference",
        refused_without=BUILT,
    ),
    "in-another-order": Trial(
        """
        static u32 first = 3, second = 5, third = 7;
        «|EXPORT NOINLINE u32 k(u32 n) { return third * n; }»
        EXPORT NOINLINE u32 g(u32 n) { return n + first; }
        EXPORT NOINLINE u32 h(u32 n) { return n + second; }
        EXPORT NOINLINE u32 f(u32 n) { first += n«| * 3»; second ^= n; third += second; return first * second; }
        «EXPORT NOINLINE u32 k(u32 n) { return third * n; }|»
        """,
        refused="unresolved-reference",
    ),
}
"""Where the compiler puts statics together and reaches all of them from the first one's address, so that most lose their names, too."""

OTHERS: dict[str, Trial] = {
    "cases-that-look-like-functions": Trial(
        """
        static u64 a = 5;
        EXPORT NOINLINE u64 f(u64 x, u64 y) {
            u64 t = x;
            for (u32 i = y % 4; i < 12; i += 2) {
                switch (i) {
                    case 0: t += 3; break;
                    case 1: t ^= x << 3; break;
                    case 2: t *= 7; break;
                    case 3: t -= x; break;
                    case 4: t = x / 3 + t; break;
                    case 5: t -= 0x1234567890; break;
                    case 6: t = ~t * 9; break;
                    case 7: t += a; break;
                    case 8: t ^= «3|5»; break;
                    case 9: t = t * t; break;
                    case 10: t = t / 5; break;
                    case 11: t += 99; break;
                }
                if (t & 4) i++;
            }
            return a += t;
        }
        EXPORT NOINLINE u64 g(u64 x) { return a ^= x; }
        """,
    ),
}
"""Judged by tests of their own."""
