"""Waits, events, semaphores, mutexes, critical sections, reader/writer locks, condition variables, once-initialisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from hotpatch.emulator import waits
from hotpatch.emulator.layout import TICKS_PER_MILLISECOND
from hotpatch.emulator.objects import Event, Mutex, Semaphore
from hotpatch.emulator.threads import Invoke
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
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome

TABLE = Table()
_Kind = TypeVar("_Kind", Event, Semaphore, Mutex)

_WAIT_FAILED = 0xFFFF_FFFF
_MAXIMUM_WAIT_OBJECTS = 64
_MANUAL_RESET, _INITIALLY_SET = 1, 2
_INITIAL_OWNER = 1
_LOCKMODE_SHARED = 1
_ONCE_CHECK_ONLY, _ONCE_ASYNC, _ONCE_FAILED = 1, 2, 4
_ONCE_BUSY, _ONCE_DONE = 1, 2


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


# critical sections ------------------------------------------------------------------------------------------------------------------------


@TABLE.provide("InitializeCriticalSection", "RtlInitializeCriticalSection")
def initialize_critical_section(call: Call, section: Word) -> int:
    """InitializeCriticalSection."""
    call.system.sync.section_initialise(section, 0)
    return 0


@TABLE.provide("InitializeCriticalSectionAndSpinCount")
def initialize_critical_section_and_spin_count(call: Call, section: Word, spin: Dword) -> int:
    """InitializeCriticalSectionAndSpinCount."""
    call.system.sync.section_initialise(section, spin)
    return 1


@TABLE.provide("InitializeCriticalSectionEx")
def initialize_critical_section_ex(call: Call, section: Word, spin: Dword, flags: Dword) -> int:
    """InitializeCriticalSectionEx."""
    return initialize_critical_section_and_spin_count(call, section, spin)


@TABLE.provide("EnterCriticalSection", "RtlEnterCriticalSection")
def enter_critical_section(call: Call, section: Word) -> Outcome:
    """EnterCriticalSection."""
    sync = call.system.sync
    if sync.section_owner(section) == call.thread.id:
        sync.section_take(section, call.thread.id)
        return 0
    return waits.CriticalSection(section)


@TABLE.provide("TryEnterCriticalSection", "RtlTryEnterCriticalSection")
def try_enter_critical_section(call: Call, section: Word) -> int:
    """TryEnterCriticalSection."""
    sync = call.system.sync
    if sync.section_owner(section) not in (0, call.thread.id):
        return 0
    sync.section_take(section, call.thread.id)
    return 1


@TABLE.provide("LeaveCriticalSection", "RtlLeaveCriticalSection")
def leave_critical_section(call: Call, section: Word) -> int:
    """LeaveCriticalSection."""
    call.system.sync.section_leave(section)
    return 0


@TABLE.provide("DeleteCriticalSection", "RtlDeleteCriticalSection")
def delete_critical_section(call: Call, section: Word) -> int:
    """DeleteCriticalSection."""
    call.system.sync.section_initialise(section, 0)
    return 0


# reader/writer locks and condition variables ----------------------------------------------------------------------------------------------


@TABLE.provide("InitializeSRWLock", "InitializeConditionVariable", "InitOnceInitialize", "RtlInitializeSRWLock")
def initialize_word(call: Call, address: Word) -> int:
    """InitializeSRWLock and others of one word."""
    call.put64(address, 0)
    return 0


@TABLE.provide("AcquireSRWLockExclusive", "RtlAcquireSRWLockExclusive")
def acquire_exclusive(call: Call, lock: Word) -> Outcome:
    """AcquireSRWLockExclusive."""
    return waits.ReaderWriterLock(lock, shared=False)


@TABLE.provide("AcquireSRWLockShared", "RtlAcquireSRWLockShared")
def acquire_shared(call: Call, lock: Word) -> Outcome:
    """AcquireSRWLockShared."""
    return waits.ReaderWriterLock(lock, shared=True)


def _try_lock(call: Call, lock: int, *, shared: bool) -> int:
    if not call.system.sync.lock_free(lock, shared=shared):
        return 0
    call.system.sync.lock_take(lock, shared=shared)
    return 1


@TABLE.provide("TryAcquireSRWLockExclusive")
def try_exclusive(call: Call, lock: Word) -> int:
    """TryAcquireSRWLockExclusive."""
    return _try_lock(call, lock, shared=False)


@TABLE.provide("TryAcquireSRWLockShared")
def try_shared(call: Call, lock: Word) -> int:
    """TryAcquireSRWLockShared."""
    return _try_lock(call, lock, shared=True)


@TABLE.provide("ReleaseSRWLockExclusive", "RtlReleaseSRWLockExclusive")
def release_exclusive(call: Call, lock: Word) -> int:
    """ReleaseSRWLockExclusive."""
    call.system.sync.lock_release(lock, shared=False)
    return 0


@TABLE.provide("ReleaseSRWLockShared", "RtlReleaseSRWLockShared")
def release_shared(call: Call, lock: Word) -> int:
    """ReleaseSRWLockShared."""
    call.system.sync.lock_release(lock, shared=True)
    return 0


@TABLE.provide("SleepConditionVariableCS")
def sleep_condition_section(call: Call, condition: Word, section: Word, milliseconds: Dword) -> Outcome:
    """SleepConditionVariableCS."""
    sync = call.system.sync
    depth = sync.section_depth(section)
    sync.section_leave(section, depth)
    return waits.Condition(condition, waits.CriticalSection(section), depth, deadline(call, milliseconds))


@TABLE.provide("SleepConditionVariableSRW")
def sleep_condition_lock(call: Call, condition: Word, lock: Word, milliseconds: Dword, flags: Dword) -> Outcome:
    """SleepConditionVariableSRW."""
    shared = bool(flags & _LOCKMODE_SHARED)
    call.system.sync.lock_release(lock, shared=shared)
    return waits.Condition(condition, waits.ReaderWriterLock(lock, shared=shared), 1, deadline(call, milliseconds))


@TABLE.provide("WakeConditionVariable", "WakeByAddressSingle", "RtlWakeConditionVariable", "RtlWakeAddressSingle")
def wake_one(call: Call, address: Word) -> int:
    """WakeConditionVariable, WakeByAddressSingle."""
    call.system.sync.wake(address, every=False)
    return 0


@TABLE.provide("WakeAllConditionVariable", "WakeByAddressAll", "RtlWakeAllConditionVariable", "RtlWakeAddressAll")
def wake_all(call: Call, address: Word) -> int:
    """WakeAllConditionVariable, WakeByAddressAll."""
    call.system.sync.wake(address, every=True)
    return 0


@TABLE.provide("WaitOnAddress")
def wait_on_address(call: Call, address: Word, compare: Word, size: Word, milliseconds: Dword) -> Outcome:
    """WaitOnAddress."""
    if size not in (1, 2, 4, 8):
        return call.fail(ERROR_INVALID_PARAMETER)
    if call.read(address, size) != call.read(compare, size):
        return 1
    return waits.Memory(address, deadline(call, milliseconds))


# once-initialisation ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnceFinished:
    """The callback of InitOnceExecuteOnce has returned."""

    once: int
    context: int

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Mark it done, or to be tried again; wake who waits."""
        done = value & 0xFFFF_FFFF
        keep = system.guest_word(self.context) & ~3 if self.context and done else 0
        system.guest_write(self.once, (keep | _ONCE_DONE if done else 0).to_bytes(8, "little"))
        system.sync.wake(self.once, every=True)
        return int(bool(done))


