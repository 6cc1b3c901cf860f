"""Kernel objects as values, and the table of handles to them. An object changes by being replaced, so a snapshot is a copy of the table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CURRENT_PROCESS = 0xFFFF_FFFF_FFFF_FFFF
CURRENT_THREAD = 0xFFFF_FFFF_FFFF_FFFE
"""Pseudo handles (MS Learn, GetCurrentProcess and GetCurrentThread)."""
INVALID_HANDLE = 0xFFFF_FFFF_FFFF_FFFF

_FIRST_HANDLE = 0x40
_HANDLE_STEP = 4


class Stream(StrEnum):
    """The standard streams."""

    INPUT = "stdin"
    OUTPUT = "stdout"
    ERROR = "stderr"


@dataclass(frozen=True, slots=True)
class Event:
    """``manual`` events stay signalled until they are reset."""

    manual: bool
    signalled: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Semaphore:
    """A count that waits take from."""

    count: int
    maximum: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Mutex:
    """Owned ``depth`` times by thread ``owner``; free with owner 0."""

    owner: int
    depth: int
    abandoned: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class ThreadObject:
    """Signalled when thread ``thread`` has ended."""

    thread: int
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessObject:
    """The process itself."""


@dataclass(frozen=True, slots=True)
class StreamObject:
    """A standard stream."""

    stream: Stream


KernelObject = Event | Semaphore | Mutex | ThreadObject | ProcessObject | StreamObject


HandleState = tuple[dict[int, KernelObject], dict[int, int], int, int]
"""A copy of a :class:`HandleTable`."""


class HandleTable:
    """Handles → object numbers → objects."""

    def __init__(self) -> None:
        self.objects: dict[int, KernelObject] = {}
        self.handles: dict[int, int] = {}
        self._next_object = 1
        self._next_handle = _FIRST_HANDLE

    def add(self, thing: KernelObject) -> int:
        """A new object; returns its number."""
        number = self._next_object
        self._next_object += 1
        self.objects[number] = thing
        return number

    def open(self, number: int) -> int:
        """A new handle to object ``number``."""
        handle = self._next_handle
        self._next_handle += _HANDLE_STEP
        self.handles[handle] = number
        return handle

    def close(self, handle: int) -> bool:
        """Forget a handle; whether there was one. Objects stay: they are few, and waits may still name them."""
        return self.handles.pop(handle, None) is not None

    def number_of(self, handle: int) -> int | None:
        """The object number behind ``handle``."""
        return self.handles.get(handle)

    def named(self, name: str) -> int | None:
        """The number of the object called ``name`` (case matters, as on Windows)."""
        return next((number for number, thing in self.objects.items() if getattr(thing, "name", "") == name), None) if name else None

    def state(self) -> HandleState:
        """A copy for a snapshot."""
        return dict(self.objects), dict(self.handles), self._next_object, self._next_handle

    def restore(self, state: HandleState) -> None:
        """Back to a copy."""
        objects, handles, self._next_object, self._next_handle = state
        self.objects, self.handles = dict(objects), dict(handles)
