"""What a process is started with, and where its memory holds it: command line, arguments, environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hotpatch.emulator.commandline import split_command_line
from hotpatch.emulator.layout import PARAMETERS_VA
from hotpatch.emulator.memory import RegionKind
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from hotpatch.emulator.memory import Memory


@dataclass(slots=True)
class Settings:
    """What a process is started with. Input can be added while it runs."""

    command_line: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    more_input: bool = False
    """Whether more may come after ``stdin``: at its end ReadFile waits instead of telling that it is the end."""
    partial_start: bool = False
    """Whether a DLL's start-up ends where it calls what the emulator does not provide, instead of being a fault."""
    any_page: bool = False
    """Whether a load base may begin any page, which Windows does not do."""


def map_parameters(memory: Memory, settings: Settings) -> dict[str, int]:
    """Map the block; addresses of its parts by name."""
    line = settings.command_line
    environment = "".join(f"{name}={value}\0" for name, value in sorted(settings.environment.items())) + "\0"
    content = bytearray()
    places: dict[str, int] = {}

    def place(name: str, data: bytes) -> int:
        places[name] = PARAMETERS_VA + len(content)
        content.extend(data + bytes(-len(data) % 16))
        return places[name]

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(8, "little") for value in values)

    place("command_line_a", line.encode("utf-8", "surrogateescape") + b"\0")
    place("command_line_w", (line + "\0").encode("utf-16-le", "surrogatepass"))
    place("environment_w", environment.encode("utf-16-le", "surrogatepass"))
    arguments = [
        place(f"argument {index}", text.encode("utf-8", "surrogateescape") + b"\0") for index, text in enumerate(split_command_line(line))
    ]
    place("argc", words(len(arguments)))
    place("argv", words(place("arguments", words(*arguments, 0))))
    place("environ", words(place("variables", words(0))))
    place("modes", bytes(16))
    place("files", bytes(3 * 64))
    memory.map(PARAMETERS_VA, len(content), Rights.READ | Rights.WRITE, RegionKind.SYSTEM, "process parameters", bytes(content))
    return places
