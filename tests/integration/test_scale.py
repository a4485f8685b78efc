# SPDX-License-Identifier: GPL-2.0-or-later
"""More records than fit on one page of a list."""
import re
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from cluster import BUILD, peer, run, wait_for

PEERS = 1200  # pages have 500


def sanitized():
    """Sanitizers multiply the memory, so its limit says nothing there."""
    return b"__asan_init" in (BUILD / "poplind").read_bytes() or \
        b"__tsan_init" in (BUILD / "poplind").read_bytes()


@pytest.fixture(name="large")
def large_fixture(make_cluster):
    return make_cluster(IP_SUBNET="10.0.0.0/8", IP_SUBNET_MARGIN=16, LEASE_TTL=60, LOG_LEVEL="info")


def expected(start, count):
    return dict(peer(i) for i in range(start, start + count))


def test_every_page_of_the_list_becomes_routes(large):
    large.put_peers(0, PEERS)
    first, = large.start_nodes(1)
    assert first.routes() == expected(0, PEERS)
    wait_for(lambda: len(first.status("/status/peers")["peers"]) == PEERS + 1, "our own record too")
    assert len(first.poplinctl("routes").splitlines()) == PEERS + 1
    # All of the second page and more go while the agent is down; nothing else is touched.
    first.kill()
    large.etcdctl("del", "/poplin/nodes/node-00300", "/poplin/nodes/node-01100")
    first.start(ready=True)
    wait_for(lambda: len(first.routes()) == PEERS - 800, "the stale routes to go")
    assert first.routes() == {**expected(0, 300), **expected(1100, 100)}
    wait_for(lambda: len(first.ip_json("nexthop", "show", "proto", "84")) == PEERS - 800,
             "their nexthops to go")
    assert first.metric('poplin_route_operations_total{op="add",result="ok"}') == 0


def test_a_burst_of_records_while_watching(large):
    first, second = large.start_nodes(2)
    large.put_peers(0, PEERS)
    wait_for(lambda: len(first.routes()) == PEERS + 1, "the routes", 30)
    assert first.routes() == {**expected(0, PEERS), second.subnet: second.address}
    large.etcdctl("del", "--prefix", "/poplin/nodes/node-")
    first.wait_routes({second.subnet: second.address}, 30)
    wait_for(lambda: len(first.ip_json("nexthop", "show", "proto", "84")) == 1, "the nexthops", 30)
    if not sanitized():
        status = Path(f"/proc/{first.process.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < 32 * 1024


def test_what_the_workers_do_does_not_wake_the_monitor(large):
    first, = large.start_nodes(1)
    large.put_peers(0, 1)
    first.wait_routes(expected(0, 1))  # by then the kernel knows whose notifications to leave out

    def switches():
        for task in Path(f"/proc/{first.process.pid}/task").iterdir():
            if (task / "comm").read_text() == "monitor\n":
                return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)",
                                     (task / "status").read_text(), re.M)[1])
        raise AssertionError("no thread of that name")
    before = switches()
    for i in range(1, 101):
        large.put_peers(i, 1)
        wait_for(lambda n=i: first.metric('poplin_routes_installed{family="ipv4"}') == n + 1,
                 "the route")
    assert switches() - before < 50


STORM = 10000


def test_a_storm_delays_neither_renewals_nor_scrapes_nor_a_reload(make_cluster):
    cluster = make_cluster(IP_SUBNET="10.0.0.0/8", IP_SUBNET_MARGIN=16, LEASE_TTL=6,
                           LOG_LEVEL="info")
    first, = cluster.start_nodes(1)
    storm = threading.Thread(target=cluster.put_peers, args=(0, STORM))
    scrapes, reloads, left = [], [], []
    storm.start()
    while storm.is_alive():
        start = time.monotonic()
        assert first.http("/metrics")[0] == 200
        scrapes.append(time.monotonic() - start)
        left.append(first.status()["lease"]["expires_in_s"])
        start = time.monotonic()
        first.hangup()
        reloads.append(time.monotonic() - start)
    storm.join()
    most = 5 if sanitized() else 1
    assert max(scrapes) < most and max(reloads) < most
    # Renewed at a third of six seconds, give or take a tenth, the lease never has less than 3.8.
    assert min(left) >= 3 - (1 if sanitized() else 0), left
    assert "cannot renew" not in first.log()
    wait_for(lambda: first.metric('poplin_routes_installed{family="ipv4"}') == STORM, "the routes",
             60)


def main_seconds(node):
    """CPU time of the main thread."""
    main = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/schedstat")
    return int(main.read_text().split()[0]) / 1e9


