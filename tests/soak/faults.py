# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done to the cluster: the plan comes from the seed alone, and a thread for each fault."""
import contextlib
import ipaddress
import random
import re
import shutil
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cluster import CniError, Failed
from recorder import boot_ns

BOTH_WAYS = {"both ways": {}, "into it": {"outward": False}, "out of it": {"inward": False}}
# A leader of etcd 3.4 that slept revokes the leases that ran out on its own clock meanwhile, though
# the others renewed them: https://github.com/etcd-io/etcd/issues/15247, mended in 3.5. Whoever
# slept so short that no lease can have run out does no harm.
SHORT_STOP = 0.4  # in leases' times
STEADY = 3  # the first agents are never ended: their memory is followed


@dataclass(frozen=True)
class Fault:
    at_s: float
    seconds: float  # until it is undone
    what: str
    target: int  # of the members or nodes; the cluster as a whole: 0
    way: str = "both ways"

    def __str__(self):
        return (f"{self.at_s:8.2f} s: {self.what} {self.target + 1}"
                f"{', ' + self.way if self.what in WAYS else ''} for {self.seconds:.2f} s")


# What may happen: of whom, how often compared with the others, how long in leases' times.
KINDS = {
    "kill member": ("member", 3, 0.2, 3),
    "stop member": ("member", 3, 0.2, 3),
    "cut member from nodes": ("member", 3, 0.2, 3),
    "cut member from members": ("member", 3, 0.2, 3),
    "slow member": ("member", 2, 0.5, 3),
    "fill disk of member": ("member", 2, 0.5, 3),
    "kill agent": ("agent", 6, 0.02, 3),
    "stop agent": ("agent", 6, 0.2, 3),
    "restart agent": ("agent", 4, 0, 0),
    "cut agent from etcd": ("agent", 10, 0.2, 3),
    "replace node": ("agent", 4, 0.02, 1),
    "release node": ("agent", 3, 0.02, 1),
    "compact": ("cluster", 2, 0, 0),
    "revoke lease": ("agent", 3, 0, 0),
}
WAYS = {"cut member from nodes", "cut member from members", "cut agent from etcd"}
ENDS_AGENT = {"kill agent", "restart agent", "replace node", "release node"}


def plan(seed, seconds, members, agents, ttl_s, long_stops):
    """The faults of a run, all undone before it ends; no two at once on one target.

    long_stops: members may be stopped for longer than their leases last.
    """
    dice = random.Random(seed)
    busy = {}
    faults, now = [], 0.0
    names, weights = list(KINDS), [k[1] for k in KINDS.values()]
    while True:
        now += dice.expovariate(1 / 0.8)
        what = dice.choices(names, weights)[0]
        scope, _, least, most = KINDS[what]
        length = ttl_s * dice.uniform(least, most)
        if what == "stop member" and not long_stops:
            length = min(length, SHORT_STOP * ttl_s)
        way = dice.choice(list(BOTH_WAYS))
        if scope == "member":
            target = dice.randrange(members)
        elif scope == "agent":
            target = dice.randrange(STEADY if what in ENDS_AGENT else 0, agents)
        else:
            target = 0
        if now + ttl_s * 3 > seconds:
            return faults
        if busy.get((scope, target), 0) > now:
            continue
        busy[scope, target] = now + length + 1  # a moment to come back to itself
        faults.append(Fault(now, length, what, target, way))


