"""What every instruction set answers, in one interface.

Nothing here knows files, processes or policy. Addresses are plain integers in whatever space the caller decodes in (RVAs for images,
VAs for processes): a reference's target comes out in the space of the address that was passed in.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from hotpatch.arch.model import LONGEST_INSTRUCTION, Flow, columns_of, reference_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hotpatch.arch.accessed import Handed
    from hotpatch.arch.certain import Counted, Held
    from hotpatch.arch.constants import Constant
    from hotpatch.arch.deeds import Deeds
    from hotpatch.arch.model import (
        CallingConvention,
        CodeWrite,
        Columns,
        DistanceTable,
        EntrySite,
        FixupKind,
        Instruction,
        JumpTable,
        Machine,
        Redirect,
        Reference,
        Row,
        Step,
        Trampoline,
    )
    from hotpatch.arch.outline import Outline
    from hotpatch.arch.reach import Reached


class Architecture(ABC):
    """One instruction set. Stateless; get it with :func:`hotpatch.arch.architecture`."""

    machine: Machine
    instruction_alignment: int
    """Bytes."""
    convention: CallingConvention
    branch_reach: int
    """Largest distance in bytes of the direct jump and call (x64: 2**31 - 1, Arm64: 2**27 - 4)."""
    veneer_reach: int
    """Largest distance in bytes at which code can refer to data and, through veneers, branch (Arm64: what ADRP reaches both ways)."""
    padding_bytes: tuple[bytes, ...]
    """What compilers and linkers fill gaps between functions with, as whole instructions, longest first; the last one traps."""

    @property
    def trap(self) -> bytes:
        """What no run may get to: ``int3``, ``brk #0xf000``."""
        return self.padding_bytes[-1]

    @cached_property
    def fillers(self) -> re.Pattern[bytes]:
        """Matches whole :attr:`padding_bytes`, as many as follow each other, the longest first."""
        return re.compile(b"(?:%b)*+" % b"|".join(map(re.escape, self.padding_bytes)))

    # reading -----------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def disassemble(self, code: bytes, address: int) -> Iterator[Instruction]:
        """Decode until the first undecodable byte; the caller sees that by the sizes not adding up."""

    @abstractmethod
    def steps(self, code: bytes) -> tuple[Step, ...]:
        """The instructions of ``code`` at address 0, until the first undecodable byte; remembered for a while: meant for short pieces."""

    def operation(self, text: str) -> str:
        """What an instruction does by its text, operands apart; the same where compilers choose among several for one thing."""
        return text.partition(" ")[0]

    def first_jump(self, code: bytes, address: int) -> int | None:
        """Where the direct jump leads that ``code`` begins with; ``None`` where it begins with anything else."""
        first = next(iter(self.disassemble(code[:LONGEST_INSTRUCTION], address)), None)
        return first.target if first is not None and first.flow is Flow.JUMP else None

    def references(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> tuple[Reference, ...]:
        """Every operand of ``code`` that names an address, inside or outside of it, by offset.

        ``holes`` (start and end addresses, sorted) are no instructions: tables that stand in the code.
        ``image_base`` is the image's base in the caller's space (0 when ``address`` is an RVA): arithmetic on a register that holds it
        gives ADDR32NB references.
        """
        return tuple(map(reference_of, self.rows(code, address, image_base=image_base, holes=holes)))

    @abstractmethod
    def rows(self, code: bytes, address: int, *, image_base: int = 0, holes: Sequence[tuple[int, int]] = ()) -> Sequence[Row]:
        """What :meth:`references` gives, as plain tuples."""

    @abstractmethod
    def jump_tables(
        self,
        code: bytes,
        address: int,
        read: Callable[[int, int], bytes],
        *,
        image_base: int = 0,
        limit: Callable[[int, int], int] | None = None,
    ) -> tuple[JumpTable, ...]:
        """The tables that indirect jumps in ``code`` go through; ``read(address, size)`` gives the image's bytes (shorter at an end).

        ``limit(address, entry_size)`` tells where a table of such entries must end at the latest, for those whose number of entries no
        comparison of the index gives (:attr:`JumpTable.exact`).
        """

    @abstractmethod
    def distance_tables(self, code: bytes, address: int, *, image_base: int = 0) -> tuple[DistanceTable, ...]:
        """The tables in whose entries ``code`` finds distances from the table itself, by address; jump tables of that form among them."""

    def mask(self, code: bytes, references: Sequence[Row]) -> bytes:
        """``code`` with the field of each of ``references`` zeroed (for Arm64: only the immediate's bits)."""
        return self.blank(code, columns_of(references))

    @abstractmethod
    def blank(self, code: bytes, references: Columns) -> bytes:
        """The same."""

    @abstractmethod
    def takes_analysis(self, code: bytes) -> bool:
        """Whether :meth:`rows` must follow registers through ``code``, which takes many times as long as comparing it with an outline."""

    @abstractmethod
    def is_exemplary(self, outline: Outline, *, image_base: int = 0) -> bool:
        """Whether all code with ``outline`` refers in the same ways as that which it was made of, only elsewhere.

        So it is where nothing but the bits outside of the outward fields decides how code is understood: no jump tables, no arithmetic on
        the image base.
        """

    @abstractmethod
    def reread(self, outline: Outline, code: bytes, address: int, *, image_base: int = 0) -> tuple[int, ...] | None:
        """Where the outward references of ``code``, which has the exemplary ``outline``, lead; ``None`` where only decoding can tell.

        They lead where the outward ones of :meth:`references` do.
        """

    @abstractmethod
    def constants(self, code: bytes, address: int, *, followed: Collection[int] | None = None) -> tuple[Constant, ...]:
        """The numbers that ``code`` loads, with the calls that get each as an argument and whether nothing else does.

        Where those at the offsets ``followed`` go is looked for; of others, nothing of that is known (``None``: of none). It takes as
        long as the code behind each is.
        """

    @abstractmethod
    def never_reads(self, code: bytes, address: int, offset: int, register: str) -> bool:
        """Whether nothing for certain, and no call, reads what ``register`` (64 bits) holds before the instruction at ``offset``."""

    @abstractmethod
    def reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """What a function reaches at constant distances from the addresses that it names, by address of the instruction that does.

        Args:
            instructions: All of the function's, by address.
            naming: Addresses of those that name a whole address of data, by a field of :data:`WHOLE_KINDS`.
            edges: Address of a jump through a table → where it leads.
        """

    @abstractmethod
    def first_reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """The same as :meth:`reached` where no way goes back: what loops reach in their first round, on the ways that lead into them."""

    @abstractmethod
    def ever_reached(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> tuple[Reached, ...]:
        """What :meth:`reached` and :meth:`first_reached` tell, sorted."""

    @abstractmethod
    def reached_from_arguments(
        self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]
    ) -> Mapping[str, tuple[Reached, ...]]:
        """What a function reaches at constant distances from the addresses in its argument registers, where no way goes back.

        By register; the ``anchor`` of each is negative, for no instruction names the address. ``instructions``: the entry first.
        """

    @abstractmethod
    def index_never_rises(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], at: int) -> bool:
        """Whether the index by which the instruction at ``at`` accesses memory is zero at first and only ever counted down.

        All that writes its register in the function, whose ``instructions`` these are, makes it zero or takes a number from it.
        """

    @abstractmethod
    def handed_on(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], place: str) -> frozenset[int] | None:
        """See :func:`hotpatch.arch.unread.handed_on`; ``place`` is one of the integer argument registers."""

    @abstractmethod
    def thread_offsets(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]) -> frozenset[int]:
        """At which offsets in the image's thread-local data a function reads or writes, or makes addresses, as far as that is told."""

    @abstractmethod
    def walked(self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]) -> frozenset[int]:
        """Which of the instructions ``naming`` take addresses that code adds an index to, or walks on from in a loop.

        What is given is that of :meth:`reached`; what is done with addresses that are handed on or stored is not told.
        """

    @abstractmethod
    def only_compared(
        self, instructions: Sequence[Instruction], naming: Collection[int], edges: Mapping[int, Collection[int]]
    ) -> Mapping[int, frozenset[int]]:
        """Which of the instructions ``naming`` take addresses that others are compared with, and used for nothing else: ends of arrays.

        Each with those that take the addresses that the others were reckoned from. What is given is that of :meth:`reached`.
        """

    @abstractmethod
    def only_accessed(
        self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]], maker: int
    ) -> frozenset[Handed] | None:
        """See :func:`hotpatch.arch.accessed.only_accessed`."""

    @abstractmethod
    def deeds(self, instructions: Sequence[Instruction], edges: Mapping[int, Collection[int]]) -> Deeds:
        """What the function does with what its ``instructions``, by address, access: see :class:`hotpatch.arch.deeds.Deeds`."""

    @abstractmethod
    def held(
        self,
        instructions: Sequence[Instruction],
        naming: Collection[int],
        edges: Mapping[int, Collection[int]],
        addresses: Mapping[int, int] = MappingProxyType({}),
    ) -> tuple[Held, ...]:
        """What registers that a function's instructions read hold for certain of the addresses that it names, by address.

        Args:
            instructions: All of the function's, by address, the entry first.
            naming: As in :meth:`reached`.
            edges: As in :meth:`reached`.
            addresses: Address of one of ``naming`` → what it names. Where ways meet on which several of these made the same address, all
                of them are told; of those that are not given, none.
        """

    @abstractmethod
    def counted(self, code: bytes, address: int) -> Counted | None:
        """The number that the instruction ``code`` adds to a register, where it can be encoded anew."""

    @abstractmethod
    def accesses(self, kind: FixupKind, code: bytes, address: int) -> bool:
        """Whether the instruction ``code``, which refers to data by ``kind``, reads or writes there, and does not only take the address."""

    @abstractmethod
    def alignment(self, kind: FixupKind, code: bytes, address: int) -> int:
        """What the address must be a multiple of (bytes) that the instruction ``code`` refers to by ``kind``."""

    def repeats(self, instruction: Instruction) -> bool:
        """Whether the processor may stop between rounds of ``instruction``, each of which counts as one (x64: repeated string ones)."""
        return False

    def literal_size(self, code: bytes) -> int:
        """Bytes of the literal among code that the instruction ``code`` loads; 0 where it loads none."""
        del code
        return 0

    @property
    @abstractmethod
    def scratch(self) -> frozenset[str]:
        """The registers (64 bits) that a call may change, but for those which a linker's own code between the two may use."""

    @abstractmethod
    def may_change(self, instruction: Instruction) -> frozenset[str] | None:
        """The registers (64 bits) that an instruction names, which are all that it may change; ``None`` where it may change others."""

    @abstractmethod
    def stored_in_part(self, instruction: Instruction) -> tuple[str, ...]:
        """The registers (64 bits) of which ``instruction`` stores the lower bytes alone, and nothing else, as they come in memory."""

    @abstractmethod
    def goes_onward(self, code: bytes, address: int, offset: int) -> bool:
        """See :func:`hotpatch.arch.walks.goes_onward`; ``offset`` is that of the instruction that takes the address (last)."""

    # binding -----------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def bind(self, kind: FixupKind, field: bytes, site: int, target: int, *, image_base: int = 0) -> bytes:
        """``field`` (as long as ``kind`` needs: see :meth:`field_size`) changed to refer from ``site`` to ``target`` (addend included).

        Raises:
            OutOfReach: The distance, the alignment or the page cannot be encoded.
        """

    @abstractmethod
    def resolve(self, kind: FixupKind, field: bytes, site: int, *, image_base: int = 0) -> int:
        """The inverse of :meth:`bind`: what ``field`` at ``site`` refers to (addend included).

        For PAGEBASE_REL21 the page's address, for PAGEOFFSET_12x the offset in the page.
        """

    @abstractmethod
    def field_size(self, kind: FixupKind) -> int:
        """Bytes that a field of ``kind`` takes."""

    @abstractmethod
    def recount(self, code: bytes, address: int, number: int) -> bytes:
        """The instruction ``code``, for which :meth:`counted` tells a number, with another one, as long as it was.

        Raises:
            OutOfReach: It cannot be encoded.
        """

    # redirecting -------------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def entry_site(self, strategy: Redirect) -> EntrySite:
        """What ``strategy`` needs at an entry."""

    @abstractmethod
    def redirect_writes(self, strategy: Redirect, entry_va: int, destination_va: int) -> tuple[CodeWrite, ...]:
        """What to store, padding first and the entry last, so that a call of ``entry_va`` goes to ``destination_va`` (for HPAT: a slot).

        Raises:
            OutOfReach: The jump cannot reach, or (Arm64 HPAT) does not go forward.
        """

    @abstractmethod
    def redirect_destination(self, strategy: Redirect, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """Where a redirect of ``strategy`` at ``entry_va`` leads, or ``None`` where the bytes there are none."""

    @abstractmethod
    def foreign_jump(self, entry_va: int, read: Callable[[int, int], bytes]) -> int | None:
        """Target of an unconditional jump that stands at ``entry_va`` in any form that hooks use, or ``None``."""

    @abstractmethod
    def hpat_slot(self) -> bytes:
        """The 8 bytes of a slot: a jump through the pointer :data:`HPAT_POINTER_DISTANCE` bytes after it."""

    @abstractmethod
    def dispatcher(self, flag: int, before_va: int, after_va: int) -> bytes:
        """A jump to ``before_va`` for threads whose byte at offset ``flag`` of the thread environment block is not 0, else ``after_va``.

        It runs at a function's entry and changes nothing there that a callee may expect: x64: arithmetic flags; Arm64: x16.
        """

    @abstractmethod
    def absolute_jump(self, target: int) -> bytes:
        """A jump to anywhere that changes no register that a callee may expect (a veneer)."""

    @abstractmethod
    def trampoline(self, code: bytes, *, source_va: int, trampoline_va: int, displaced: int) -> Trampoline:
        """Move the whole instructions that cover ``displaced`` bytes of ``code`` from ``source_va`` to ``trampoline_va``.

        Raises:
            CannotRelocate: With the rule, the instruction and its bytes.
        """
