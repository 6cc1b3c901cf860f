/* In which order filters, except blocks and finally blocks run, a digit for each; and what RtlUnwindEx leaves and where it lands. */
#include "common/console.h"
#include "common/seh.h"
#include "common/unwind.h"

IMPORT void RtlUnwindEx(void *frame, void *pc, void *record, void *value, CONTEXT *context, void *history);

static volatile u64 trace;

NOINLINE static void note(u64 digit)
{
    trace = trace * 10 + digit;
}

NOINLINE static int say(u64 digit, int answer)
{
    note(digit);
    return answer;
}

NOINLINE static void fail(u64 kind)
{
    if (kind)
        RaiseException(0xE0000007u, 0, 0, 0);
}

/* The except block lies within the try block of the finally block, which is left once, behind it. */
NOINLINE static void finally_around_except(u64 kind)
{
    __try {
        __try {
            note(1);
            fail(kind);
            note(2);
        } __except (say(3, EXCEPTION_EXECUTE_HANDLER)) {
            note(4);
        }
        note(5);
    } __finally {
        note(6 + !!_abnormal_termination());
    }
    note(8);
}

/* As before, and nothing in the except block can fail: no scope of the table need cover it. */
NOINLINE static void nothing_in_the_except_block(u64 kind)
{
    __try {
        __try {
            fail(kind);
        } __except (EXCEPTION_EXECUTE_HANDLER) {
        }
    } __finally {
        note(6 + !!_abnormal_termination());
    }
    note(8);
}

NOINLINE static void except_around_finally(u64 kind)
{
    __try {
        __try {
            note(1);
            fail(kind);
        } __finally {
            note(6 + !!_abnormal_termination());
        }
    } __except (say(3, EXCEPTION_EXECUTE_HANDLER)) {
        note(4);
    }
    note(8);
}

NOINLINE static void both_around_a_refusal(u64 kind)
{
    __try {
        __try {
            __try {
                fail(kind);
            } __except (say(2, EXCEPTION_CONTINUE_SEARCH)) {
                note(9);
            }
        } __finally {
            note(6 + !!_abnormal_termination());
        }
    } __except (say(3, EXCEPTION_EXECUTE_HANDLER)) {
        note(4);
    }
    note(8);
}

u64 catcher(void);
extern u8 landing[], catcher_end[];

/* The establisher frame of catcher, by unwinding up to it, as the documentation of RtlVirtualUnwind has it. */
NOINLINE static void leave(void)
{
    CONTEXT context, unused;
    u64 base, establisher, within = 0;
    void *data, *entry;
    RtlCaptureContext(&context);
    while (!within) {
        within = context.pc >= (u64)catcher && context.pc < (u64)catcher_end;
        entry = RtlLookupFunctionEntry(context.pc, &base, 0);
        RtlVirtualUnwind(0, base, context.pc, entry, &context, &data, &establisher, 0);
    }
    RtlUnwindEx((void *)establisher, landing, 0, (void *)42, &unused, 0);
    note(9);
}

__attribute__((used)) NOINLINE void middle(void)
{
    __try {
        note(1);
        leave();
        note(9);
    } __finally {
        note(6 + !!_abnormal_termination());
    }
    note(9);
}

__asm__(".text\n"
        ".globl catcher\n"
        ".globl landing\n"
        ".globl catcher_end\n"
        ".p2align 4\n"
        ".def catcher; .scl 2; .type 32; .endef\n"
        ".seh_proc catcher\n"
        "catcher:\n"
#ifdef __x86_64__
        "subq $0x28, %rsp\n"
        ".seh_stackalloc 0x28\n"
        ".seh_endprologue\n"
        "callq middle\n"
        "movl $1, %eax\n"
        "landing:\n"
        "nop\n"
        "addq $0x28, %rsp\n"
        "retq\n"
#else
        "stp x29, x30, [sp, #-16]!\n"
        ".seh_save_fplr_x 16\n"
        "mov x29, sp\n"
        ".seh_set_fp\n"
        ".seh_endprologue\n"
        "bl middle\n"
        "mov x0, #1\n"
        "landing:\n"
        "nop\n"
        ".seh_startepilogue\n"
        "ldp x29, x30, [sp], #16\n"
        ".seh_save_fplr_x 16\n"
        ".seh_endepilogue\n"
        "ret\n"
#endif
        "catcher_end:\n"
        ".seh_endproc\n");

static void show(const char *label, void (*function)(u64), u64 kind)
{
    trace = 0;
    function(kind);
    print_line(label, trace);
}

void start(void)
{
    u64 value;
    show("finally around except", finally_around_except, 1);
    show("without failure", finally_around_except, 0);
    show("except around finally", except_around_finally, 1);
    show("both around a refusal", both_around_a_refusal, 1);
    trace = 0;
    value = catcher();
    print_line("unwound by hand", trace);
    print_line("landed with", value);
    show("nothing in the except block", nothing_in_the_except_block, 1);
    ExitProcess(0);
}
