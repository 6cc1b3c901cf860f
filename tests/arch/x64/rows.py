"""What the trampoline tests share: one row an instruction form, both addresses pinned."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = 0x140001000
NEAR = 0x140101000
FAR = 0x7FF600000000
"""Out of reach of rel32 from SOURCE."""


@dataclass(frozen=True)
class Row:
    """One entry, and what its trampoline must be; hexadecimal text."""

    name: str
    source: str
    trampoline: int
    displaced: int
    expected: str
    resume: int
    offsets: dict[int, int]

    def __str__(self) -> str:
        return self.name

    @property
    def code(self) -> bytes:
        return bytes.fromhex(self.source)


# Pinned bytes only: forms that Unicorn 2.1's processor model has not (AVX, AVX-512, transactions), and the call of the own entry, which
# recurses for ever in the original and leaves through the redirect in the copy.
NOT_RUN = {"avx-copy", "rip-vex2-load", "rip-vex3-load", "rip-evex-load", "xbegin", "call-own-entry-goes-through-redirect"}
TRAPS = {"ud2-and-padding", "fast-fail-and-padding", "int3-goes-on"}

# fmt: off
ROWS = (
    Row("sub-rsp", "4883ec28 90", NEAR, 2, "4883ec28e9fbffefff", 4, {0: 0}),
    Row("push-then-sub", "4053 4883ec20 90", NEAR, 5, "40534883ec20e9fbffefff", 6, {0: 0, 2: 2}),
    Row("endbr64-is-kept", "f30f1efa 4883ec28", NEAR, 5, "f30f1efa4883ec28e9fbffefff", 8, {0: 0, 4: 4}),
    Row("hotpatch-nop", "6690 55 4889e5", NEAR, 2, "6690e9fbffefff", 2, {0: 0}),
    Row("spill-arguments", "48894c2408 4889542410", NEAR, 5, "48894c2408e9fbffefff", 5, {0: 0}),
    Row("mov-imm64", "48b81122334455667788 c3", NEAR, 5, "48b81122334455667788e9fbffefff", 10, {0: 0}),
    Row("rep-stosb", "f3aa 90 90 90 c3", NEAR, 5, "f3aa909090e9fbffefff", 5, {0: 0, 2: 2, 3: 3, 4: 4}),
    Row("locked-add", "f0480fc108 c3", NEAR, 5, "f0480fc108e9fbffefff", 5, {0: 0}),
    Row("avx-copy", "c5f857c0 90 c3", NEAR, 5, "c5f857c090e9fbffefff", 5, {0: 0, 4: 4}),
    Row("pushfq", "9c 58 90 90 90 c3", NEAR, 5, "9c58909090e9fbffefff", 5, {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
    Row("rip-load", "488b05f90f0000 c3", NEAR, 5, "488b05f90ff0ffe9fbffefff", 7, {0: 0}),
    Row("rip-load-in-32-bit-register", "8b05fa0f0000 c3", NEAR, 5, "8b05fa0ff0ffe9fbffefff", 6, {0: 0}),
    Row("rip-lea", "488d0df90f0000 c3", NEAR, 2, "488d0df90ff0ffe9fbffefff", 7, {0: 0}),
    Row("rip-lea-of-own-entry", "488d05f9ffffff c3", NEAR, 5, "488d05f9ffefffe9fbffefff", 7, {0: 0}),
    Row("rip-store-imm8", "c605f90f00007f c3", NEAR, 5, "c605f90ff0ff7fe9fbffefff", 7, {0: 0}),
    Row("rip-store-imm16", "66c705f70f00003412 c3", NEAR, 5, "66c705f70ff0ff3412e9fbffefff", 9, {0: 0}),
    Row("rip-store-imm32", "c705f60f000078563412 c3", NEAR, 5, "c705f60ff0ff78563412e9fbffefff", 10, {0: 0}),
    Row("rip-store-imm32-to-64", "48c705f50f000078563412 c3", NEAR, 5, "48c705f50ff0ff78563412e9fbffefff", 11, {0: 0}),
    Row("rip-compare-imm8", "833df90f000005 c3", NEAR, 5, "833df90ff0ff05e9fbffefff", 7, {0: 0}),
    Row("rip-test-imm32", "f705f60f0000ff000000 c3", NEAR, 5, "f705f60ff0ffff000000e9fbffefff", 10, {0: 0}),
    Row("rip-sse-load", "0f1005f90f0000 c3", NEAR, 5, "0f1005f90ff0ffe9fbffefff", 7, {0: 0}),
    Row("rip-sse-shuffle-imm8", "660f7005f70f00001b c3", NEAR, 5, "660f7005f70ff0ff1be9fbffefff", 9, {0: 0}),
    Row("rip-sse-map3-imm8", "660f3a0f05f60f000003 c3", NEAR, 5, "660f3a0f05f60ff0ff03e9fbffefff", 10, {0: 0}),
    Row("rip-sse-map2", "660f380005f70f0000 c3", NEAR, 5, "660f380005f70ff0ffe9fbffefff", 9, {0: 0}),
    Row("rip-vex2-load", "c5f81005f80f0000 c3", NEAR, 5, "c5f81005f80ff0ffe9fbffefff", 8, {0: 0}),
    Row("rip-vex3-load", "c4e17a6f05f70f0000 c3", NEAR, 5, "c4e17a6f05f70ff0ffe9fbffefff", 9, {0: 0}),
    Row("rip-evex-load", "62f17c481005f60f0000 c3", NEAR, 5, "62f17c481005f60ff0ffe9fbffefff", 10, {0: 0}),
    Row("rip-call-through-pointer", "ff15fa0f0000 c3", NEAR, 5, "ff15fa0ff0ffe9fbffefff", 6, {0: 0}),
    Row("rip-jump-through-pointer", "ff25fa0f0000", NEAR, 5, "ff25fa0ff0ff", 6, {0: 0}),
    Row("rip-jump-through-pointer-rex", "48ff25f90f0000", NEAR, 5, "48ff25f90ff0ff", 7, {0: 0}),
    Row("rip-segment-override", "65488b05f80f0000 c3", NEAR, 5, "65488b05f80ff0ffe9fbffefff", 8, {0: 0}),
    Row("call-rel32", "e8fb0f0000 c3", NEAR, 5, "e8fb0ff0ffe9fbffefff", 5, {0: 0}),
    Row("call-rel32-behind-sub", "4883ec28 e8f70f0000 c3", NEAR, 5, "4883ec28e8f70ff0ffe9fbffefff", 9, {0: 0, 4: 4}),
    Row("call-own-entry-goes-through-redirect", "e8fbffffff c3", NEAR, 5, "e8fbffefffe9fbffefff", 5, {0: 0}),
    Row("call-rel32-far", "e8fb0f0000 c3", FAR, 5, "ff150a000000ff250c000000cccccccc00200040010000000510004001000000", 5, {0: 0}),
    Row("jmp-rel32", "e9fb0f0000", NEAR, 5, "e9fb0ff0ff", 5, {0: 0}),
    Row("jmp-rel32-bnd", "f2e9fa0f0000", NEAR, 5, "f2e9fa0ff0ff", 6, {0: 0}),
    Row("jmp-rel32-far", "e9fb0f0000", FAR, 5, "ff2502000000cccc0020004001000000", 5, {0: 0}),
    Row("jmp-rel8-and-padding", "eb7e cccccc", NEAR, 5, "e97b00f0ff", 2, {0: 0}),
    Row("jmp-rel8-in-two-bytes", "eb7e 90 c3", NEAR, 2, "e97b00f0ff", 2, {0: 0}),
    Row("je-rel32", "0f84fa0f0000 c3", NEAR, 5, "0f84fa0ff0ffe9fbffefff", 6, {0: 0}),
    Row("jne-rel8", "85c9 757c 90 c3", NEAR, 5, "85c90f857800f0ff90e9f7ffefff", 5, {0: 0, 2: 2, 4: 8}),
    Row("jne-rel8-far", "85c9 757c 90 c3", FAR, 5,
        "85c97406ff250e00000090ff250f000000cccccccccccccc80100040010000000510004001000000", 5, {0: 0, 2: 2, 4: 10}),
    Row("je-rel32-far", "0f84fa0f0000 c3", FAR, 5, "7506ff2508000000ff250a000000cccc00200040010000000610004001000000", 6, {0: 0}),
    Row("jg-rel8-hinted", "4885c9 3e7f7b c3", NEAR, 5, "4885c93e0f8f7700f0ffe9f7ffefff", 6, {0: 0, 3: 3}),
    Row("jcc-to-first-not-moved", "85c9 7401 c3 31c0 c3", NEAR, 5, "85c90f84fdffefffc3", 5, {0: 0, 2: 2, 4: 8}),
    Row("jcc-forward-inside", "85c9 7402 90 90 31c0 c3", NEAR, 7, "85c90f8402000000909031c0e9f7ffefff", 8, {0: 0, 2: 2, 4: 8, 5: 9, 6: 10}),
    Row("jcc-back-inside-to-own-entry", "ffc9 75fc 90 c3", NEAR, 5, "ffc90f85f8ffffff90e9f7ffefff", 5, {0: 0, 2: 2, 4: 8}),
    Row("jmp-inside", "eb01 90 33c0 c3", NEAR, 5, "e9010000009033c0e9f8ffefff", 5, {0: 0, 2: 5, 3: 6}),
    Row("jmp-own-entry", "ffc1 ebfc cc", NEAR, 5, "ffc1e9f9ffffff", 4, {0: 0, 2: 2}),
    Row("jrcxz", "e37e 90 90 90 c3", NEAR, 5, "e302eb05e97700f0ff909090e9f4ffefff", 5, {0: 0, 2: 9, 3: 10, 4: 11}),
    Row("jecxz", "67e37d 90 90 c3", NEAR, 5, "67e302eb05e97600f0ff9090e9f4ffefff", 5, {0: 0, 3: 10, 4: 11}),
    Row("loop", "e27e 90 90 90 c3", NEAR, 5, "e202eb05e97700f0ff909090e9f4ffefff", 5, {0: 0, 2: 9, 3: 10, 4: 11}),
    Row("loope", "e17e 90 90 90 c3", NEAR, 5, "e102eb05e97700f0ff909090e9f4ffefff", 5, {0: 0, 2: 9, 3: 10, 4: 11}),
    Row("loopne", "e07e 90 90 90 c3", NEAR, 5, "e002eb05e97700f0ff909090e9f4ffefff", 5, {0: 0, 2: 9, 3: 10, 4: 11}),
    Row("loop-to-own-entry", "ffc0 e2fc 90 c3", NEAR, 5, "ffc0e202eb05e9f5ffffff90e9f4ffefff", 5, {0: 0, 2: 2, 4: 11}),
    Row("jrcxz-inside", "e301 90 ffc0 c3", NEAR, 5, "e302eb05e90100000090ffc0e9f4ffefff", 5, {0: 0, 2: 9, 3: 10}),
    Row("jrcxz-far", "e37e 90 90 90 c3", FAR, 5,
        "e302eb06ff250e000000909090ff250d000000cccccccccc80100040010000000510004001000000", 5, {0: 0, 2: 10, 3: 11, 4: 12}),
    Row("loop-far", "e27e 90 90 90 c3", FAR, 5,
        "e202eb06ff250e000000909090ff250d000000cccccccccc80100040010000000510004001000000", 5, {0: 0, 2: 10, 3: 11, 4: 12}),
    Row("xbegin", "c7f8fa0f0000 c3", NEAR, 5, "c7f8fa0ff0ffe9fbffefff", 6, {0: 0}),
    Row("ret-and-padding", "c3 cccccccc", NEAR, 5, "c3", 1, {0: 0}),
    Row("ret-and-long-nop", "c3 0f1f440000", NEAR, 5, "c3", 1, {0: 0}),
    Row("ret-imm16-and-padding", "c20800 cccc", NEAR, 5, "c20800", 3, {0: 0}),
    Row("xor-ret-and-padding", "33c0 c3 cccc", NEAR, 5, "33c0c3", 3, {0: 0, 2: 2}),
    Row("ret-in-two-bytes", "f3c3", NEAR, 2, "f3c3", 2, {0: 0}),
    Row("jmp-register", "41ffe3 cccc", NEAR, 5, "41ffe3", 3, {0: 0}),
    Row("notrack-jmp-register", "3effe0 9090", NEAR, 5, "3effe0", 3, {0: 0}),
    Row("jmp-memory", "ff6108 6690", NEAR, 5, "ff6108", 3, {0: 0}),
    Row("ud2-and-padding", "0f0b cccccc", NEAR, 5, "0f0b", 2, {0: 0}),
    Row("fast-fail-and-padding", "cd29 cccccc", NEAR, 5, "cd29", 2, {0: 0}),
    Row("int3-goes-on", "cc 33c0 90 90 c3", NEAR, 5, "cc33c09090e9fbffefff", 5, {0: 0, 1: 1, 3: 3, 4: 4}),
    Row("call-register", "ffd0 90 90 90 c3", NEAR, 5, "ffd0909090e9fbffefff", 5, {0: 0, 2: 2, 3: 3, 4: 4}),
    Row("two-far-branches-share-no-literal", "85c9 747c 757b c3", FAR, 5,
        "85c97506ff250e0000007406ff250e000000ff2510000000801000400100000081100040010000000610004001000000", 6, {0: 0, 2: 2, 4: 10}),
    Row("two-far-branches-share-a-literal", "85c9 747c 0f8576000000 c3", FAR, 5,
        "85c97506ff250e0000007406ff2506000000ff250800000080100040010000000a10004001000000", 10, {0: 0, 2: 2, 4: 10}),
)
# fmt: on
