# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks share: the kernel's own limit, timed starts, notifications, memory and CPU."""
import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import BUILD, Cluster, Process, b64, run  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
FLOOR = BUILD / "tests/bench/floor"
SETTINGS = {"IP_SUBNET": "10.0.0.0/8", "IP_SUBNET_MARGIN": 16, "LEASE_TTL": 600,
            "RESYNC_INTERVAL": 86400, "LOG_LEVEL": "info", "ROUTE_GRACE": 30}


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def enter(namespace):
    """Moves the calling thread into a namespace, at less cost than ip netns exec."""
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if LIBC.setns(fd, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


@contextlib.contextmanager
def cluster_of(size):
    """A cluster with records of so many nodes, whose agents take their routes back in the end: what
    the kernel has to do when routes go with their namespace holds up what comes next (floor.c)."""
    with Cluster(SETTINGS) as cluster:
        cluster.network_len = 12  # room for more than 49,151
        cluster.start_etcd()
        cluster.put_peers(0, size)
        try:
            yield cluster
        finally:
            for node in cluster.nodes.values():
                release(node)


def release(node):
    if node.process and node.process.alive():
        node.stop()
    node.poplind("--release")


UPLINK = ("ip link add va type veth peer name vb; ip link set va up; ip link set vb up; "
          "ip address add 172.16.0.1/12 dev va; ")


def floor_routes(count, watched=False):
    """Seconds for the same nexthops and routes by the minimal program; watched: while another reads
    all notifications, as when an agent is measured."""
    make = f"{FLOOR} routes {count} va"
    if not watched:
        return float(run("unshare", "-n", "sh", "-c", f"{UPLINK}{make}"))
    out = run("unshare", "-n", "sh", "-c",
              f"{UPLINK}{FLOOR} watch nexthop {count} | {{ read ready; {make} >/dev/null; cat; }}")
    began, last = (float(t) for t in out.splitlines()[-1].split())
    return last - began


def ip_batch(count, folder):
    """Seconds for the same nexthops and routes by ip -batch."""
    def dotted(number):
        return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
    gateways = [0xac100100 + i for i in range(count)]
    subnets = [f"{dotted(0x0a000000 + (i << 8))}/24" for i in range(count)]
    (folder / "add").write_text("".join(
        [f"nexthop add id {g} via {dotted(g)} dev va proto 84\n" for g in gateways] +
        [f"route add {s} nhid {g} proto 84\n" for s, g in zip(subnets, gateways)]))
    (folder / "del").write_text("".join([f"route del {s}\n" for s in subnets] +
                                        [f"nexthop del id {g}\n" for g in gateways]))
    timed = ("import subprocess, time; start = time.monotonic(); "
             f"subprocess.run(['ip', '-batch', '{folder}/add'], check=True); "
             "print(time.monotonic() - start); "
             f"subprocess.run(['ip', '-batch', '{folder}/del'], check=True)")
    return float(run("unshare", "-n", "sh", "-c", f'{UPLINK}exec /usr/bin/python3 -c "{timed}"',
                     timeout=170))


def curl_list(cluster):
    """Seconds for curl, from its exec to its end, to list all records."""
    body = cluster.dir / "list.json"
    body.write_text(json.dumps({"key": b64("/poplin/nodes/"), "range_end": b64("/poplin/nodes0")}))
    def once():
        curl = Process(["curl", "-sf", "-o", "/dev/null", "-d", f"@{body}",
                        "http://127.0.0.1:2379/v3/kv/range"], cluster.dir / "curl.log",
                       before_exec=lambda: enter(cluster.store))
        curl.popen.wait()
        return time.monotonic() - curl.started
    return min(once() for _ in range(3))


class RouteWatch:
    """Sees `count` routes of ours being made in a node's kernel after a cause (see floor.c)."""

    def __init__(self, node, cause, count):
        self.popen = subprocess.Popen(
            ["ip", "netns", "exec", node.namespace, FLOOR, "watch", cause, str(count)],
            stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout.readline() == "ready\n"

    def times(self):
        """(when the cause was seen, when the last route was), by the monotonic clock."""
        began, last = (float(t) for t in self.popen.stdout.readline().split())
        self.popen.wait()
        return began, last


def start_agent(node):
    node.write_config()
    node.process = Process([BUILD / "poplind", "--config", node.config], node.log_path,
                           before_exec=lambda: enter(node.namespace))
    return node.process.started


def start_timed(node, count):
    """Starts the agent; seconds from its exec to its last route in the kernel."""
    routes = RouteWatch(node, "start", count)
    started = start_agent(node)
    return routes.times()[1] - started


def peak_memory(node):
    """KiB"""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def cpu_seconds(pid):
    """By the scheduler's clock: the ticks of /proc/PID/stat are too coarse for an idle process."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
