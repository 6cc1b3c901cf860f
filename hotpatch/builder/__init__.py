"""The builder: which functions travel, whether they may, and a small linker that binds what they refer to."""

from hotpatch.builder.make import build_patch

__all__ = ["build_patch"]