def test_a_storm_of_default_routes_costs_the_main_thread_a_share(make_cluster):
    """Each may lead out by another link, and the look for it reads all routes of the node."""
    cluster = make_cluster(RESYNC_INTERVAL=3600, LOG_LEVEL="info")
    node, = cluster.start_nodes(1)
    node.ip("-batch", "-", input="".join(f"route add 11.{i >> 8}.{i & 255}.0/24 dev eth0\n"
                                         for i in range(40000)))
    gateways = [f"{cluster.net}.0.{8 + i}" for i in range(2)]
    storm = [f"route replace default via {gateways[i % 2]}\n" for i in range(100)]
    # The first change is followed at once.
    cluster.plug(node.namespace, "eth1", f"{cluster.net}.0.200/16")
    node.ip("route", "replace", "default", "via", gateways[0], "dev", "eth1")
    wait_for(lambda: node.status()["interface"] == "eth1", "the other interface", 1)
    start, before = time.monotonic(), main_seconds(node)
    while time.monotonic() - start < 4:
        node.ip("-batch", "-", input="".join(storm))
        time.sleep(0.02)
    share = (main_seconds(node) - before) / (time.monotonic() - start)
    assert share < 0.2, share  # a tenth, after a tenth of a second at once
    # And so is the last one, after it.
    node.ip("route", "replace", "default", "via", gateways[0], "dev", "eth0")
    wait_for(lambda: node.status()["interface"] == "eth0", "the first interface", 10)


class BridgeWatch:
    """The kernel's notifications of a node's bridge, by ip(8) with the time of each."""

    def __init__(self, node):
        self.path = node.dir / "monitor"
        with open(self.path, "wb") as out:
            self.popen = subprocess.Popen(["ip", "-ts", "-n", node.namespace, "monitor", "address",
                                           "dev", "poplin0"], stdout=out)

        def heard():
            for verb in "add", "del":
                node.ip("address", verb, "192.0.2.9/32", "dev", "poplin0")
            return self.path.read_text()
        wait_for(heard, "the first notification")

    def repaired(self, address, cause):
        """Seconds from the notification that it went to the one that it is back."""
        already, times = self.path.stat().st_size, {}
        cause()

        def look():
            for line in self.path.read_text()[already:].splitlines():
                found = re.search(r"\[(\S+)\] (Deleted )?\d+: \S+ +inet (\S+)", line)
                if found and found[3] == address:
                    times.setdefault(bool(found[2]), datetime.fromisoformat(found[1]))
            return len(times) == 2
        wait_for(look, "the address")
        return (times[False] - times[True]).total_seconds()

    def close(self):
        self.popen.kill()
        self.popen.wait()


BRIDGE_STORMS = {
    "address": ["address add 192.0.2.1/32 dev poplin0", "address del 192.0.2.1/32 dev poplin0"],
    "link": ["link set poplin0 down", "link set poplin0 up"],
    "sysctl": ["echo 0 >/proc/sys/net/ipv4/conf/poplin0/forwarding"],
}


@pytest.mark.parametrize("kind", BRIDGE_STORMS)
def test_a_storm_on_the_bridge_costs_the_main_thread_a_share(make_cluster, kind):
    """Each of its events is a reason to look at the bridge and at all links, which may be pods'."""
    cluster = make_cluster(RESYNC_INTERVAL=3600, LOG_LEVEL="info")
    node, = cluster.start_nodes(1)
    node.ip("-batch", "-", input="".join(
        f"link add one{i} type veth peer name other{i}\n" for i in range(200)))
    gateway = node.subnet.replace(".0/24", ".1/24")
    watch, deeds = BridgeWatch(node), BRIDGE_STORMS[kind]

    def repair():
        return watch.repaired(gateway, lambda: node.ip("address", "del", gateway, "dev", "poplin0"))

    def storm(seconds):
        """An event every other millisecond: the kernel's lock is free in between. How many."""
        program = ["sh"] if kind == "sysctl" else ["ip", "-batch", "-"]
        popen = subprocess.Popen(["ip", "netns", "exec", node.namespace, *program], text=True,
                                 stdin=subprocess.PIPE)
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end or count % len(deeds):
            popen.stdin.write(deeds[count % len(deeds)] + "\n")
            popen.stdin.flush()
            count += 1
            time.sleep(0.002)
        popen.stdin.close()
        assert popen.wait() == 0
        return count
    try:
        taken = [repair() for _ in range(10)]
        checks = node.metric("poplin_node_checks_total")
        start, before = time.monotonic(), main_seconds(node)
        events = storm(3)
        share = (main_seconds(node) - before) / (time.monotonic() - start)
        checks = node.metric("poplin_node_checks_total") - checks
        # What else runs on the machine may hold some up, but none waits for a timer.
        assert sorted(taken)[3] < (0.03 if sanitized() else 0.01) and max(taken) < 1, taken
        assert share < 0.2, share  # a tenth, after a tenth of a second at once
        assert checks * 2 < events, (checks, events)
        # And the last event is not forgotten.
        wait_for(lambda: "UP" in node.ip_json("link", "show", "poplin0")[0]["flags"], "the bridge")
        wait_for(lambda: run("ip", "netns", "exec", node.namespace, "cat",
                             "/proc/sys/net/ipv4/conf/poplin0/forwarding") == "1\n", "forwarding")
        wait_for(lambda: repair() < (0.03 if sanitized() else 0.01), "a quick repair after it", 10)
    finally:
        watch.close()
