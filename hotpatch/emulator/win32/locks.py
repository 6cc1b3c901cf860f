"""Locks in the program's memory: critical sections, reader/writer locks, condition variables, once-initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.emulator import waits
from hotpatch.emulator.threads import Invoke
from hotpatch.emulator.win32.call import ERROR_INVALID_PARAMETER, Call, Dword, Table, Word
from hotpatch.emulator.win32.handles import deadline

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome

TABLE = Table()

_LOCKMODE_SHARED = 1
_ONCE_CHECK_ONLY, _ONCE_ASYNC, _ONCE_FAILED = 1, 2, 4
_ONCE_BUSY, _ONCE_DONE = 1, 2


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
