"""Where the shipped cases are: in the package (an installed wheel) or at the checkout's root."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from hotpatch.cases.model import MANIFEST, Case, read_case
from hotpatch.errors import InputError, InputRule

PACKAGED = "_fixtures"
"""Folder inside the package that a wheel's ``force-include`` puts the fixtures into."""
CHECKOUT = "fixtures"
_NEAR_NAMES = 5


def fixtures_folder() -> Path:
    """The folder that holds the cases.

    Raises:
        InputError: Neither the package nor a checkout around it has one.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / PACKAGED, package.parent / CHECKOUT):
        if folder.is_dir():
            return folder
    what = f"no shipped cases in {package / PACKAGED} nor {package.parent / CHECKOUT}; install the package again"
    raise InputError(CHECKOUT, what, InputRule.INSTALLATION)


def case_names(folder: Path | None = None) -> tuple[str, ...]:
    """Names of the cases in ``folder`` (default: the shipped ones), sorted."""
    return tuple(sorted(path.parent.name for path in (folder or fixtures_folder()).glob(f"*/{MANIFEST}")))


def load_cases(folder: Path | None = None) -> tuple[Case, ...]:
    """Every case in ``folder`` (default: the shipped ones), by name.

    Raises:
        InputError: A manifest breaks the format.
    """
    root = folder or fixtures_folder()
    return tuple(read_case(root / name) for name in case_names(root))


def find_case(name: str, folder: Path | None = None) -> Case:
    """The case called ``name``.

    Raises:
        InputError: There is none; the message has near names.
    """
    root = folder or fixtures_folder()
    if Path(name).name != name or not (root / name / MANIFEST).exists():
        names = case_names(root)
        near = get_close_matches(name, names, _NEAR_NAMES, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "hotpatch cases lists those that there are"
        raise InputError(name, f"no such case; {hint}")
    return read_case(root / name)
