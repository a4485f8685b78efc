# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody else works on the node's kernel tables, and in the end they are as they should be.

Each round does a few things at random, some while records change, and then waits until the routes
and nexthops of our protocol are exactly those of the records. There is no resync to help.
"""
import json
import os
import random
import signal
import subprocess
import time

import pytest

from cluster import run, wait_for

PEERS = 150
ROUNDS = int(os.environ.get("POPLIN_SABOTAGE_ROUNDS", "25"))


class Saboteur:
    """One node with many peers that exist in the store alone."""

    def __init__(self, cluster, seed):
        self.cluster, self.random = cluster, random.Random(seed)
        self.wanted = {}
        for i in range(PEERS):
            self.put(i, f"172.30.{100 + i % 7}.{1 + i}")
        self.node = cluster.node("me").start(ready=True)

    def put(self, i, gateway):
        record = {"version": 1, "subnets": [f"10.2.{i}.0/24"], "address": gateway,
                  "backend": {"type": "host-gw"}, "machine": "m"}
        self.cluster.put(f"/poplin/nodes/p{i}", json.dumps(record))
        self.wanted[f"10.2.{i}.0/24"] = gateway

    def remove(self, i):
        self.cluster.delete(f"/poplin/nodes/p{i}")
        self.wanted.pop(f"10.2.{i}.0/24", None)

    # -- what stands, and what should ------------------------------------------------

    def problem(self):
        """What differs between the kernel and the records, or None."""
        nexthops = {h.get("gateway") for h in self.node.ip_json("nexthop", "show", "proto", "84")}
        routes = self.node.ip_json("route", "show", "proto", "84")
        found = {r["dst"]: r.get("gateway") for r in routes}
        if found != self.wanted or len(routes) != len(found):
            return set(found.items()) ^ set(self.wanted.items()) or "a route twice"
        return nexthops ^ set(self.wanted.values()) or None

    def settle(self, done):
        wait_for(lambda: not self.problem(), lambda: f"the end of {done}: {self.problem()}", 30)

    # -- sabotage --------------------------------------------------------------------

    def batch(self, lines):
        subprocess.run(["ip", "-n", self.node.namespace, "-force", "-batch", "-"], check=False,
                       input="\n".join(lines) + "\n", text=True, capture_output=True)

    def some(self, count):
        return self.random.sample(sorted(self.wanted), count)

    def nexthops(self, count):
        ids = [h["id"] for h in self.node.ip_json("nexthop", "show", "proto", "84")]
        return self.random.sample(ids, min(count, len(ids)))

    def pause(self):
        time.sleep(self.random.choice([0, 0.05, 0.3]))

    def gateway(self):
        self.node.ip("route", "replace", "default", "via", f"{self.cluster.net}.0.1", check=False)

    def delete_routes(self):
        self.batch([f"route del {dst}" for dst in self.some(20)])

    def flush_routes(self):
        self.node.ip("route", "flush", "proto", "84", check=False)

    def replace_routes(self):
        self.batch([f"route replace {dst} via 172.30.0.1 proto 84" for dst in self.some(10)])

    def delete_nexthops(self):
        self.batch([f"nexthop del id {i}" for i in self.nexthops(10)])

    def flush_nexthops(self):
        self.node.ip("nexthop", "flush", "proto", "84", check=False)

    def turn_nexthops(self):
        self.batch([f"nexthop replace id {i} via 172.30.0.77 dev eth0 proto 84"
                    for i in self.nexthops(5)])

    def cut_link(self):
        self.node.ip("link", "set", "eth0", "down")
        self.pause()
        self.node.ip("link", "set", "eth0", "up")
        self.gateway()

    def cut_carrier(self):
        port = f"port{self.cluster.ports - 1}"
        run("ip", "-n", self.cluster.switch, "link", "set", port, "down")
        self.pause()
        run("ip", "-n", self.cluster.switch, "link", "set", port, "up")

    def take_address(self):
        address = f"{self.node.address}/16"
        self.node.ip("address", "del", address, "dev", "eth0")
        self.pause()
        self.node.ip("address", "add", address, "dev", "eth0")
        self.gateway()

    def clash(self):
        taken = self.some(10)
        self.batch([f"route replace {dst} via 172.30.0.9" for dst in taken])
        self.pause()
        self.batch([f"route del {dst} via 172.30.0.9" for dst in taken])

    def beside(self):
        taken = self.some(10)
        self.batch([f"route add {dst} via 172.30.0.9 metric 5" for dst in taken])
        self.pause()
        self.batch([f"route del {dst} metric 5" for dst in taken])

    def forge(self):
        self.batch([f"route add 10.77.{i}.0/24 via 172.30.0.9 proto 84" for i in range(20)] +
                   [f"nexthop add id {i} via 172.30.0.9 dev eth0 proto 84" for i in range(5, 9)])

    def change_records(self):
        for _ in range(5):
            self.put(self.random.randrange(PEERS), f"172.30.100.{self.random.randrange(1, 250)}")
            self.remove(self.random.randrange(PEERS))

    def overrun(self):
        """More notifications than the agent's buffer holds, and changes while it catches up."""
        self.node.process.send(signal.SIGSTOP)
        self.batch([f"route {verb} 10.99.0.0/24 via 172.30.0.9 proto 84"
                    for _ in range(25000) for verb in ("add", "del")])
        self.delete_routes()
        self.node.process.send(signal.SIGCONT)
        for _ in range(5):
            self.delete_routes()
            time.sleep(self.random.choice([0, 0.001, 0.01]))


