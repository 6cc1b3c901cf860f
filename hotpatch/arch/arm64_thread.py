"""Arm64: how code loads where a thread has its copy of the image's thread-local data. The thread's environment block is in x18."""

from __future__ import annotations

import re

from hotpatch.arch.arm64_constants import whole_register
from hotpatch.arch.thread_block import Form

FORM = Form(
    load="ldr",
    array=re.compile(r"(x\d+), \[x18, #0x58\]$"),
    block=re.compile(r"(x\d+), \[(x\d+)(?:, (?:x|w)\d+, (?:lsl|uxtw|sxtw) #3)?\]$"),
    whole=whole_register,
    not_writing=("st", "cmp", "cmn", "tst", "cb", "tb", "ccm"),
)
