"""``python -m hotpatch``."""

from hotpatch.cli import main

main()
