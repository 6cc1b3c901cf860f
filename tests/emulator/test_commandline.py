from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.emulator.commandline import join_command_line, split_command_line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["p.exe"], "p.exe"),
        (["p.exe", "4"], "p.exe 4"),
        (["p.exe", "two words", ""], 'p.exe "two words" ""'),
        (["p.exe", 'say "hi"'], 'p.exe "say \\"hi\\""'),
        (["p.exe", "back\\slash ", "end\\ x\\"], 'p.exe "back\\slash " "end\\ x\\\\"'),
    ],
)
def test_lines_are_quoted_as_windows_takes_them_apart(arguments, line):
    assert join_command_line(arguments) == line
    assert split_command_line(line) == arguments


@given(st.lists(st.text(alphabet='ab \\"\t', max_size=8), min_size=1, max_size=5))
def test_what_is_joined_comes_apart_again(arguments):
    assert split_command_line(join_command_line(arguments)) == arguments
