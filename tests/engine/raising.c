/* A counter whose fix (FIXED) brings a callback that raises exceptions, as its sequence number says. */
#include "common/console.h"
#include "common/seh.h"

#define APPLICATION_ERROR 0xE0000011u

static volatile u64 seen;
u64 total;

/* The program's own handler, which sees every exception first and handles none. */
static s32 watch(EXCEPTION_POINTERS *pointers)
{
    seen += pointers->record->code & 0xFF;
    return EXCEPTION_CONTINUE_SEARCH;
}

EXPORT NOINLINE u64 add(u64 amount)
{
#ifdef FIXED
    amount *= 10;
#endif
    total += amount;
    return total;
}

EXPORT u64 handled(void)
{
    return seen;
}

EXPORT u64 arm(void)
{
    return !AddVectoredExceptionHandler(1, watch);
}

void start(void)
{
    ExitProcess(0);
}

#ifdef FIXED
int __hotpatch_before_apply(u64 sequence);

NOINLINE static void fail(u64 kind)
{
    if (kind % 2)
        RaiseException(APPLICATION_ERROR, 0, 0, 0);
    else
        *OPAQUE((volatile u64 *)0x40) = kind;
}

/* 1 and 2 are caught here, behind a block that cleans up; 3 and 4 by nobody; nobody cleans up after 5 and 6 then, as nobody unwinds. */
int __hotpatch_before_apply(u64 sequence)
{
    volatile int answer = 1;
    if (sequence <= 2) {
        __try {
            __try {
                fail(sequence);
            } __finally {
                total += 100;
            }
        } __except (EXCEPTION_EXECUTE_HANDLER) {
            answer = 0;
        }
    } else if (sequence <= 4) {
        total += 7;
        fail(sequence);
    } else {
        __try {
            fail(sequence);
        } __finally {
            total += 1000;
        }
    }
    return answer;
}
#endif
