"""Unnamed namespaces in decorated names of C++ types (Visual C++).

Such a name holds a hash of the source file's path, so that types of two files never have one name: ``.?AVlost@?A0x5d291131@@``. Another
build of the same source has another hash where its folder has another name. Where an image has one such type only, the rest of the name
tells which it is; where it has several that differ in the hash alone, nothing but the hash does.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.address import Rva

if TYPE_CHECKING:
    from hotpatch.image.image import Image

HASH_SIZE = 8
_BLANK = b"?" * HASH_SIZE
_PREFIX = b"?A0x"
_NAMESPACE = re.compile(rb"\?A0x([0-9a-f]{8})@")
LONGEST_NAME = 4096
"""Bytes of a type's name that are read at most."""
TYPE_NAME_AT = 16
"""Of a type's name from the beginning of its descriptor: ``type_info``'s vtable and a pointer that is null in the file come first."""


class UnnamedNamespaces:
    """The types of one image that are in unnamed namespaces; ``image.kept(UnnamedNamespaces)`` gives the same one each time."""

    def __init__(self, image: Image) -> None:
        """Find their names among the data of ``image``."""
        self._namesakes: dict[bytes, set[bytes]] = defaultdict(set)
        self._hashes: dict[int, tuple[bytes, int]] = {}
        for section in image.sections:
            content = b"" if section.executable else image.read(section.rva, section.size)
            for match in _NAMESPACE.finditer(content):
                start = content.rfind(b"\0", max(match.start() - LONGEST_NAME, 0), match.start()) + 1
                end = content.find(b"\0", match.end(), match.end() + LONGEST_NAME)
                name = content[start:end]
                if end < 0 or not name.startswith(b"."):
                    continue
                self._namesakes[without_hashes(name)].add(name)
                if Rva(section.rva + start - TYPE_NAME_AT) in image.pointers:
                    self._hashes[section.rva + match.start(1)] = name, match.start(1) - start
        self._places = sorted(self._hashes)

    def settled(self, name: bytes) -> bytes:
        """The decorated name of a type without hashes, where no other type of the image has that; else as it is. As long as before."""
        bare = without_hashes(name)
        return bare if len(self._namesakes.get(bare, ())) < 2 else name

    def hashes(self, start: int, end: int) -> list[int]:
        """Where hashes begin in what describes types, of which a part lies between the two RVAs."""
        return self._places[bisect_right(self._places, start - HASH_SIZE) : bisect_left(self._places, end)]

    def masked(self, content: bytearray, start: int) -> bytearray:
        """Blank the hashes of settled names in ``content``, which the image has at RVA ``start``."""
        for rva in self.hashes(start, start + len(content)):
            name, _ = self._hashes[rva]
            if self.settled(name) != name:
                low, high = max(rva - start, 0), min(rva - start + HASH_SIZE, len(content))
                content[low:high] = _BLANK[: high - low]
        return content

    def own_hash(self, rva: int, other: UnnamedNamespaces) -> bytes | None:
        """The hash that this image has where ``other`` has one at ``rva`` in the same type's name.

        Nothing where it has no type of that name, hashes apart, so that the type is new.

        Raises:
            ValueError: It has such a type, and which one is the same is not known.
        """
        name, at = other._hashes[rva]
        known = self._namesakes.get(without_hashes(name), set())
        if name in known:
            return name[at : at + HASH_SIZE]
        if known and (len(known) > 1 or other.settled(name) == name):
            raise ValueError(name.decode("ascii", "replace"))
        return next((own[at : at + HASH_SIZE] for own in known), None)


def without_hashes(name: bytes) -> bytes:
    """A decorated name, as long as before, without what differs from folder to folder."""
    return _NAMESPACE.sub(_PREFIX + _BLANK + b"@", name) if _PREFIX in name else name
