# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs run, conditions waited for, and a few names."""
import base64
import os
import re
import signal
import subprocess
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("POPLIN_BUILD", TOP)).resolve()
# What stands before each program of ours: "setarch -R" for some builds with ThreadSanitizer.
WRAP = os.environ.get("POPLIN_WRAP", "").split()

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99",
    "LSAN_OPTIONS": "exitcode=99",
}
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")


class Failed(Exception):
    """A command failed, or what was waited for did not come."""


def run(*argv, check=True, timeout=60, **kwargs):
    """Runs a program and returns what it printed."""
    result = subprocess.run([str(a) for a in argv], check=False, text=True, timeout=timeout,
                            capture_output=True, **kwargs)
    if check and result.returncode:
        raise Failed(f"{' '.join(map(str, argv))}: exit {result.returncode}\n"
                     f"{result.stdout}{result.stderr}")
    return result.stdout


def wait_for(condition, what, timeout=20.0):
    """Waits until condition() is true and returns its value. what: text, or a function for it."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:g} s in vain for {what() if callable(what) else what}")
        time.sleep(0.02)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def peer(i):
    """(subnet, address) of the i-th made-up node; the addresses are on the switch's network."""
    address = 0xac1e4000 + i
    return (f"10.{(i + 256) >> 8 & 255}.{i & 255}.0/24",
            ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0)))


class Process:
    """A program in a namespace, its output in a file."""

    def __init__(self, argv, log, env=None, before_exec=None):
        self.log_path = log
        self.started = time.monotonic()
        self.ended = False  # by end(), not by itself
        with open(log, "ab") as output:
            self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                          stdout=output, stderr=output, start_new_session=True,
                                          preexec_fn=before_exec,
                                          env={**ENVIRONMENT, **(env or {})})

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def send(self, number):
        self.popen.send_signal(number)

    def end(self, number=signal.SIGTERM, timeout=10):
        """Ends it and returns (exit status, seconds that it took)."""
        start = time.monotonic()
        if self.alive():
            self.ended = True
            self.popen.send_signal(number)
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"{self.popen.args} did not end within {timeout} s") from None
        return status, time.monotonic() - start
