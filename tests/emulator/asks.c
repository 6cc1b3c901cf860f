/* What the C run time asks of the system at its start: versions, kinds and cases of characters, code pages; a number for each answer. */
#include "common/console.h"

typedef struct {
    u32 size, major, minor, build, platform;
    u16 pack[128], pack_major, pack_minor, suite;
    u8 product, reserved;
} VERSION;

IMPORT u64 VerSetConditionMask(u64 mask, u32 types, u8 condition);
IMPORT s32 VerifyVersionInfoW(VERSION *wanted, u32 types, u64 mask);
IMPORT s32 GetStringTypeW(u32 which, const u16 *text, s32 count, u16 *kinds);
IMPORT s32 LCMapStringW(u32 locale, u32 flags, const u16 *text, s32 count, u16 *mapped, s32 room);
IMPORT s32 LCMapStringEx(const u16 *locale, u32 flags, const u16 *text, s32 count, u16 *mapped, s32 room, void *a, void *b, s64 c);
IMPORT s32 GetCPInfo(u32 page, u32 *info);
IMPORT void *InterlockedFlushSList(u64 *head);

static u64 mix(u64 hash, u64 value)
{
    return (hash ^ value) * 1099511628211u;
}

static void masks(void)
{
    u64 hash = 0, mask = 0;
    for (u32 types = 0; types < 512; ++types)
        for (u32 condition = 0; condition < 16; ++condition)
            hash = mix(hash, VerSetConditionMask(types * 7, types, (u8)condition));
    print_line("masks", hash);
    mask = VerSetConditionMask(mask, 2, 3);
    mask = VerSetConditionMask(mask, 1, 3);
    print_line("mask", VerSetConditionMask(mask, 0x20, 3));
}

/* Major versions far from any that a system has, so that it does not matter which one answers. */
static void verify(void)
{
    static const u32 types[] = {2, 3, 1 | 2 | 0x20, 1 | 2 | 0x10 | 0x20, 2 | 8, 8, 0x80, 0};
    u64 hash = 0;
    for (u32 major = 5; major < 100; major += 90)
        for (u32 kind = 0; kind < 8; ++kind)
            for (u8 condition = 1; condition < 6; ++condition) {
                static VERSION wanted = {.size = sizeof(VERSION), .minor = 1, .platform = 2, .product = 1};
                u64 mask = 0;
                wanted.major = major;
                for (u32 bit = 1; bit < 256; bit *= 2)
                    if (types[kind] & bit)
                        mask = VerSetConditionMask(mask, bit, bit == 8 || bit == 0x80 ? 1 : condition);
                s32 met = VerifyVersionInfoW(&wanted, types[kind], mask);
                hash = mix(hash, (u64)met << 32 | (met ? 0 : GetLastError()));
            }
    print_line("verified", hash);
}

static void characters(void)
{
    u16 text[128], found[128];
    u64 kinds = 0, lower = 0, upper = 0;
    for (u32 at = 0; at < 128; ++at)
        text[at] = (u16)at;
    s32 given = GetStringTypeW(1, text, 128, found);
    for (u32 at = 0; at < 128; ++at)
        kinds = mix(kinds, found[at]);
    print_line("kinds given", (u64)given);
    print_line("kinds", kinds);
    print_line("lower given", (u64)LCMapStringW(0x7f, 0x100, text, 128, found, 128));
    for (u32 at = 0; at < 128; ++at)
        lower = mix(lower, found[at]);
    print_line("lower", lower);
    print_line("upper given", (u64)LCMapStringEx(0, 0x200, text, 128, found, 128, 0, 0, 0));
    for (u32 at = 0; at < 128; ++at)
        upper = mix(upper, found[at]);
    print_line("upper", upper);
    text[0] = 0xe9;
    LCMapStringW(0x7f, 0x200, text, 1, found, 1);
    print_line("accent", found[0]);
    print_line("asked for room", (u64)LCMapStringW(0x7f, 0x100, text + 64, 10, 0, 0));
    print_line("too little room", (u64)LCMapStringW(0x7f, 0x100, text + 64, 10, found, 5) << 32 | GetLastError());
}

void start(void)
{
    static _Alignas(16) u64 head[2];
    u32 info[5] = {0};
    masks();
    verify();
    characters();
    print_line("page", (u64)GetCPInfo(65001, info));
    print_line("longest", info[0]);
    print_line("default", info[1] & 0xff);
    print_line("another page", (u64)GetCPInfo(1252, info));
    print_line("longest there", info[0]);
    print_line("no page", (u64)GetCPInfo(77, info) << 32 | GetLastError());
    print_line("flushed", (u64)InterlockedFlushSList(head));
    ExitProcess(0);
}
