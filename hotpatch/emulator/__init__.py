"""A Windows-like process on Unicorn: loader, memory, threads and their scheduler, and the Win32 functions that programs call."""
