"""Waits, and the kernel objects that are waited for: events, semaphores, mutexes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from hotpatch.emulator import waits
from hotpatch.emulator.layout import TICKS_PER_MILLISECOND
from hotpatch.emulator.objects import Event, Mutex, Semaphore
from hotpatch.emulator.waits import INFINITE
from hotpatch.emulator.win32.call import (
    ERROR_ALREADY_EXISTS,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_OWNER,
    ERROR_TOO_MANY_POSTS,
    Call,
    Dword,
    Int,
    Table,
    Word,
)
from hotpatch.emulator.win32.streams import object_number

if TYPE_CHECKING:
    from hotpatch.emulator.threads import Outcome

TABLE = Table()
_Kind = TypeVar("_Kind", Event, Semaphore, Mutex)

_WAIT_FAILED = 0xFFFF_FFFF
_MAXIMUM_WAIT_OBJECTS = 64
_MANUAL_RESET, _INITIALLY_SET = 1, 2
_INITIAL_OWNER = 1


def deadline(call: Call, milliseconds: int) -> int | None:
    """Virtual time at which a wait gives up."""
    return None if milliseconds == INFINITE else call.system.now + milliseconds * TICKS_PER_MILLISECOND


# waits ------------------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("WaitForSingleObject")
def wait_for_single_object(call: Call, handle: Word, milliseconds: Dword) -> Outcome:
    """WaitForSingleObject."""
    number = object_number(call, handle)
    if number is None:
        return call.fail(ERROR_INVALID_HANDLE, _WAIT_FAILED)
    return waits.Objects((number,), every=False, deadline=deadline(call, milliseconds))


@TABLE.provide("WaitForSingleObjectEx")
def wait_for_single_object_ex(call: Call, handle: Word, milliseconds: Dword, alertable: Dword) -> Outcome:
    """WaitForSingleObjectEx; nothing ever alerts."""
    return wait_for_single_object(call, handle, milliseconds)


@TABLE.provide("WaitForMultipleObjects")
def wait_for_multiple_objects(call: Call, count: Dword, handles: Word, every: Dword, milliseconds: Dword) -> Outcome:
    """WaitForMultipleObjects."""
    if not 1 <= count <= _MAXIMUM_WAIT_OBJECTS:
        return call.fail(ERROR_INVALID_PARAMETER, _WAIT_FAILED)
    numbers = [object_number(call, call.get64(handles + 8 * index)) for index in range(count)]
    if any(number is None for number in numbers):
        return call.fail(ERROR_INVALID_HANDLE, _WAIT_FAILED)
    return waits.Objects(
        tuple(number for number in numbers if number is not None), every=bool(every), deadline=deadline(call, milliseconds)
    )


@TABLE.provide("WaitForMultipleObjectsEx")
def wait_for_multiple_objects_ex(call: Call, count: Dword, handles: Word, every: Dword, milliseconds: Dword, alertable: Dword) -> Outcome:
    """WaitForMultipleObjectsEx; nothing ever alerts."""
    return wait_for_multiple_objects(call, count, handles, every, milliseconds)


# kernel objects ---------------------------------------------------------------------------------------------------------------------------


def _create(call: Call, thing: Event | Semaphore | Mutex) -> int:
    handles = call.system.handles
    existing = handles.named(thing.name)
    if existing is not None:
        if type(handles.objects[existing]) is not type(thing):
            return call.fail(ERROR_INVALID_HANDLE)
        call.fail(ERROR_ALREADY_EXISTS)
        return handles.open(existing)
    call.fail(0)
    return handles.open(handles.add(thing))


def _named(call: Call, name: int, *, wide: bool) -> str:
    if not name:
        return ""
    return call.wide(name) if wide else call.string(name).decode("utf-8", "replace")


def _get(call: Call, handle: int, kind: type[_Kind]) -> tuple[int, _Kind] | None:
    number = object_number(call, handle)
    thing = None if number is None else call.system.handles.objects[number]
    return (number, thing) if number is not None and isinstance(thing, kind) else None


@TABLE.provide("CreateEventW")
def create_event_w(call: Call, security: Word, manual: Dword, signalled: Dword, name: Word) -> int:
    """CreateEventW."""
    return _create(call, Event(bool(manual), bool(signalled), _named(call, name, wide=True)))


@TABLE.provide("CreateEventA")
def create_event_a(call: Call, security: Word, manual: Dword, signalled: Dword, name: Word) -> int:
    """CreateEventA."""
    return _create(call, Event(bool(manual), bool(signalled), _named(call, name, wide=False)))


@TABLE.provide("CreateEventExW")
def create_event_ex_w(call: Call, security: Word, name: Word, flags: Dword, access: Dword) -> int:
    """CreateEventExW."""
    return _create(call, Event(bool(flags & _MANUAL_RESET), bool(flags & _INITIALLY_SET), _named(call, name, wide=True)))


@TABLE.provide("OpenEventW")
def open_event_w(call: Call, access: Dword, inherit: Dword, name: Word) -> int:
    """OpenEventW."""
    number = call.system.handles.named(call.wide(name))
    return call.fail(ERROR_FILE_NOT_FOUND) if number is None else call.system.handles.open(number)


def _set_event(call: Call, handle: int, *, signalled: bool) -> int:
    found = _get(call, handle, Event)
    if found is None:
        return call.fail(ERROR_INVALID_HANDLE)
    call.system.handles.objects[found[0]] = replace(found[1], signalled=signalled)
    return 1


@TABLE.provide("SetEvent")
def set_event(call: Call, handle: Word) -> int:
    """SetEvent."""
    return _set_event(call, handle, signalled=True)


@TABLE.provide("ResetEvent")
def reset_event(call: Call, handle: Word) -> int:
    """ResetEvent."""
    return _set_event(call, handle, signalled=False)


@TABLE.provide("CreateSemaphoreW")
def create_semaphore_w(call: Call, security: Word, initial: Int, maximum: Int, name: Word) -> int:
    """CreateSemaphoreW."""
    if not 0 <= initial <= maximum or maximum < 1:
        return call.fail(ERROR_INVALID_PARAMETER)
    return _create(call, Semaphore(initial, maximum, _named(call, name, wide=True)))


@TABLE.provide("CreateSemaphoreA")
def create_semaphore_a(call: Call, security: Word, initial: Int, maximum: Int, name: Word) -> int:
    """CreateSemaphoreA."""
    if not 0 <= initial <= maximum or maximum < 1:
        return call.fail(ERROR_INVALID_PARAMETER)
    return _create(call, Semaphore(initial, maximum, _named(call, name, wide=False)))


@TABLE.provide("CreateSemaphoreExW")
def create_semaphore_ex_w(call: Call, security: Word, initial: Int, maximum: Int, name: Word, flags: Dword, access: Dword) -> int:
    """CreateSemaphoreExW."""
    return create_semaphore_w(call, security, initial, maximum, name)


@TABLE.provide("ReleaseSemaphore")
def release_semaphore(call: Call, handle: Word, count: Int, previous: Word) -> int:
    """ReleaseSemaphore."""
    found = _get(call, handle, Semaphore)
    if found is None:
        return call.fail(ERROR_INVALID_HANDLE)
    number, thing = found
    if count < 1:
        return call.fail(ERROR_INVALID_PARAMETER)
    if thing.count + count > thing.maximum:
        return call.fail(ERROR_TOO_MANY_POSTS)
    call.put32_if(previous, thing.count)
    call.system.handles.objects[number] = replace(thing, count=thing.count + count)
    return 1


@TABLE.provide("CreateMutexW")
def create_mutex_w(call: Call, security: Word, owned: Dword, name: Word) -> int:
    """CreateMutexW."""
    return _create(call, Mutex(call.thread.id if owned else 0, int(bool(owned)), name=_named(call, name, wide=True)))


@TABLE.provide("CreateMutexA")
def create_mutex_a(call: Call, security: Word, owned: Dword, name: Word) -> int:
    """CreateMutexA."""
    return _create(call, Mutex(call.thread.id if owned else 0, int(bool(owned)), name=_named(call, name, wide=False)))


@TABLE.provide("CreateMutexExW")
def create_mutex_ex_w(call: Call, security: Word, name: Word, flags: Dword, access: Dword) -> int:
    """CreateMutexExW."""
    return create_mutex_w(call, security, flags & _INITIAL_OWNER, name)


@TABLE.provide("ReleaseMutex")
def release_mutex(call: Call, handle: Word) -> int:
    """ReleaseMutex."""
    found = _get(call, handle, Mutex)
    if found is None:
        return call.fail(ERROR_INVALID_HANDLE)
    number, thing = found
    if thing.owner != call.thread.id:
        return call.fail(ERROR_NOT_OWNER)
    depth = thing.depth - 1
    call.system.handles.objects[number] = replace(thing, depth=depth, owner=thing.owner if depth else 0)
    return 1
