# SPDX-License-Identifier: GPL-2.0-or-later
"""The members of etcd, and what can happen to them."""
import contextlib
import os
import shutil
import signal
import subprocess
import time

from .base import ENVIRONMENT, Process, run, wait_for

ETCD = os.environ.get("POPLIN_ETCD") or "etcd"
DISK_MIB = 200  # of a member of several: two segments of its log (64 MiB each) and some data


class Firewall:
    """Packets that vanish on their way into or out of a namespace."""

    def __init__(self, namespace):
        self.namespace = namespace

    def drop(self, addresses, inward=True, outward=True):
        """addresses: as nft takes them, ranges included."""
        rules = ["add table inet faults"]
        for hook, match, wanted in (("input", "saddr", inward), ("output", "daddr", outward)):
            if wanted:
                rules += [f"add chain inet faults {hook} "
                          f"{{ type filter hook {hook} priority 0; }}",
                          f"add rule inet faults {hook} ip {match} {{ {', '.join(addresses)} }} "
                          "drop"]
        run("ip", "netns", "exec", self.namespace, "nft", "-f", "-", input="\n".join(rules) + "\n")

    def clear(self):
        run("ip", "netns", "exec", self.namespace, "nft", "add table inet faults; "
            "delete table inet faults")


class Member:
    """An etcd, alone or one of several; those have small disks of their own."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.name = f"m{number + 1}"
        self.address = f"{cluster.net}.0.{2 + number}"
        self.url = f"http://{self.address}:2379"
        self.options = []  # more of etcd's own, such as its certificate
        self.namespace = f"{cluster.prefix}-etcd{number + 1 if number else ''}"
        self.data = cluster.dir / f"etcd{number + 1 if number else ''}"
        self.disk = None
        self.process = None
        self.firewall = Firewall(self.namespace)

    def start(self, wipe=False, more_urls=()):
        """Returns before it serves; see wait()."""
        if wipe and not self.disk:
            shutil.rmtree(self.data, ignore_errors=True)
        members = self.cluster.members
        urls = ",".join([self.url, "http://127.0.0.1:2379", *more_urls])
        argv = ["ip", "netns", "exec", self.namespace, ETCD, "--data-dir", self.data,
                "--listen-client-urls", urls, "--advertise-client-urls", urls]
        if len(members) == 1:
            argv += ["--initial-cluster-token", f"{self.cluster.prefix}-{time.monotonic_ns()}"]
        else:
            if not self.disk:
                self.disk = self.data
                self.disk.mkdir()
                run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", self.disk)
            argv[6] = self.disk / "data"
            argv += ["--listen-peer-urls", self.peer_url, *self.identity(self.cluster.prefix)]
        argv += self.options
        self.process = Process(argv, self.cluster.dir / f"{self.namespace.rsplit('-', 1)[1]}.log")
        return self

    @property
    def peer_url(self):
        return f"http://{self.address}:2380"

    def identity(self, token):
        """What an etcd of several is to be, and its cluster with it: that has its id from here."""
        return ["--name", self.name, "--initial-advertise-peer-urls", self.peer_url,
                "--initial-cluster-token", token, "--initial-cluster",
                ",".join(f"{m.name}={m.peer_url}" for m in self.cluster.members)]

    def restore(self, snapshot, token):
        """One of several, which does not run, gets a new folder with what a snapshot has."""
        shutil.rmtree(self.disk / "data")
        run("etcdctl", "snapshot", "restore", snapshot, "--data-dir", self.disk / "data",
            *self.identity(token), env={**ENVIRONMENT, "ETCDCTL_API": "3"})

    def healthy(self):
        """It serves, and knows a leader."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, "curl", "-fs", "-m", "2",
             "http://127.0.0.1:2379/health"], check=False,
            stdout=subprocess.DEVNULL).returncode == 0

    def wait(self, timeout=30):
        wait_for(self.healthy, f"etcd {self.name} to answer", timeout)
        return self

    def alive(self):
        return bool(self.process) and self.process.alive()

    def stop(self, number=signal.SIGKILL):
        self.process.end(number)

    def metric(self, name):
        """The sum of all series of that name."""
        text = run("ip", "netns", "exec", self.namespace, "curl", "-fs", "-m", "5",
                   "http://127.0.0.1:2379/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith((f"{name} ", f"{name}{{")))

    # -- faults; heal() ends them all ------------------------------------------------

    def pause(self):
        self.process.send(signal.SIGSTOP)

    def cut_clients(self, **directions):
        self.firewall.drop([self.cluster.node_addresses], **directions)

    def cut_members(self, **directions):
        self.firewall.drop([m.address for m in self.cluster.members if m is not self],
                           **directions)

    def slow(self, rate="200kbit", latency="3s"):
        """What it sends goes out at this rate; what would have to wait longer is lost."""
        run("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate",
            rate, "burst", "3kb", "latency", latency)

    def fill_disk(self):
        """Not a byte is left."""
        with open(self.disk / "filler", "ab", buffering=0) as filler:
            for size in 1 << 20, 4096:
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def heal(self):
        """Undoes what was done to it, and starts it if it does not run."""
        self.firewall.clear()
        run("tc", "-n", self.namespace, "qdisc", "del", "dev", "eth0", "root", check=False)
        if self.disk:
            (self.disk / "filler").unlink(missing_ok=True)
        if self.alive():
            self.process.send(signal.SIGCONT)
        else:
            self.start()

    def close(self):
        with contextlib.ExitStack() as stack:
            stack.callback(run, "ip", "netns", "del", self.namespace, check=False)
            if self.disk:
                stack.callback(run, "umount", self.disk)
            if self.process:
                stack.callback(self.process.end, signal.SIGKILL)


class Watch:
    """etcdctl watch, from now on."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = cluster.dir / f"watch{time.monotonic_ns()}.log"
        self.process = Process(["ip", "netns", "exec", cluster.store, "etcdctl", "--endpoints",
                                "http://127.0.0.1:2379", "watch", "--prefix", "/"],
                               self.path, {"ETCDCTL_API": "3"})
        cluster.helpers.append(self.process)
        self.mark()

    def mark(self):
        """Waits until everything before this call was seen."""
        token = f"/mark/{time.monotonic_ns()}"
        def seen():
            self.cluster.put(token, "x")
            return token in self.path.read_text()
        wait_for(seen, "the watch")

    def deletes(self):
        self.mark()
        lines = self.path.read_text().splitlines()
        return [lines[i + 1] for i, line in enumerate(lines[:-1]) if line == "DELETE"]

    def events(self):
        """[(PUT or DELETE, key)] but for the marks."""
        self.mark()
        lines = self.path.read_text().splitlines()
        return [(line, lines[i + 1]) for i, line in enumerate(lines[:-1])
                if line in ("PUT", "DELETE") and not lines[i + 1].startswith("/mark/")]

    def close(self):
        self.process.end(signal.SIGKILL)
