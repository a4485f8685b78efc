# SPDX-License-Identifier: GPL-2.0-or-later
"""Pods, attached by the installed plugin through its written configuration."""
import itertools
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import CniError, wait_for


def held(node):
    return {p["address"] for p in node.status("/status/pods")["pods"]}


def pod_links(node):
    return {link["ifname"] for link in node.ip_json("link", "show", "master", "poplin0")}


@pytest.mark.parametrize("config", ["10-poplin.conflist", "10-poplin.conf"])
def test_every_pod_reaches_every_pod(make_cluster, config):
    cluster = make_cluster(LEASE_TTL=60)
    nodes = [cluster.node() for _ in range(3)]
    for node in nodes:
        node.start(CNI_CONFIG_LOCATION=node.dir / "cni/net.d" / config)
    for node in nodes:
        node.wait_ready()
    for node in nodes:
        wait_for(lambda n=node: len(n.routes()) == 2, "two routes")
        written = Path(node.settings["CNI_CONFIG_LOCATION"])
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
        plugin = Path(node.settings["CNI_PLUGIN_LOCATION"])
        assert stat.S_IMODE(plugin.stat().st_mode) == 0o700
        assert [p.name for p in written.parent.iterdir()] == [config]
    pods = [node.pod(f"p{i}") for node in nodes for i in range(2)]
    pairs = list(itertools.permutations(pods, 2))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: pair[0].ping(pair[1].address), pairs))
    assert all(answers), [(a.name, b.name) for (a, b), ok in zip(pairs, answers) if not ok]
    # The node itself, a pod itself, and back through the bridge's hairpin.
    assert pods[0].ping(pods[0].result["ips"][0]["gateway"])
    assert pods[0].ping(nodes[1].address)


def test_two_hundred_pods(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node, = cluster.start_nodes(1)
    pods = [node.pod(f"p{i}", attach=False) for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: p.attach(), pods))
    assert len({p.address for p in pods}) == 200
    assert held(node) == {p.address for p in pods}
    assert node.metric("poplin_ipam_addresses") == 200
    assert len(pod_links(node)) == 200
    assert pods[0].ping(pods[199].address)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: p.detach(), pods))
    assert held(node) == set() and pod_links(node) == set()


def operations(node):
    """{(command, result): how many}, without those that never were."""
    found = re.findall(r'^poplin_cni_operations_total\{command="(\w+)",result="(\w+)"\} (\d+)$',
                       node.http("/metrics")[1], re.M)
    return {(command, result): int(n) for command, result, n in found if n != "0"}


def test_what_the_plugin_did_is_counted(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node, = cluster.start_nodes(1)
    assert operations(node) == {}
    pods = [node.pod(f"p{i}", attach=False) for i in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: p.attach(), pods))
    with pytest.raises(CniError):
        pods[0].attach()
    assert operations(node) == {("ADD", "ok"): 20, ("ADD", "error"): 1}
    assert node.metric('poplin_cni_duration_seconds_count{command="ADD"}') == 21
    assert 0 < node.metric('poplin_cni_duration_seconds_sum{command="ADD"}') < 21 * 5
    # What is done while no agent runs is counted by the next one, which begins at zero.
    node.stop()
    for pod in pods[:5]:
        pod.detach()
    node.start(ready=True)
    assert operations(node) == {("DEL", "ok"): 5}
    assert operations(node) == {("DEL", "ok"): 5}
    assert node.metric("poplin_ipam_addresses") == 15


def test_a_full_node_says_so_and_recovers(make_cluster):
    cluster = make_cluster(LEASE_TTL=60, IP_SUBNET="10.2.0.0/24", IP_SUBNET_MARGIN=5)
    node, = cluster.start_nodes(1)  # a /29: five pods
    pods = [node.pod(f"p{i}") for i in range(5)]
    late = node.pod("late", attach=False)
    with pytest.raises(Exception, match="no address of .* is free: 5 are held") as error:
        late.attach()
    assert error.value.code == 100
    assert len(pod_links(node)) == 5
    pods[2].detach()
    assert late.attach()["ips"][0]["address"].split("/")[0] == pods[2].address


def test_a_pods_namespace_that_vanished_is_no_obstacle(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node, = cluster.start_nodes(1)
    pod = node.pod("one")
    pod.close()
    wait_for(lambda: pod_links(node) == set(), "the link to go with the namespace")
    pod.detach()
    pod.detach()
    assert held(node) == set()
    assert os.path.exists(pod.path) is False


def test_pods_survive_the_agents_restart(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    here, there = first.pod("here"), second.pod("there")
    assert here.ping(there.address)
    first.kill()
    assert here.ping(there.address)
    first.start(ready=True)
    assert here.ping(there.address)
    assert held(first) == {here.address}
