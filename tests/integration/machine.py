# SPDX-License-Identifier: GPL-2.0-or-later
"""A throw-away machine: this one's files with others laid over them, in namespaces of its own.

The files are an overlay whose changes go to a tmpfs, so an init script can be installed and run as on
a real machine while the real one stays untouched. It has its own processes, network (only lo) and
/run. Needs root.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# $1: a folder that is laid over /. What follows is run in the end, as process 1.
ENTER = r"""
set -eu
base=$1/base
shift
mkdir "$base"
mount -t tmpfs -o mode=0755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root" "$base/lower"
cp -a "${base%/base}/files/." "$base/lower/"
mount -t overlay overlay \
    -o "lowerdir=$base/lower:/,upperdir=$base/upper,workdir=$base/work" "$base/root"
mount --rbind /dev "$base/root/dev"
mount -t proc proc "$base/root/proc"
mount -t sysfs sysfs "$base/root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$base/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$base/root/tmp"
mkdir -p "$base/root/run/lock"
: >"$base/ready"
cd /
exec chroot "$base/root" "$@"
"""

# Process 1 reaps whatever is left behind, as an init does.
INIT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
while True:
    signal.sigwait([signal.SIGCHLD])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Machine:
    """with Machine(folder, files) as m: m.run("..."); files is a folder laid over /."""

    def __init__(self, folder, files):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        shutil.copytree(files, self.folder / "files", symlinks=True)

    def __enter__(self):
        self.unshare = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
             "--propagation", "private", "sh", "-c", ENTER, "enter", str(self.folder),
             "/usr/bin/python3", "-c", INIT],
            stdin=subprocess.DEVNULL, start_new_session=True)
        self.init = self._wait_for_init()
        self.run("ip link set lo up")
        return self

    def _wait_for_init(self):
        deadline = time.monotonic() + 20
        children = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children")
        while time.monotonic() < deadline:
            if self.unshare.poll() is not None:
                raise RuntimeError("cannot make namespaces and an overlay: is this root?")
            pids = children.read_text().split()
            if pids and Path(f"/proc/{pids[0]}/exe").exists() \
                    and "python" in os.readlink(f"/proc/{pids[0]}/exe"):
                return int(pids[0])
            time.sleep(0.02)
        raise RuntimeError("the machine did not come up in time")

    def __exit__(self, *_):
        self.unshare.send_signal(signal.SIGKILL)
        self.unshare.wait()

    def command(self, *argv):
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--uts", "--ipc",
                "--root", "--wd=/", *argv]

    def run(self, script, check=True, timeout=60):
        """Runs a shell script; returns the process, with stdout and stderr as one text."""
        result = subprocess.run(
            self.command("sh", "-c", script), stdin=subprocess.DEVNULL, timeout=timeout, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                 "LC_ALL": "C.UTF-8"})
        if check and result.returncode != 0:
            raise AssertionError(f"{script!r} exits {result.returncode}:\n{result.stdout}")
        return result

    def status(self, script):
        return self.run(script, check=False).returncode

    def read(self, path):
        return self.run(f"cat '{path}'").stdout

    def wait(self, script, seconds=20):
        """Waits until the script exits 0, and returns its output."""
        deadline = time.monotonic() + seconds
        while True:
            result = self.run(script, check=False)
            if result.returncode == 0:
                return result.stdout
            if time.monotonic() > deadline:
                raise AssertionError(f"{script!r} is still not true:\n{result.stdout}")
            time.sleep(0.1)


def is_root():
    return os.geteuid() == 0 and sys.platform == "linux"