@dataclass(frozen=True, slots=True)
class OnceWait:
    """Another thread is initialising."""

    once: int
    function: int
    parameter: int
    context: int
    deadline: int | None = None

    def ready(self, system: System, thread: GuestThread) -> bool:
        """Whether it is done with it and succeeded."""
        return bool(system.guest_word(self.once) & 3 != _ONCE_BUSY)

    def finish(self, system: System, thread: GuestThread, *, timed_out: bool) -> int:
        """Give the context; a failure of the other thread is this one's failure too."""
        word = system.guest_word(self.once)
        if word & 3 == _ONCE_DONE and self.context:
            system.guest_write(self.context, (word & ~3).to_bytes(8, "little"))
        return int(word & 3 == _ONCE_DONE)

    def describe(self, system: System) -> str:
        """For a report."""
        return f"the once-initialisation at 0x{self.once:x}"


@TABLE.provide("InitOnceExecuteOnce", "RtlRunOnceExecuteOnce")
def init_once_execute_once(call: Call, once: Word, function: Word, parameter: Word, context: Word) -> Outcome:
    """InitOnceExecuteOnce."""
    word = call.get64(once)
    if word & 3 == _ONCE_DONE:
        if context:
            call.put64(context, word & ~3)
        return 1
    if word & 3 == _ONCE_BUSY:
        return OnceWait(once, function, parameter, context)
    call.put64(once, _ONCE_BUSY)
    return Invoke(function, (once, parameter, context), OnceFinished(once, context))


@TABLE.provide("InitOnceBeginInitialize")
def init_once_begin_initialize(call: Call, once: Word, flags: Dword, pending: Word, context: Word) -> Outcome:
    """InitOnceBeginInitialize; synchronous."""
    word = call.get64(once)
    done = word & 3 == _ONCE_DONE
    call.put32_if(pending, int(not done))
    if done:
        if context:
            call.put64(context, word & ~3)
        return 1
    if flags & _ONCE_CHECK_ONLY:
        return call.fail(ERROR_INVALID_PARAMETER)
    if word & 3 == _ONCE_BUSY and not flags & _ONCE_ASYNC:
        call.put32_if(pending, 0)
        return OnceWait(once, 0, 0, context)
    call.put64(once, _ONCE_BUSY)
    return 1


@TABLE.provide("InitOnceComplete")
def init_once_complete(call: Call, once: Word, flags: Dword, context: Word) -> int:
    """InitOnceComplete."""
    call.put64(once, 0 if flags & _ONCE_FAILED else context & ~3 | _ONCE_DONE)
    call.system.sync.wake(once, every=True)
    return 1
