extern "C" {
int __CxxFrameHandler3(void *, void *, void *, int **dispatcher) { return *dispatcher[7]; }
int _fltused = 0;
void _CxxThrowException(void *, void *) { for (;;) ; }
}
extern "C" void *type_info_vftable[2] __asm__("??_7type_info@@6B@");
void *type_info_vftable[2];
void operator delete(void *) noexcept {}
void operator delete(void *, unsigned long long) noexcept {}
extern "C" __declspec(dllexport) int seen;
int seen;
struct Guard { int n; __declspec(noinline) Guard(int x) : n(x) { seen += x; } __declspec(noinline) ~Guard() { seen -= n; } };
__declspec(noinline) extern "C" int risky(int x) { if (x > 5) throw x; return x + 1; }
static int (*volatile how)(int) = risky;
extern "C" __declspec(dllexport) __declspec(noinline) int guarded(int x) {
  Guard g(x);
  try { return how(x) + CHANGE; } catch (int caught) { return caught * 2; }
}
extern "C" int _DllMainCRTStartup(void *, unsigned, void *) { return 1; }
