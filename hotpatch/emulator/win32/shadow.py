"""Shadow data: memory of the process's heap that belongs to an object and an id, for fields that a structure never had.

The functions of ``hotpatch.dll``, which stands for whoever patches (``docs/patch-format.md``), after Linux' shadow variables
(Documentation/livepatch/shadow-vars.rst). An object is any 64-bit number; 0 does for data of the whole program. Shadow data outlive the
patch that attached them, so that the next one finds them.
"""

from __future__ import annotations

from hotpatch.emulator.win32.call import Call, Dword, Table, Word

TABLE = Table()


@TABLE.provide("hotpatch_shadow_get")
def shadow_get(call: Call, obj: Word, number: Dword) -> int:
    """The data of an object under an id, or NULL."""
    return call.system.shadows.get((number, obj), 0)


@TABLE.provide("hotpatch_shadow_attach")
def shadow_attach(call: Call, obj: Word, number: Dword, size: Word) -> int:
    """The data of an object under an id; new ones are ``size`` zero bytes. NULL where there is no room."""
    shadows = call.system.shadows
    address = shadows.get((number, obj), 0)
    if not address:
        address = call.system.heap.allocate(size, zero=True)
        if address:
            shadows[number, obj] = address
    return address


@TABLE.provide("hotpatch_shadow_detach")
def shadow_detach(call: Call, obj: Word, number: Dword) -> int:
    """Free the data of an object under an id; whether there were any."""
    address = call.system.shadows.pop((number, obj), 0)
    return int(address and call.system.heap.free(address))


@TABLE.provide("hotpatch_shadow_free_all")
def shadow_free_all(call: Call, number: Dword) -> int:
    """Free the data of all objects under an id; how many there were."""
    found = [key for key in call.system.shadows if key[0] == number]
    for key in found:
        call.system.heap.free(call.system.shadows.pop(key))
    return len(found)
