"""Threads that never end fail the run: Python would wait for them for ever, after all tests have passed."""

import os
import sys
import threading

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter) -> None:
    for thread in _left():
        thread.join(10)
    for thread in _left():
        terminalreporter.write_line(f"a test has left the thread {thread.name}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if _left():
        sys.stdout.flush()
        os._exit(1)


def _left() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