class Execution:
    """Runs a plan. Everything is told to the recorder."""

    def __init__(self, cluster, recorder):
        self.cluster, self.recorder = cluster, recorder
        self.nodes = list(cluster.nodes.values())
        self.errors = []
        self.names = 0
        self.lock = threading.Lock()  # of names and troubled
        self.plugin = threading.Lock()  # none runs on a machine while it is set up anew
        self.troubled = []
        # A fault that takes longer than planned puts the next one of its target off.
        self.turns = defaultdict(threading.Lock)

    def run(self, faults):
        start = time.monotonic()
        threads = []
        for fault in faults:
            time.sleep(max(0, start + fault.at_s - time.monotonic()))  # the plan's pace
            threads.append(threading.Thread(target=self._guarded, args=(fault,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _guarded(self, fault):
        try:
            with self.turns[KINDS[fault.what][0], fault.target]:
                getattr(self, "_" + fault.what.replace(" ", "_"))(fault)
        except Exception as error:  # noqa: BLE001: it ends the run, whatever it is
            self.errors.append(f"{fault}: {error!r}")

    @contextlib.contextmanager
    def _told(self, fault):
        scope = KINDS[fault.what][0]
        target = (f"m{fault.target + 1}" if scope == "member" else
                  self.nodes[fault.target].name if scope == "agent" else "")
        about = {"what": fault.what, "target": target, "way": fault.way}
        troubled = [self.nodes[fault.target]] if scope == "agent" else []
        with self.lock:
            self.troubled += troubled
        self.recorder.write("fault", op="begin", **about)
        try:
            yield
        finally:
            self.recorder.write("fault", op="end", **about)
            with self.lock:
                for node in troubled:
                    self.troubled.remove(node)

    # -- members ---------------------------------------------------------------------

    def _member(self, fault, act):
        member = self.cluster.members[fault.target]
        with self._told(fault):
            act(member)
            time.sleep(fault.seconds)
            member.heal()

    def _kill_member(self, fault):
        self._member(fault, lambda m: m.stop())

    def _stop_member(self, fault):
        self._member(fault, lambda m: m.pause())

    def _cut_member_from_nodes(self, fault):
        self._member(fault, lambda m: m.cut_clients(**BOTH_WAYS[fault.way]))

    def _cut_member_from_members(self, fault):
        self._member(fault, lambda m: m.cut_members(**BOTH_WAYS[fault.way]))

    def _slow_member(self, fault):
        self._member(fault, lambda m: m.slow())

    def _fill_disk_of_member(self, fault):
        self._member(fault, lambda m: m.fill_disk())

    # -- agents ------------------------------------------------------------------------

    def start(self, node):
        node.start()
        self.recorder.write("agent", op="start", node=node.name, pid=node.process.pid,
                            name=node.settings["NODE_NAME"], address=node.address)

    def _end(self, node, number):
        status, _ = node.process.end(number, timeout=30)
        self.recorder.write("agent", op="end", node=node.name, status=status)
        # One that was just started has not blocked the signal yet, nor touched anything.
        if number == signal.SIGTERM and status not in (0, -signal.SIGTERM):
            raise Failed(f"{node.name}: poplind ended with {status}")

    def _kill_agent(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            self._end(node, signal.SIGKILL)
            time.sleep(fault.seconds)
            self.start(node)

    def _stop_agent(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            node.process.send(signal.SIGSTOP)
            time.sleep(fault.seconds)
            node.process.send(signal.SIGCONT)

    def _restart_agent(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            self._end(node, signal.SIGTERM)
            self.start(node)

    def _cut_agent_from_etcd(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            node.cut_off(**BOTH_WAYS[fault.way])
            time.sleep(fault.seconds)
            node.firewall.clear()

    def _replace_node(self, fault):
        """The machine is set up anew and comes back under another name."""
        node = self.nodes[fault.target]
        with self._told(fault):
            self._end(node, signal.SIGKILL)
            with self.plugin:
                for path in Path(node.settings["STATE_DIR"]).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            node.ip("nexthop", "flush", "proto", "84")  # the routes go with them
            time.sleep(fault.seconds)
            with self.lock:
                self.names += 1
                node.settings["NODE_NAME"] = f"{node.name}-{self.names}"
            self.recorder.write("wiped", node=node.name)
            self.start(node)

    def _release_node(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            self._end(node, signal.SIGTERM)
            result = node.poplind("--release", check=False)  # without etcd it cannot
            self.recorder.write("release", node=node.name, status=result.returncode,
                                said=result.stderr[-300:])
            time.sleep(fault.seconds)
            self.start(node)

    # -- the store ---------------------------------------------------------------------

    def _etcdctl(self, *args):
        """By any member that can; None when none could."""
        for member in self.cluster.members:
            with contextlib.suppress(Failed):
                return self.cluster.etcdctl("--command-timeout", "2s", *args,
                                            namespace=member.namespace)
        return None

    def _compact(self, fault):
        """Up to what the recorder has: of members that come back it may not have heard yet."""
        with self._told(fault):
            self._etcdctl("compact", str(self.recorder.store.revision))

    def _revoke_lease(self, fault):
        node = self.nodes[fault.target]
        with self._told(fault):
            key = f"/poplin/nodes/{node.settings['NODE_NAME']}"
            found = re.search(r'"lease":\s*(\d+)', self._etcdctl("get", key, "-w", "json") or "")
            if found:
                self.recorder.write("revoke", node=node.name, lease=found[1])
                self._etcdctl("lease", "revoke", f"{int(found[1]):x}")


class Calls:
    """Pods come and go meanwhile, by the plugin; every other time on a node that a fault is at."""

    PAUSE_S = 0.4

    def __init__(self, execution, seed):
        self.execution, self.recorder = execution, execution.recorder
        self.dice = random.Random(seed)
        self.pods = {node.name: node.pod("soak", attach=False) for node in execution.nodes}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopped.wait(self.PAUSE_S):
            with self.execution.lock:
                troubled = list(self.execution.troubled)
            nodes = troubled if troubled and self.dice.random() < 0.5 else self.execution.nodes
            self._guarded(self.dice.choice(nodes))

    def _guarded(self, node):
        try:
            with self.execution.plugin:
                for verb in "STATUS", "ADD", "DEL":  # as a runtime: DEL follows a failed ADD, too
                    self._call(node, verb)
        except Exception as error:  # noqa: BLE001: it ends the run, whatever it is
            self.execution.errors.append(f"the plugin on {node.name}: {error!r}")

    def _call(self, node, verb):
        begin, code, said, subnet = boot_ns(), 0, "", None
        try:
            # The least version that knows STATUS.
            result = node.cni(verb, None if verb == "STATUS" else self.pods[node.name],
                              {**node.plugin_config(), "cniVersion": "1.1.0"})
            if verb == "ADD":
                subnet = str(ipaddress.ip_interface(result["ips"][0]["address"]).network)
        except CniError as error:
            code, said = error.code, str(error)[-300:]
        self.recorder.write("call", node=node.name, verb=verb, begin=begin, code=code, said=said,
                            subnet=subnet)

    def finish(self):
        """Once more on each node."""
        self.stopped.set()
        self.thread.join(60)
        for node in self.execution.nodes:
            self._guarded(node)
