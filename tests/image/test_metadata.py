"""Where the data begin and end that the loader and the unwinder read."""

from __future__ import annotations

import pytest

from hotpatch.image.metadata import exception_tables
from tests.image.test_found_by import DATA, Plain, words

INFO, STATES, TRIES, ADDRESSES = DATA + 0x10, DATA + 0x40, DATA + 0x60, DATA + 0x80
HEAD = (2, STATES, 1, TRIES, 3, ADDRESSES, 0, 0, 0)


class Readable(Plain):
    """With what the search reads by."""

    def u32(self, rva: int) -> int:
        return int.from_bytes(self.read(rva, 4), "little")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (words(INFO, 0, 0, 0, 0x19930522, *HEAD), [(INFO, 40), (STATES, 16), (TRIES, 20), (ADDRESSES, 24)]),
        (words(INFO, 0, 0, 0, 0x19930520, 0, 0, 0, 0, 3, ADDRESSES), [(INFO, 40), (ADDRESSES, 24)]),
        (words(INFO, 0, 0, 0, 0x19930523, *HEAD), []),
        (words(0x38), []),  # of a function that checks its cookie: no address
        (words(0x3000), []),
    ],
    ids=["whole", "no-states", "another-number", "cookie", "behind-the-image"],
)
def test_exception_tables(data, found):
    assert [(part.start, part.size) for part in exception_tables(Readable(data=data))] == found
