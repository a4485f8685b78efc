# SPDX-License-Identifier: GPL-2.0-or-later
"""A small cluster on one machine: a real etcd and nodes as network namespaces on a common L2.

The integration tests, the benchmark and the demo are built on it. Everything it makes carries a
prefix of its own, so several can run side by side, and is removed by close(), whatever happened.
"""
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .base import (BUILD, ENVIRONMENT, SANITIZER, TOP, WRAP, Failed, Process, b64, peer, run,
                   wait_for)
from .etcd import Firewall, Member, Watch
from .node import CniError, Node, Pod


def remove_leftovers(ours):
    """Removes the namespaces, with all that runs there, and the folders whose names are ours."""
    namespaces = [line.split()[0] for line in run("ip", "netns", "list").splitlines()]
    for namespace in filter(ours, namespaces):
        for pid in run("ip", "netns", "pids", namespace, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", namespace, check=False)
    for path in Path(tempfile.gettempdir()).iterdir():
        if ours(path.name):
            for disk in filter(os.path.ismount, path.glob("etcd*")):
                run("umount", "--lazy", disk, check=False)
            shutil.rmtree(path, ignore_errors=True)


def sweep(name):
    """Removes what earlier clusters of this name left whose own process was killed outright."""
    def dead(prefix):
        found = re.match(rf"{re.escape(name)}(\d+)-", prefix)
        return found and not Path(f"/proc/{found[1]}").exists()
    remove_leftovers(dead)


@contextlib.contextmanager
def undisturbed():
    """Signals that would end the program are ignored, here and in what is started here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN)
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Cluster:
    """etcd, a switch and the nodes. Use it in a with statement, or call close()."""

    def __init__(self, settings=None, name="pop", members=1):
        sweep(name)
        self.prefix = f"{name}{os.getpid()}"
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self.net = "172.30"
        self.network_len = 16
        self.net6 = "fd00:30:"  # of nodes whose pods have IPv6 addresses
        self.node_addresses = f"{self.net}.10.0-{self.net}.255.255"  # of all nodes, for Firewall
        self.settings = settings or {}
        self.nodes = {}
        self.switch = f"{self.prefix}-switch"
        self.members = [Member(self, i) for i in range(members)]
        self.speaker = self.members[-1]  # whom put(), get() and their like ask
        self.helpers = []
        self.ports = 0
        try:
            run("ip", "netns", "add", self.switch)
            run("ip", "-n", self.switch, "link", "add", "sw", "type", "bridge")
            run("ip", "-n", self.switch, "link", "set", "sw", "up")
            for member in self.members:
                self.join(member.namespace, member.address)
        except BaseException:
            self.close()
            raise

    def join(self, namespace, address):
        """Makes a namespace and plugs it into the switch."""
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return self.plug(namespace, "eth0", f"{address}/{self.network_len}")

    def plug(self, namespace, name, *addresses):
        """An interface on the switch; its port there."""
        port = f"port{self.ports}"
        self.ports += 1
        run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", name,
            "netns", namespace)
        run("ip", "-n", self.switch, "link", "set", port, "master", "sw", "up")
        for address in addresses:
            # No other has it, and nobody waits until the kernel knows that (nodad is IPv6's).
            run("ip", "-n", namespace, "address", "add", address, "dev", name,
                *(["nodad"] if ":" in address else []))
        run("ip", "-n", namespace, "link", "set", name, "up")
        return port

    def node(self, name=None, **settings):
        name = name or f"n{len(self.nodes) + 1}"
        self.nodes[name] = Node(self, name, len(self.nodes), settings)
        return self.nodes[name]

    def start_nodes(self, count, **settings):
        nodes = [self.node(**settings) for _ in range(count)]
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        # Ready is a node with routes to all that had joined when it did; now to those after it.
        subnets = {node.name: node.subnet for node in nodes}
        for node in nodes:
            others = {subnets[n.name] for n in nodes if n is not node}
            wait_for(lambda n=node, o=others: o <= set(n.routes()), f"{node.name}'s routes to the "
                     "others")
        return nodes

    # -- etcd ------------------------------------------------------------------------

    @property
    def etcd(self):
        """The process of the only or the first member."""
        return self.members[0].process

    @etcd.setter
    def etcd(self, process):
        self.members[0].process = process

    @property
    def etcd_address(self):
        return self.members[0].address

    @property
    def etcd_hosts(self):
        """All members, for ETCD_HOST."""
        return ",".join(f"{m.address}:2379" for m in self.members)

    @property
    def store(self):
        """The namespace that the commands below run in."""
        return self.speaker.namespace

    def start_etcd(self, wipe=False, more_urls=()):
        for member in self.members:
            member.start(wipe, more_urls)
        for member in self.members:
            member.wait()
        return self

    def stop_etcd(self):
        for member in self.members:
            member.stop()

    def restore_etcd(self, snapshot, same_id=True):
        """Stops all of several members, and starts them with what etcdctl's snapshot has."""
        token = self.prefix if same_id else f"{self.prefix}-{time.monotonic_ns()}"
        self.stop_etcd()
        for member in self.members:
            member.restore(snapshot, token)
        return self.start_etcd()

    def cut_etcd(self, down=True):
        """Takes etcd off the switch; itself it goes on."""
        run("ip", "-n", self.store, "link", "set", "eth0", "down" if down else "up")

    def etcdctl(self, *args, namespace=None, **kwargs):
        return run("ip", "netns", "exec", namespace or self.store, "etcdctl", "--endpoints",
                   "http://127.0.0.1:2379", *args, env={**ENVIRONMENT, "ETCDCTL_API": "3"},
                   **kwargs)

    def get(self, prefix="/poplin/"):
        """{key: value} of all keys that begin so."""
        answer = json.loads(self.etcdctl("get", "--prefix", prefix, "-w", "json"))
        decode = lambda text: base64.b64decode(text).decode(errors="replace")  # noqa: E731
        return {decode(kv["key"]): decode(kv.get("value", "")) for kv in answer.get("kvs", [])}

    def put(self, key, value):
        self.etcdctl("put", key, value)

    def delete(self, key):
        self.etcdctl("del", key)

    def post(self, path, body):
        """To etcd's JSON gateway; the seconds that it took."""
        file = self.dir / "request.json"
        file.write_text(json.dumps(body))
        return float(run("ip", "netns", "exec", self.store, "curl", "-sf", "-o", "/dev/null", "-d",
                         f"@{file}", "-w", "%{time_total}", f"http://127.0.0.1:2379{path}"))

    def put_peers(self, start, count, batch=60):
        """Records as agents write them, each with its subnet's key, of nodes that are made up."""
        for first in range(start, start + count, batch):
            puts = []
            for i in range(first, min(first + batch, start + count)):
                subnet, address = peer(i)
                record = {"version": 1, "subnets": [subnet], "address": address,
                          "backend": {"type": "host-gw"}, "machine": f"{i:032x}"}
                name = f"node-{i:05d}"
                for key, value in ((f"/poplin/nodes/{name}", json.dumps(record)),
                                   ("/poplin/nodes-subnets/" + subnet.replace("/", "-"), name)):
                    puts.append({"request_put": {"key": b64(key), "value": b64(value)}})
            self.post("/v3/kv/txn", {"success": puts})

    def watch_deletes(self):
        """A watch of all of our keys; deletes() of it tells the keys that were deleted."""
        return Watch(self)

    # -- the end -----------------------------------------------------------------------

    def complaints(self):
        """Ends the agents; {node: log} of those with a sanitizer's finding or a bad end."""
        found = {}
        for name, node in self.nodes.items():
            why = node.bad_end()
            if why or SANITIZER.search(node.log()):
                found[name] = f"{node.log()}\n{why}"
        return found

    def etcd_log(self):
        return "".join(p.read_text(errors="replace") for p in sorted(self.dir.glob("etcd*.log")))

    def close(self):
        """Goes on whatever fails, and then tells it."""
        with undisturbed(), contextlib.ExitStack() as stack:
            # At last also what was being made when we were interrupted.
            stack.callback(remove_leftovers, lambda name: name.startswith(f"{self.prefix}-"))
            stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            stack.callback(run, "ip", "netns", "del", self.switch, check=False)
            for member in self.members:
                stack.callback(member.close)
            for process in self.helpers:
                stack.callback(process.end, signal.SIGKILL)
            for node in self.nodes.values():
                stack.callback(node.close)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
