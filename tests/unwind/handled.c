/* Functions with structured exception handling and with data for a handler of no known format. */

typedef unsigned long long u64;
int _fltused;
long __C_specific_handler(void *record, void *frame, void *context, void *dispatcher) { return 0; }
__attribute__((noinline)) u64 risky(u64 *p) { return *p; }
__declspec(dllexport) u64 guarded(u64 *p)
{
    u64 r = 0;
    __try { r = risky(p) + 1; } __except (1) { r = 7; }
    return r;
}
__declspec(dllexport) u64 cleaned(u64 *p, u64 *q)
{
    u64 r = 0;
    __try { r = risky(p) + 1; } __finally { *q = r; }
    return r;
}
__declspec(dllexport) u64 plain(u64 *p) { return risky(p) * 3 + risky(p + 1); }
int _DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }
