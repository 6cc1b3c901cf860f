"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotpatch.patch import write_file


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_interrupt_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    target.write_text("before")

    def interrupted(path: Path, *_given: object) -> None:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(target, b"after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "before")]
