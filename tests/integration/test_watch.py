# SPDX-License-Identifier: GPL-2.0-or-later
"""The watch: etcd falls silent, loses its leader, is restored, and is compared with."""
import contextlib
import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from cluster import BUILD, Failed, Process, b64, run, wait_for

FLAGS = re.search(r"^POPLIN_CFLAGS = .*", (BUILD / "Makefile").read_text(), re.M)[0]
SANITIZED = "-fsanitize" in FLAGS
IDLE_SECONDS = float(os.environ.get("POPLIN_IDLE_SECONDS", "10"))


def record(cluster, number):
    return (f"10.2.{number}.0/24", json.dumps({
        "version": 1, "subnets": [f"10.2.{number}.0/24"], "address": f"{cluster.net}.0.50",
        "backend": {"type": "host-gw"}, "machine": "m"}))


def new_record(cluster, number):
    subnet, text = record(cluster, number)
    cluster.put(f"/poplin/nodes/new{number}", text)
    return subnet


def new_record_soon(cluster, number):
    """The same while etcd chooses a new leader."""
    def put():
        with contextlib.suppress(Failed):
            return new_record(cluster, number)
        return None
    return wait_for(put, "etcd to take a record", 30)


def received(node):
    """{(host, local port): bytes} of the connections to etcd."""
    text = run("ip", "netns", "exec", node.namespace, "ss", "-Htni", "dport", "=", ":2379")
    return {(host, port): int(count) for port, host, count in re.findall(
        r":(\d+)\s+([0-9.]+):2379[^\n]*\n[^\n]*bytes_received:(\d+)", text)}


def watched_member(cluster, node, number):
    """The member whose connection a change comes by."""
    before = received(node)
    subnet = new_record(cluster, number)
    wait_for(lambda: subnet in node.routes(), "the route")
    hosts = {c[0] for c, count in received(node).items() if count - before.get(c, 0) > 300}
    member, = [m for m in cluster.members if m.address in hosts]
    return member


@pytest.mark.parametrize("fault", ["stopped", "firewalled"])
def test_a_silent_member_is_left_within_30_s(make_cluster, fault):
    # It goes on acknowledging what TCP sends, or nothing comes at all; others can be reached.
    cluster = make_cluster(members=3, LEASE_TTL=120)
    node = cluster.node(ETCD_HOST=cluster.etcd_hosts).start(ready=True)
    member = watched_member(cluster, node, 150)
    cluster.speaker = next(m for m in cluster.members if m is not member)
    start = time.monotonic()
    if fault == "stopped":
        member.pause()
    else:
        member.cut_clients()
    subnet = new_record_soon(cluster, 151)
    wait_for(lambda: subnet in node.routes(), "the route by another member", 45)
    took = time.monotonic() - start
    print(f"noticed after {took:.1f} s")
    assert took < 30
    assert node.status()["lease"]["held"]
    member.heal()


def test_a_member_without_a_leader_is_left(make_cluster):
    cluster = make_cluster(members=3, LEASE_TTL=120)
    last = cluster.members[-1]
    node = cluster.node(ETCD_HOST=f"{last.address}:2379").start(ready=True)
    wait_for(lambda: node.status()["store"]["connected"], "the watch")
    for member in cluster.members[:2]:
        member.stop()
    wait_for(lambda: not node.status()["store"]["connected"], "the watch to end", 20)
    node.wait_log("leader", timeout=10)
    # Nothing comes any more, though routes stand and the lease lives: people should know.
    wait_for(lambda: any("have not arrived" in w for w in node.status()["warnings"]),
             "a warning", 60)
    assert "\npoplin_watch_connected 0\n" in node.http("/metrics")[1]
    for member in cluster.members[:2]:
        member.heal()
    wait_for(lambda: node.status()["store"]["connected"], "the watch", 40)
    assert "\npoplin_watch_connected 1\n" in node.http("/metrics")[1]
    subnet = new_record(cluster, 150)
    wait_for(lambda: subnet in node.routes(), "the route", 30)


def test_a_restored_store_that_grew_past_our_revision_is_noticed(make_cluster):
    # The same cluster id and a revision ahead of ours: only its history differs.
    cluster = make_cluster(LEASE_TTL=600)
    node = cluster.node().start(ready=True)
    kept = new_record(cluster, 150)
    wait_for(lambda: kept in node.routes(), "the route")
    cluster.stop_etcd()
    shutil.copytree(cluster.dir / "etcd", cluster.dir / "backup")
    cluster.start_etcd()
    lost = new_record(cluster, 151)
    wait_for(lambda: lost in node.routes(), "the route", 30)
    cluster.stop_etcd()
    node.cut_off()
    shutil.rmtree(cluster.dir / "etcd")
    (cluster.dir / "backup").rename(cluster.dir / "etcd")
    cluster.start_etcd()
    other = new_record(cluster, 152)
    for i in range(20):
        cluster.put("/other", str(i))
    node.firewall.clear()
    wait_for(lambda: {kept, other} == set(node.routes()), "what is there now", 60)
    node.wait_log("listing the store again.*another history")


