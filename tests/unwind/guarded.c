/* A function whose frame has a stack cookie that its exception handler checks, as Visual C++ emits them; clang does not, so by hand. */
#include "common/console.h"
#include "common/seh.h"

u64 __security_cookie = 0x00002b992ddfa232;
static volatile u64 checks, damaged;

#define SEARCH_CONTINUES 1
#define UNWINDING 6u

void __security_check_cookie(u64 cookie)
{
    damaged += cookie != __security_cookie;
}

/* Handler data: where in the frame the cookie lies. x64 counts from the frame's low end and mixes its address in. */
static void check_frame(u64 frame, const u32 *data)
{
    u64 place = frame + (s64)(s32)(*data & ~7u);
    checks++;
#ifdef __x86_64__
    __security_check_cookie(*(u64 *)place ^ frame);
#else
    __security_check_cookie(*(u64 *)place);
#endif
}

__attribute__((used)) int __GSHandlerCheck(EXCEPTION_RECORD *record, u64 frame, void *context, const u64 *dispatcher)
{
    (void)context;
    if (!(record->flags & UNWINDING))
        check_frame(frame, (const u32 *)dispatcher[7]);
    return SEARCH_CONTINUES;
}

int __C_specific_handler(EXCEPTION_RECORD *record, u64 frame, void *context, const u64 *dispatcher);

__attribute__((used)) int __GSHandlerCheck_SEH(EXCEPTION_RECORD *record, u64 frame, void *context, const u64 *dispatcher)
{
    const u32 *scopes = (const u32 *)dispatcher[7];
    if (!(record->flags & UNWINDING))
        check_frame(frame, scopes + 1 + 4 * scopes[0]);
    return __C_specific_handler(record, frame, context, dispatcher);
}

__attribute__((used)) NOINLINE u64 fill(u64 size, volatile u8 *buffer)
{
    for (u64 i = 0; i < size; i++)
        buffer[i] = 'A';
    if (size >= 4)
        RaiseException(0xE0000009u, 0, 0, 0);
    return size * 2;
}

#ifdef PLAIN
#define HANDLER "__GSHandlerCheck"
#define SCOPES
#else
#define HANDLER "__GSHandlerCheck_SEH"
#define SCOPES ".long 1\n.rva inside, outside\n.long 1\n.rva caught\n"
#endif

u64 guarded(u64 size);
__asm__(".section .text,\"xr\",one_only,guarded\n"
        ".globl guarded\n"
        ".p2align 4\n"
        ".def guarded; .scl 2; .type 32; .endef\n"
        ".seh_proc guarded\n"
        "guarded:\n"
#ifdef __x86_64__
        "subq $0x48, %rsp\n"
        ".seh_stackalloc 0x48\n"
        ".seh_handler " HANDLER ", @unwind, @except\n"
        ".seh_endprologue\n"
        "movq __security_cookie(%rip), %rax\n"
        "xorq %rsp, %rax\n"
        "movq %rax, 0x38(%rsp)\n"
#ifdef FIXED
        "cmpq $16, %rcx\n"
        "movl $16, %eax\n"
        "cmovaq %rax, %rcx\n"
#endif
        "leaq 0x28(%rsp), %rdx\n"
        "inside: callq fill\n"
        "nop\n"                                /* x64 looks scopes up by the return address */
        "outside:\n"
        "back: movq %rax, 0x20(%rsp)\n"
        "movq 0x38(%rsp), %rcx\n"
        "xorq %rsp, %rcx\n"
        "callq __security_check_cookie\n"
        "movq 0x20(%rsp), %rax\n"
        "addq $0x48, %rsp\n"
        "retq\n"
        "caught: movl $77, %eax\n"
        "jmp back\n"
        ".seh_handlerdata\n"
        SCOPES
        ".long 0x38\n"
#else
        "sub sp, sp, #0x40\n"
        ".seh_stackalloc 0x40\n"
        "str x30, [sp, #0x30]\n"
        ".seh_save_reg x30, 0x30\n"
        ".seh_handler " HANDLER ", @unwind, @except\n"
        ".seh_endprologue\n"
        "adrp x8, __security_cookie\n"
        "ldr x8, [x8, :lo12:__security_cookie]\n"
        "str x8, [sp, #0x20]\n"
#ifdef FIXED
        "mov x9, #16\n"
        "cmp x0, x9\n"
        "csel x0, x0, x9, ls\n"
#endif
        "add x1, sp, #0x10\n"
        "inside: bl fill\n"
        "outside: nop\n"
        "back: str x0, [sp, #0x28]\n"
        "ldr x0, [sp, #0x20]\n"
        "bl __security_check_cookie\n"
        "ldr x0, [sp, #0x28]\n"
        ".seh_startepilogue\n"
        "ldr x30, [sp, #0x30]\n"
        ".seh_save_reg x30, 0x30\n"
        "add sp, sp, #0x40\n"
        ".seh_stackalloc 0x40\n"
        ".seh_endepilogue\n"
        "ret\n"
        "caught: mov x0, #77\n"
        "b back\n"
        ".seh_handlerdata\n"
        SCOPES
        ".long -0x20\n"
#endif
        ".section .text,\"xr\",one_only,guarded\n"
        ".seh_endproc\n"
        ".text\n");

static int any(void)
{
    return EXCEPTION_EXECUTE_HANDLER;
}

EXPORT NOINLINE u64 request(u64 size)
{
    volatile u64 result = 0;
    __try {
        result = guarded(size);
    } __except (any()) {
        result = 1000;
    }
    return result + damaged * 100 + checks * 10000;
}
