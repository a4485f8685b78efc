# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes that carry their gateways: those of IPv6, and all where there are no nexthop objects."""
import json
import subprocess
from pathlib import Path

import pytest

from cluster import wait_for


def record(subnet, address):
    return json.dumps({"version": 1, "subnets": [subnet], "address": address,
                       "backend": {"type": "host-gw"}, "machine": "m"})


@pytest.fixture(name="old_kernel", scope="module")
def old_kernel_fixture(tmp_path_factory):
    """What stands before a program that is to see a kernel without nexthop objects."""
    library = tmp_path_factory.mktemp("old") / "old_kernel.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library,
                    Path(__file__).with_name("old_kernel.c"), "-ldl"], check=True)
    return ["env", f"LD_PRELOAD={library}", "ASAN_OPTIONS=verify_asan_link_order=0"]


@pytest.fixture(name="pair", params=["IPv6", "old kernel"])
def pair_fixture(request, make_cluster, old_kernel):
    """Two nodes that no resync helps. The first one's routes carry their gateways."""
    ipv6 = request.param == "IPv6"
    cluster = make_cluster(RESYNC_INTERVAL=3600, **({"IP_SUBNET": "fd00:2::/56"} if ipv6 else {}))
    first, second = cluster.node(), cluster.node()
    if not ipv6:
        first.wrap = old_kernel
    for node in (first, second):
        node.start(ready=True)
    first.wait_routes({second.subnet: second.address})
    second.wait_routes({first.subnet: first.address})
    return first, second


def more_interface(node, name):
    """One more interface to the other nodes. Its address, and that of the router."""
    cluster = node.cluster
    if node.family == "-6":
        cluster.plug(node.namespace, name, f"{cluster.net6}:77/64", f"{cluster.net}.77.1/16")
        return f"{cluster.net6}:77", f"{cluster.net6}:1"
    cluster.plug(node.namespace, name, f"{cluster.net}.77.1/16")
    return f"{cluster.net}.77.1", f"{cluster.net}.0.1"


def ways(node):
    """{destination: (gateway, link)} of our protocol."""
    return {r["dst"]: (r.get("gateway"), r.get("dev"))
            for r in node.ip_json(node.family, "route", "show", "proto", "84")}


def wait_ways(node, expected):
    wait_for(lambda: ways(node) == expected, lambda: f"{expected}; there is {ways(node)}", 10)


def test_pods_of_an_ipv6_network_reach_each_other_whatever_happens_to_routes(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=3600, IP_SUBNET="fd00:2::/56")
    first, second = cluster.start_nodes(2)
    assert first.subnet.endswith("::/64") and first.subnet != second.subnet
    assert not first.ip_json("nexthop", "show", "proto", "84")
    here, there = first.pod("a"), second.pod("b")
    assert there.address.startswith(second.subnet.split("::")[0])
    wait_for(lambda: here.ping(there.address) and there.ping(here.address), "the pods")
    others = {second.subnet: second.address}
    # By hand: removed, by another next hop, all of them flushed.
    first.ip("-6", "route", "del", second.subnet)
    first.wait_routes(others, 3)
    first.ip("-6", "route", "replace", second.subnet, "via", f"{cluster.net6}:1", "proto", "84")
    first.wait_routes(others, 3)
    first.ip("-6", "route", "flush", "proto", "84")
    first.wait_routes(others, 3)
    assert here.ping(there.address)
    # By its record: it comes, moves and goes.
    subnet = "fd00:2:0:a0::/64"
    for last in ("90", "91"):
        cluster.put("/poplin/nodes/moves", record(subnet, f"{cluster.net6}:{last}"))
        first.wait_routes({**others, subnet: f"{cluster.net6}:{last}"})
    cluster.delete("/poplin/nodes/moves")
    first.wait_routes(others)
    # Restarted, it finds what it left.
    first.kill()
    first.start(ready=True)
    first.wait_routes(others)
    assert first.metric('poplin_route_operations_total{op="add",result="ok"}') == 0
    assert here.ping(there.address)


def test_plain_routes_follow_the_uplink_to_another_interface(pair):
    first, second = pair
    wait_ways(first, {second.subnet: (second.address, "eth0")})
    here, there = first.pod("a"), second.pod("b")
    new, router = more_interface(first, "eth2")
    first.ip(first.family, "route", "replace", "default", "via", router, "dev", "eth2")
    wait_ways(first, {second.subnet: (second.address, "eth2")})
    wait_for(lambda: first.status()["interface"] == "eth2", "it to be shown", 10)
    second.wait_routes({first.subnet: new})
    # The old one is watched no more; nothing of ours may hang on it.
    first.ip(first.family, "address", "flush", "dev", "eth0", "scope", "global")
    first.ip("link", "set", "eth0", "down")
    wait_for(lambda: here.ping(there.address) and there.ping(here.address), "the pods", 10)
    assert ways(first) == {second.subnet: (second.address, "eth2")}
    assert first.ready()


def test_a_plain_route_by_another_interface_is_repaired(pair):
    first, second = pair
    expected = {second.subnet: (second.address, "eth0")}
    more_interface(first, "eth1")
    move = [first.family, "route", "replace", second.subnet, "via", second.address, "dev", "eth1",
            "proto", "84"]
    first.ip(*move)
    wait_ways(first, expected)
    # And where nobody told: found as it starts.
    first.stop()
    first.ip(*move)
    first.start(ready=True)
    wait_ways(first, expected)


def test_without_nexthop_objects_routes_carry_their_gateways(make_cluster, old_kernel):
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    first, second = cluster.node(), cluster.node()
    first.wrap = old_kernel
    for node in (first, second):
        node.start(ready=True)
    expected = {second.subnet: second.address}
    first.wait_routes(expected)
    assert "no nexthop objects" in first.log()
    assert not first.ip_json("nexthop", "show", "proto", "84")
    cluster.put("/poplin/nodes/moves", record("10.2.170.0/24", f"{cluster.net}.0.90"))
    first.wait_routes({**expected, "10.2.170.0/24": f"{cluster.net}.0.90"})
    cluster.put("/poplin/nodes/moves", record("10.2.170.0/24", f"{cluster.net}.0.91"))
    first.wait_routes({**expected, "10.2.170.0/24": f"{cluster.net}.0.91"})
    first.ip("route", "flush", "proto", "84")
    first.wait_routes({**expected, "10.2.170.0/24": f"{cluster.net}.0.91"}, 3)
    first.ip("link", "set", "eth0", "down")
    first.ip("link", "set", "eth0", "up")
    first.ip("route", "replace", "default", "via", f"{cluster.net}.0.1")
    first.wait_routes({**expected, "10.2.170.0/24": f"{cluster.net}.0.91"}, 5)
    # Restarted, it finds what it left; on a new kernel it goes over to nexthop objects.
    first.kill()
    cluster.delete("/poplin/nodes/moves")
    first.start(ready=True)
    first.wait_routes(expected)
    assert first.metric('poplin_route_operations_total{op="add",result="ok"}') == 0
    first.stop()
    first.wrap = []
    first.start(ready=True)
    wait_for(lambda: [r.get("nhid") for r in first.ip_json("route", "show", "proto", "84")] !=
             [None], "the nexthop object")
    first.wait_routes(expected)