@pytest.fixture
def saboteur(make_cluster):
    return Saboteur(make_cluster(RESYNC_INTERVAL=86400, IP_SUBNET="10.0.0.0/8",
                                 IP_SUBNET_MARGIN=16, LEASE_TTL=600, LOG_LEVEL="info"), seed=7)


def test_the_kernel_follows_the_records_whatever_is_done_to_it(saboteur):
    deeds = [saboteur.delete_routes, saboteur.flush_routes, saboteur.replace_routes,
             saboteur.delete_nexthops, saboteur.flush_nexthops, saboteur.turn_nexthops,
             saboteur.cut_link, saboteur.cut_carrier, saboteur.take_address, saboteur.clash,
             saboteur.beside, saboteur.forge, saboteur.change_records]
    for number in range(ROUNDS):
        done = [saboteur.random.choice(deeds) for _ in range(saboteur.random.randrange(1, 5))]
        for deed in done:
            deed()
        saboteur.settle(f"round {number}, {[deed.__name__ for deed in done]}")


def test_lost_notifications_lose_nothing(saboteur):
    for number in range(2):
        saboteur.overrun()
        saboteur.settle(f"overrun {number}")
    assert saboteur.node.metric("poplin_netlink_overruns_total") >= 2


def switch_off(node, name):
    """A sysctl, which is to be on again soon."""
    path = f"/proc/sys/net/{name}"
    run("ip", "netns", "exec", node.namespace, "sh", "-c", f"echo 0 >{path}")
    wait_for(lambda: run("ip", "netns", "exec", node.namespace, "cat", path) == "1\n", path, 3)


def test_forwarding_comes_back_at_once(saboteur):
    node = saboteur.node
    for name in ("ip_forward", "conf/poplin0/forwarding", "conf/eth0/forwarding"):
        switch_off(node, f"ipv4/{name}")
    assert node.metric('poplin_drift_repairs_total{kind="bridge"}') >= 3


def test_forwarding_of_ipv6_comes_back_at_once(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=86400, IP_SUBNET="fd00:77::/48", IP_SUBNET_MARGIN=16,
                           NODE_INTERFACE="eth0")
    node = cluster.node("six")
    node.ip("address", "add", "fd00:1::1/64", "dev", "eth0", "nodad")
    node.start(ready=True)
    for name in ("all", "poplin0", "eth0"):
        switch_off(node, f"ipv6/conf/{name}/forwarding")
