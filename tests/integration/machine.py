# SPDX-License-Identifier: GPL-2.0-or-later
"""A throw-away machine: this one's files with others laid over them, in namespaces of its own.

The files are an overlay whose changes go to a tmpfs, so an init script can be installed and run as
on a real machine while the real one stays untouched. It has its own processes, network (only lo)
and /run. Needs root.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# $1: the machine's folder; its files/ are laid over /. What follows is run as process 1.
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
dev=$base/root/dev
mount -t tmpfs -o mode=0755 tmpfs "$dev"
mkdir "$dev/pts" "$dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
for device in null zero full random urandom tty; do
    : >"$dev/$device"
    mount --bind "/dev/$device" "$dev/$device"
done
mount -t proc proc "$base/root/proc"
mount -t sysfs sysfs "$base/root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$base/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$base/root/tmp"
mkdir -p "$base/root/run/lock"
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=0755 tmpfs "$base/root/sys/fs/cgroup"
    mkdir "$base/root/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd systemd "$base/root/sys/fs/cgroup/systemd"
elif [ -f /sys/fs/cgroup/cgroup.procs ]; then
    mount -t cgroup2 cgroup2 "$base/root/sys/fs/cgroup"
fi
# Not chroot: who enters the namespace of mounts would still find the real machine as its root.
cd "$base/root"
pivot_root . .
umount -l .
exec chroot . "$@"
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


SYSTEMD = "/lib/systemd/systemd"
NAMESPACES = ["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"]


class Machine:
    """with Machine(folder, files) as m: m.run("..."); files is a folder laid over /.

    With systemd=True, systemd is process 1 and has come up to basic.target.
    """

    def __init__(self, folder, files, systemd=False):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.systemd = systemd
        self.cgroups = []
        shutil.copytree(files, self.folder / "files", symlinks=True)

    def _enter_cgroup(self):
        # So that the machine's systemd rules below cgroups of its own, and not over ours.
        for top in "/sys/fs/cgroup/systemd", "/sys/fs/cgroup":
            if os.path.exists(f"{top}/cgroup.procs"):
                self.cgroups.append(Path(f"{top}/poplin-test-{os.getpid()}-{id(self):x}"))
                break
        for cgroup in self.cgroups:
            cgroup.mkdir()
        return " && ".join([f"echo $$ >{c}/cgroup.procs" for c in self.cgroups] or ["true"])

    def __enter__(self):
        init = ["/usr/bin/python3", "-c", INIT]
        if self.systemd:
            init = [SYSTEMD, "--unit=basic.target"]
        self.unshare = subprocess.Popen(
            ["sh", "-c", self._enter_cgroup() + ' && exec "$@"', "sh",
             "unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation", "private",
             "sh", "-c", ENTER, "enter", str(self.folder), *init],
            stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "container": "other"})
        self.init = self._wait_for_init("systemd" if self.systemd else "python")
        if self.systemd:
            self.wait("systemctl is-active basic.target", 30)
        self.run("ip link set lo up")
        return self

    def _wait_for_init(self, name):
        deadline = time.monotonic() + 20
        children = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children")
        while time.monotonic() < deadline:
            if self.unshare.poll() is not None:
                raise RuntimeError("cannot make namespaces and an overlay: is this root?")
            pids = children.read_text().split()
            if pids and Path(f"/proc/{pids[0]}/exe").exists() \
                    and name in os.path.basename(os.readlink(f"/proc/{pids[0]}/exe")):
                return int(pids[0])
            time.sleep(0.02)
        raise RuntimeError("the machine did not come up in time")

    def __exit__(self, *_):
        self.unshare.send_signal(signal.SIGKILL)
        self.unshare.wait()
        for cgroup in self.cgroups:
            self._remove_cgroup(cgroup)

    @staticmethod
    def _remove_cgroup(cgroup):
        deadline = time.monotonic() + 10
        while cgroup.exists():
            subprocess.run(["find", str(cgroup), "-depth", "-type", "d", "-exec", "rmdir", "{}",
                            "+"], check=False, stderr=subprocess.DEVNULL)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{cgroup} cannot be removed: something runs in it yet")
            time.sleep(0.05)

    def command(self, *argv):
        return ["nsenter", f"--target={self.init}", *NAMESPACES, "--root", "--wdns=/", *argv]

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

    def write(self, path, content):
        subprocess.run(
            self.command("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "write", path),
            input=content, check=True)

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
