"""What glibc does with memory, in processes of their own: it cannot be set back."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

_BEGIN = """
import ctypes, resource, sys, threading
from talkingmachines.malloc import tune_malloc
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "tuned":
    tune_malloc()
"""

_ARENAS = """
together = threading.Barrier(int(sys.argv[2]))
def work():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(together.parties)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""

_CHUNKS = """
def chunk():
    parts = [libc.malloc(9 << 20) for _ in range(6)]
    for part in parts:
        libc.memset(ctypes.c_void_p(part), 1, 9 << 20)
    for part in parts:
        libc.free(ctypes.c_void_p(part))
for _ in range(3): chunk()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): chunk()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


def _run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", _BEGIN + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_threads_share_arenas() -> None:
    cores = max(2, os.cpu_count() or 1)
    tuned, usual = (_run(_ARENAS, how, str(4 * cores)).count("<heap nr=") for how in ("tuned", "usual"))
    assert tuned <= cores < usual


def test_freed_memory_is_there_for_the_next_chunk() -> None:
    """Counted in pages that the system has to give: 4096 bytes each."""
    tuned, usual = (int(_run(_CHUNKS, how)) for how in ("tuned", "usual"))
    assert tuned < 100
    assert usual > 1000
