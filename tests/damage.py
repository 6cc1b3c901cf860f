"""How files are damaged: cut, lengthened, bytes and fields changed; and of text files, values replaced by others that are hardly any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x1000, 0x7FFFFFFFFFFFFFFF, 2**64 - 1)


@dataclass(frozen=True)
class Damage:
    """How a file is damaged; ``where`` is a fraction of its length, so that one damage fits every file."""

    kind: str
    where: float
    value: int
    size: int

    def of(self, data: bytes) -> bytes:
        """The damaged file."""
        at = min(int(self.where * len(data)), max(len(data) - 1, 0))
        field = (self.value % (1 << 8 * self.size)).to_bytes(self.size, "little")
        match self.kind:
            case "cut":
                return data[:at]
            case "longer":
                return data + field * 64
            case "hole":
                return data[:at] + data[at + self.size :]
            case "field":
                return (data[: at - at % self.size] + field + data[at - at % self.size + self.size :])[: len(data)]
            case _:
                return data[:at] + bytes([data[at] ^ (self.value & 0xFF or 1)]) + data[at + 1 :] if data else data


fractions = st.one_of(st.floats(0, 1), st.floats(0, 0.12), st.floats(0.85, 1))
"""Headers and tables stand at the ends of our files: more of the damage goes there."""
sizes = st.sampled_from([1, 2, 4, 8])
damages = st.lists(
    st.builds(
        Damage,
        st.sampled_from(["cut", "longer", "hole", "field", "field", "field", "flip", "flip"]),
        fractions,
        st.one_of(st.sampled_from(INTERESTING), st.integers(0, 2**32)),
        sizes,
    ),
    min_size=1,
    max_size=4,
)


def spoil(data: bytes, found: Sequence[Damage | Edit]) -> bytes:
    """``data`` with every damage done."""
    for damage in found:
        data = damage.of(data)
    return data


fields = st.lists(
    st.builds(Damage, st.sampled_from(["field", "flip"]), fractions, st.one_of(st.sampled_from(INTERESTING), st.integers(0, 2**32)), sizes),
    min_size=1,
    max_size=3,
)
"""Damage that leaves a file as long as it was."""


VALUES = (
    *("0", "-1", "1.5", "99999999999999999999", "nan", "true", '""', '"{found.__class__}"', '"{nothing}"', '"{0}"', '"{"', '"%s"'),
    *("[]", "[[]]", "{}", '[""]', "2026-02-30", "2026-02-10", '"2026-13"', '"0000-01"', '"9999-12"', '"26100.0"', '"../.."', '"a\\u0000b"'),
)
"""Of TOML, each right somewhere and wrong somewhere else."""
_VALUE = re.compile(rb"(?m)=[ \t]*[^\n]+$")


@dataclass(frozen=True)
class Edit:
    """How a line of a TOML file is changed; ``where`` is a fraction of the lines."""

    kind: str
    where: float
    value: str

    def of(self, data: bytes) -> bytes:
        """The edited file."""
        lines = data.split(b"\n")
        at = min(int(self.where * len(lines)), len(lines) - 1)
        match self.kind:
            case "drop":
                del lines[at]
            case "twice":
                lines.insert(at, lines[at])
            case _:
                spots = [number for number, line in enumerate(lines) if _VALUE.search(line)]
                if spots:
                    at = spots[min(int(self.where * len(spots)), len(spots) - 1)]
                    lines[at] = _VALUE.sub(b"= " + self.value.encode().replace(b"\\", b"\\\\"), lines[at])
        return b"\n".join(lines)


edits = st.lists(
    st.builds(Edit, st.sampled_from(["value", "value", "value", "drop", "twice"]), st.floats(0, 1), st.sampled_from(VALUES)),
    min_size=1,
    max_size=2,
)
"""Damage that mostly leaves a file that can still be parsed."""