@pytest.mark.parametrize("away", ("short", "longer than RESYNC_INTERVAL"))
def test_routes_outlive_records_that_a_restored_store_lacks(make_cluster, away):
    cluster = make_cluster(LEASE_TTL=60, RESYNC_INTERVAL=1 if away != "short" else 600)
    node = cluster.node(ROUTE_GRACE=20).start(ready=True)
    cluster.stop_etcd()
    shutil.copytree(cluster.dir / "etcd", cluster.dir / "backup")
    cluster.start_etcd()
    wait_for(lambda: node.status()["store"]["connected"], "the watch", 30)
    alive = cluster.node().start(ready=True)
    gone, subnet = new_record(cluster, 150), alive.subnet
    expected = {subnet: alive.address, gone: f"{cluster.net}.0.50"}
    node.wait_routes(expected)
    cluster.stop_etcd()
    alive.cut_off()
    node.cut_off()
    shutil.rmtree(cluster.dir / "etcd")
    (cluster.dir / "backup").rename(cluster.dir / "etcd")
    cluster.start_etcd()
    for i in range(20):
        cluster.put("/other", str(i))
    if away != "short":
        time.sleep(3)  # for the comparison to be due, and more: nobody tells of that
    lost = "the store may have lost records"
    told = node.log().count(lost)  # etcd was away before
    node.firewall.clear()
    wait_for(lambda: node.log().count(lost) > told, "it to notice", 60)
    start = time.monotonic()
    wait_for(lambda: "stale" in node.poplinctl("routes"), "the list")
    # The other node notices by itself: its record comes anew, and its route was never gone.
    alive.firewall.clear()
    wait_for(lambda: cluster.get(f"/poplin/nodes/{alive.name}"), "its record", 20)
    node.wait_routes({subnet: alive.address}, 30)
    assert time.monotonic() - start > 18
    assert alive.subnet == subnet
    assert node.metric('poplin_route_operations_total{op="delete",result="ok"}') == 1
    assert node.metric('poplin_route_operations_total{op="add",result="ok"}') == 2
    # From then on what goes is gone at once.
    wait_for(lambda: node.status()["store"]["connected"], "the watch", 30)
    late = new_record(cluster, 151)
    node.wait_routes({subnet: alive.address, late: f"{cluster.net}.0.50"})
    cluster.delete("/poplin/nodes/new151")
    node.wait_routes({subnet: alive.address}, 4)


@pytest.mark.parametrize("same_id", (True, False), ids=("same cluster id", "another cluster id"))
def test_a_cluster_that_is_restored_from_a_snapshot_costs_no_route(make_cluster, same_id):
    """As etcd's manual has it: three members, each restored into a new folder by etcdctl."""
    cluster = make_cluster(members=3, LEASE_TTL=20, ROUTE_GRACE=20)
    nodes = cluster.start_nodes(2)
    gone = new_record(cluster, 150)
    for node in nodes:
        wait_for(lambda n=node: gone in n.routes(), "the route")
    snapshot = cluster.dir / "snapshot"
    cluster.etcdctl("snapshot", "save", snapshot)
    # What it lacks: a node that lives, one that does not, and that one is gone.
    nodes += cluster.start_nodes(1)
    lost = new_record(cluster, 151)
    cluster.delete("/poplin/nodes/new150")
    routes = {n.subnet: n.address for n in nodes}
    others = [{s: a for s, a in routes.items() if a != n.address} for n in nodes]
    outside = f"{cluster.net}.0.50"
    for node, living in zip(nodes, others):
        node.wait_routes({**living, lost: outside})
    deleted = 'poplin_route_operations_total{op="delete",result="ok"}'
    before = [node.metric(deleted) for node in nodes]
    cluster.restore_etcd(snapshot, same_id)
    # At once what the snapshot has; after ROUTE_GRACE without what nobody put anew.
    for node, living in zip(nodes, others):
        node.wait_routes({**living, lost: outside, gone: outside}, 20)
    for node, living in zip(nodes, others):
        node.wait_routes({**living, gone: outside}, 40)
    assert [node.metric(deleted) for node in nodes] == [b + 1 for b in before]
    assert {n.subnet: n.address for n in nodes} == routes
    records = cluster.get("/poplin/nodes/")
    assert {f"/poplin/nodes/{n.name}" for n in nodes} < set(records)
    subnet = new_record(cluster, 152)
    for node in nodes:
        wait_for(lambda n=node: subnet in n.routes(), "the next record", 30)
        node.pod("late")


