/* Functions with scalable vectors as arguments, which preserve scalable registers: every form of their prologues and epilogues. */

typedef unsigned long long u64;
typedef __SVInt64_t vector;
#define X __declspec(dllexport) __declspec(noinline)
#define USES(...) __asm__ volatile("" ::: __VA_ARGS__)
#define FILL __asm__ volatile("dup z8.d, %0\n\tdup z9.d, %0\n\tdup z10.d, %0\n\tdup z15.d, %0\n\tdup z20.d, %0\n\tdup z23.d, %0" \
                              :: "r"(0x123456789ull) : "z8", "z9", "z10", "z15", "z20", "z23")
int _fltused;
__attribute__((naked)) void __chkstk(void) { __asm__("ret"); } /* the whole stack is mapped */
X vector leaf(vector a) { return a; }
X vector few(vector a) { USES("z8"); FILL; return leaf(a); }
X vector mix(vector a, vector b) { FILL; USES("p4", "p5", "p15", "x19", "x23"); a = few(b); FILL; return a; }
X vector framed(vector a, u64 n) { volatile char buffer[600]; buffer[n] = 1; a = mix(a, a); FILL; USES("p4"); return few(a); }
X vector grown(vector a, u64 n) { volatile char *at = __builtin_alloca(n * 16 + 32); at[0] = 1; a = mix(a, a); USES("z9", "p6"); at[n] = 2; return a; }
X vector large(vector a, u64 n) { volatile char buffer[70000]; buffer[n] = 1; a = few(a); USES("z16", "p7"); buffer[n + 9] = 2; return a; }
X vector early(vector a, u64 n) { if (n < 5) return a; FILL; return n & 1 ? mix(a, a) : few(a); }
X u64 run(u64 n)
{
    vector z;
    u64 result;
    __asm__ volatile("index %0.d, #0, #1" : "=w"(z));
    z = framed(z, n);
    z = grown(z, n);
    z = large(z, n);
    z = early(early(early(z, n), n + 5), n + 6);
    z = mix(z, leaf(z));
    __asm__ volatile("fmov %0, %d1" : "=r"(result) : "w"(z));
    return result;
}
X int _DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }
