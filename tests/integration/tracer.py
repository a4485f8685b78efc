# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI plugin under strace: its system calls, and what strace does to one of them."""
import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from cluster import wait_for
from cnilib import PLUGIN
from machine import is_root

KILLS = int(os.environ.get("POPLIN_KILLS", "100"))
WHOLE = KILLS >= 1000  # the long form

UNSANITIZED = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
    pytest.mark.skipif(PLUGIN.exists() and any(name in PLUGIN.read_bytes()
                                               for name in (b"__asan_", b"__tsan_")),
                       reason="a sanitizer has system calls of its own (stage gcc runs this)"),
]

# What changes the world or asks it: the calls of files and sockets, of processes and namespaces.
CALLS = ("openat,read,write,close,access,faccessat2,newfstatat,fstatfs,ioctl,mkdir,mkdirat,"
         "utimensat,readlinkat,symlinkat,linkat,unlinkat,unlink,renameat,renameat2,rename,flock,pread64,"
         "pwrite64,ftruncate,fallocate,getdents64,mmap,socket,setsockopt,bind,getsockname,connect,"
         "sendto,sendmsg,recvmsg,recvfrom,poll,ppoll,setns,pipe2,clone,clone3,fork,vfork,wait4,"
         "exit_group").split(",")
STRACE = ["strace", "-qq", "-f", "-e", "signal=none"]


class Traced:
    """A run of the plugin under strace."""

    def __init__(self, node, arguments, command, pod=None, container="victim", conf=None):
        self._trace = tempfile.NamedTemporaryFile("r")
        env = {"CNI_COMMAND": command}
        if pod:
            env.update(CNI_CONTAINERID=container, CNI_IFNAME="eth0", CNI_NETNS=pod.path)
        argv = ["/usr/bin/nsenter", f"--net={node.netns.path}", *STRACE, "-o", self._trace.name]
        for name, value in env.items():
            argv += ["-E", f"{name}={value}"]
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(conf or node.config()).encode())
            stdin.seek(0)
            self.process = subprocess.Popen([*argv, *arguments, str(PLUGIN)], stdin=stdin,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._continued = collections.Counter()

    @property
    def trace(self):
        return Path(self._trace.name).read_text()

    def finish(self):
        """(exit status or signal, standard output, the trace)"""
        try:
            out, _ = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        with self._trace:
            return self.process.returncode, out.decode(), self.trace

    def stopped(self):
        """The processes that a signal stopped and nobody continued."""
        stops = collections.Counter(re.findall(r"^(\d+) +--- stopped by SIGSTOP", self.trace, re.M))
        return list(stops - self._continued)

    def has_ended(self):
        return self.process.poll() is not None

    def go_on(self, *pids):
        for pid in pids:
            self._continued[pid] += 1
            with contextlib.suppress(ProcessLookupError):  # it was killed
                os.kill(int(pid), signal.SIGCONT)

    def run_on(self):
        """Continues whatever stops, to the end."""
        wait_for(lambda: self.go_on(*self.stopped()) or self.has_ended(),
                 lambda: f"the end of what was stopped: {self.trace}", 60)
        return self.finish()


def stop_at(call):
    """Arguments for a run that is stopped right behind this call."""
    name, number = call
    return ["-e", f"trace={name}", "-e", "signal=STOP", "-e",
            f"inject={name}:signal=STOP:when={number}"]


def traced(*what, **more):
    return Traced(*what, **more).finish()


def calls_of(trace):
    """[(name, how many of that name before it)] of the plugin itself, in order."""
    seen, calls, first = collections.Counter(), [], None
    for line in trace.splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if not found or "resumed>" in line:
            continue
        first = first or found[1]
        if found[1] != first:
            continue  # of the child
        seen[found[2]] += 1
        calls.append((found[2], seen[found[2]]))
    # What went before main() is the C library's; it starts with the configuration.
    start = next((i for i, call in enumerate(calls) if call == ("read", 1)), 0)
    return calls[max(start - 1, 0):]


def record(node, command, pod=None, **more):
    """The calls of an undisturbed run."""
    code, out, trace = traced(node, ["-e", "trace=" + ",".join(f"?{c}" for c in CALLS)], command,
                              pod, **more)
    assert code == 0, (code, out)
    return calls_of(trace)


