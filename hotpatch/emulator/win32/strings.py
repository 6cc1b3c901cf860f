"""Strings and characters: kernel32's and the C run time's."""

from __future__ import annotations

from hotpatch.emulator.win32.call import (
    ERROR_INSUFFICIENT_BUFFER,
    ERROR_INVALID_PARAMETER,
    ERROR_NO_UNICODE_TRANSLATION,
    Call,
    Dword,
    Int,
    Table,
    Word,
)

TABLE = Table()

_CODE_PAGES = {0: "utf-8", 1: "utf-8", 3: "utf-8", 65001: "utf-8", 1252: "cp1252", 437: "cp437", 20127: "ascii", 28591: "latin-1"}
_ERR_INVALID_CHARS = 8
_WORD = (1 << 64) - 1


@TABLE.provide("MultiByteToWideChar")
def multi_byte_to_wide_char(call: Call, page: Dword, flags: Dword, source: Word, size: Int, target: Word, room: Int) -> int:
    """MultiByteToWideChar."""
    encoding = _CODE_PAGES.get(page)
    if encoding is None or not size:
        return call.fail(ERROR_INVALID_PARAMETER)
    data = call.string(source) + b"\0" if size < 0 else call.read(source, size)
    try:
        text = data.decode(encoding, "strict" if flags & _ERR_INVALID_CHARS else "replace")
    except UnicodeDecodeError:
        return call.fail(ERROR_NO_UNICODE_TRANSLATION)
    return _store(call, text.encode("utf-16-le"), 2, target, room)


@TABLE.provide("WideCharToMultiByte")
def wide_char_to_multi_byte(
    call: Call, page: Dword, flags: Dword, source: Word, size: Int, target: Word, room: Int, default: Word, used: Word
) -> int:
    """WideCharToMultiByte."""
    encoding = _CODE_PAGES.get(page)
    if encoding is None or not size:
        return call.fail(ERROR_INVALID_PARAMETER)
    text = call.wide(source) + "\0" if size < 0 else call.read(source, 2 * size).decode("utf-16-le", "replace")
    return _store(call, text.encode(encoding, "replace"), 1, target, room)


def _store(call: Call, data: bytes, width: int, target: int, room: int) -> int:
    count = len(data) // width
    if not room:
        return count
    if room < count:
        return call.fail(ERROR_INSUFFICIENT_BUFFER)
    call.write(target, data)
    return count


@TABLE.provide("lstrlenA", "strlen")
def strlen(call: Call, text: Word) -> int:
    """Strlen; lstrlenA takes null for empty."""
    return len(call.string(text)) if text else 0


@TABLE.provide("lstrlenW", "wcslen")
def wcslen(call: Call, text: Word) -> int:
    """Wcslen."""
    return len(call.system.guest_string(text, 2)) // 2 if text else 0


@TABLE.provide("strnlen")
def strnlen(call: Call, text: Word, limit: Word) -> int:
    """Strnlen."""
    count = 0
    while count < limit and call.read(text + count, 1) != b"\0":
        count += 1
    return count


@TABLE.provide("lstrcpyA", "strcpy")
def strcpy(call: Call, target: Word, source: Word) -> int:
    """Strcpy."""
    call.write(target, call.string(source) + b"\0")
    return target


@TABLE.provide("strncpy")
def strncpy(call: Call, target: Word, source: Word, size: Word) -> int:
    """Strncpy."""
    if size:
        call.write(target, call.string(source)[:size].ljust(size, b"\0"))
    return target


@TABLE.provide("lstrcatA", "strcat")
def strcat(call: Call, target: Word, source: Word) -> int:
    """Strcat."""
    call.write(target + len(call.string(target)), call.string(source) + b"\0")
    return target


def _sign(one: bytes, other: bytes) -> int:
    return ((one > other) - (one < other)) & _WORD


@TABLE.provide("strcmp")
def strcmp(call: Call, one: Word, other: Word) -> int:
    """Strcmp."""
    return _sign(call.string(one), call.string(other))


@TABLE.provide("strncmp")
def strncmp(call: Call, one: Word, other: Word, size: Word) -> int:
    """Strncmp."""
    return _sign(call.string(one)[:size], call.string(other)[:size]) if size else 0


@TABLE.provide("lstrcmpiA", "_stricmp", "stricmp")
def stricmp(call: Call, one: Word, other: Word) -> int:
    """_stricmp of ASCII letters."""
    return _sign(call.string(one).lower(), call.string(other).lower())


@TABLE.provide("lstrcmpA")
def lstrcmp(call: Call, one: Word, other: Word) -> int:
    """LstrcmpA, by bytes."""
    return strcmp(call, one, other)


@TABLE.provide("strchr")
def strchr(call: Call, text: Word, character: Dword) -> int:
    """Strchr."""
    at = (call.string(text) + b"\0").find(character & 0xFF)
    return text + at if at >= 0 else 0


@TABLE.provide("strrchr")
def strrchr(call: Call, text: Word, character: Dword) -> int:
    """Strrchr."""
    at = (call.string(text) + b"\0").rfind(character & 0xFF)
    return text + at if at >= 0 else 0


@TABLE.provide("strstr")
def strstr(call: Call, text: Word, part: Word) -> int:
    """Strstr."""
    at = call.string(text).find(call.string(part))
    return text + at if at >= 0 else 0


@TABLE.provide("memcpy", "memmove", "RtlCopyMemory", "RtlMoveMemory")
def memmove(call: Call, target: Word, source: Word, size: Word) -> int:
    """Memmove."""
    if size:
        call.write(target, call.read(source, size))
    return target


@TABLE.provide("memset")
def memset(call: Call, target: Word, value: Dword, size: Word) -> int:
    """Memset."""
    if size:
        call.system.guest_fill(target, value & 0xFF, size)
    return target


@TABLE.provide("RtlZeroMemory")
def zero_memory(call: Call, target: Word, size: Word) -> int:
    """RtlZeroMemory."""
    return memset(call, target, 0, size)


@TABLE.provide("memcmp")
def memcmp(call: Call, one: Word, other: Word, size: Word) -> int:
    """Memcmp."""
    return _sign(call.read(one, size), call.read(other, size)) if size else 0


@TABLE.provide("memchr")
def memchr(call: Call, block: Word, value: Dword, size: Word) -> int:
    """Memchr."""
    at = call.read(block, size).find(value & 0xFF) if size else -1
    return block + at if at >= 0 else 0


@TABLE.provide("tolower")
def tolower(call: Call, character: Int) -> int:
    """Tolower of ASCII."""
    return character + 32 if 65 <= character <= 90 else character


@TABLE.provide("toupper")
def toupper(call: Call, character: Int) -> int:
    """Toupper of ASCII."""
    return character - 32 if 97 <= character <= 122 else character


@TABLE.provide("isdigit")
def isdigit(call: Call, character: Int) -> int:
    """Isdigit."""
    return int(48 <= character <= 57)


@TABLE.provide("isspace")
def isspace(call: Call, character: Int) -> int:
    """Isspace."""
    return int(character in (9, 10, 11, 12, 13, 32))


@TABLE.provide("isalpha")
def isalpha(call: Call, character: Int) -> int:
    """Isalpha."""
    return int(0 <= character < 128 and chr(character).isalpha())


@TABLE.provide("isalnum")
def isalnum(call: Call, character: Int) -> int:
    """Isalnum."""
    return int(0 <= character < 128 and chr(character).isalnum())
