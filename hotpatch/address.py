"""The three kinds of address, kept apart by type.

They are all unsigned integers of bytes; what differs is where zero is. Like ``errors``, every room may import this module.
"""

from typing import NewType

Rva = NewType("Rva", int)
"""Distance in bytes from the first byte of an image as mapped."""

Va = NewType("Va", int)
"""Address in the virtual address space of a process."""

FileOffset = NewType("FileOffset", int)
"""Distance in bytes from the first byte of a file."""