def test_without_any_watch_the_comparisons_go_on(make_cluster):
    """A proxy that holds streams back: late is better than never."""
    cluster = make_cluster(LEASE_TTL=60, RESYNC_INTERVAL=2)
    cluster.helpers.append(Process(
        ["ip", "netns", "exec", cluster.store, "python3", Path(__file__).with_name("lossy.py"),
         "2390", "2379", "header"], cluster.dir / "lossy.log"))
    node = cluster.node(ETCD_HOST=f"{cluster.etcd_address}:2390").start(ready=True)
    first = new_record(cluster, 150)
    node.wait_routes({first: f"{cluster.net}.0.50"}, 30)
    assert not node.status()["store"]["connected"]
    second = new_record(cluster, 151)
    node.wait_routes({first: f"{cluster.net}.0.50", second: f"{cluster.net}.0.50"}, 30)


def test_a_full_comparison_repairs_what_no_watch_told(make_cluster):
    """None comes by itself here: the interval is a day but for the one that is asked for."""
    cluster = make_cluster(LEASE_TTL=60, RESYNC_INTERVAL=86400)
    cluster.helpers.append(Process(
        ["ip", "netns", "exec", cluster.store, "python3", Path(__file__).with_name("lossy.py"),
         "2390", "2379", b64("/poplin/nodes/new150")], cluster.dir / "lossy.log"))
    node = cluster.node(ETCD_HOST=f"{cluster.etcd_address}:2390").start(ready=True)
    compared = 'poplin_watch_restarts_total{reason="compare"}'
    told = itertools.count(160)

    def told_of_another():
        subnet = new_record(cluster, next(told))
        with contextlib.suppress(Failed):
            return wait_for(lambda: subnet in node.routes(), "the route that the watch told", 2)
        return False
    for missed in True, False:
        wait_for(lambda: node.status()["store"]["connected"], "the watch")
        count = node.metric(compared)
        if missed:
            subnet = new_record(cluster, 150)
        else:
            cluster.delete("/poplin/nodes/new150")
        # More than one where the watch was cut just then, as both are in one answer then.
        wait_for(told_of_another, "the watch to go on", 30)
        assert node.metric(compared) == count
        assert (subnet in node.routes()) != missed
        node.write_config(RESYNC_INTERVAL=1)
        assert "configuration loaded" in node.hangup()
        wait_for(lambda c=count: node.metric(compared) > c, "the comparison")
        node.write_config(RESYNC_INTERVAL=86400)
        assert "configuration loaded" in node.hangup()
        wait_for(lambda m=missed: (subnet in node.routes()) == m, "the repair")
        assert node.metric('poplin_watch_restarts_total{reason="stale"}') == 0


def test_full_comparisons_disturb_nothing(make_cluster):
    cluster = make_cluster(LEASE_TTL=60, RESYNC_INTERVAL=2)
    node = cluster.node().start(ready=True)
    compared = 'poplin_watch_restarts_total{reason="compare"}'
    wait_for(lambda: node.metric(compared) >= 3, "comparisons", 20)
    subnets = [new_record(cluster, 150 + i) for i in range(5)]
    wait_for(lambda: set(subnets) <= set(node.routes()), "the routes")
    cluster.delete("/poplin/nodes/new150")
    wait_for(lambda: subnets[0] not in node.routes(), "the route to go")
    # Neither claims anew, nor touches a route, nor says that anything is wrong.
    assert node.metric('poplin_lease_claims_total{result="ok"}') == 1
    assert node.metric('poplin_route_operations_total{op="delete",result="ok"}') == 1
    assert "cannot be followed" not in node.log()
    # A reload changes the interval of the wait that runs.
    node.write_config(RESYNC_INTERVAL=86400)
    assert "configuration loaded" in node.hangup()
    wait_for(lambda: node.status()["store"]["connected"], "the watch")
    count = node.metric(compared)
    time.sleep(4)
    assert node.metric(compared) == count


def cpu_seconds(node):
    """Of the agent itself, not of what it is wrapped in."""
    pid = node.process.pid
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(SANITIZED, reason="the CPU time of a sanitized build tells nothing")
@pytest.mark.parametrize("fault", ["refused", "vanished"])
def test_an_agent_without_etcd_is_idle(make_cluster, fault):
    cluster = make_cluster(LEASE_TTL=60)
    node = cluster.node(LOG_LEVEL="info").start(ready=True)
    if fault == "refused":
        cluster.stop_etcd()
    else:
        node.cut_off()
    wait_for(lambda: not node.status()["store"]["connected"], "the watch to end", 40)
    before, start = cpu_seconds(node), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = (cpu_seconds(node) - before) / (time.monotonic() - start)
    print(f"CPU of an agent whose etcd {fault}: {share:.3%}")
    assert share < 0.005
