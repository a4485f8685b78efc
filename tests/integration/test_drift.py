# SPDX-License-Identifier: GPL-2.0-or-later
"""What others do to a node's interfaces, bridge and routes."""
import json
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from cluster import TOP, run, wait_for

sys.path.insert(0, str(TOP / "tests/bench"))

from measure import RouteWatch  # noqa: E402


def record(subnet, address):
    return json.dumps({"version": 1, "subnets": [subnet], "address": address,
                       "backend": {"type": "host-gw"}, "machine": "m"})


def route(node, destination):
    return next((r for r in node.status("/status/routes")["routes"]
                 if r["destination"] == destination), None)


def nexthop_links(node):
    return {n["dev"] for n in node.ip_json("nexthop", "show", "proto", "84")}


@pytest.fixture(name="pair")
def pair_fixture(make_cluster):
    """Two nodes that no resync helps."""
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    return cluster.start_nodes(2)


def test_pods_of_a_deleted_bridge_reach_each_other_again(pair):
    first, second = pair
    here, there, beside = first.pod("a"), second.pod("b"), first.pod("c")
    assert here.ping(there.address) and here.ping(beside.address)
    first.ip("link", "del", "poplin0")
    wait_for(lambda: here.ping(there.address) and beside.ping(here.address), "the pods", 10)
    assert "links of pods put back into the bridge" in first.log()
    assert first.metric('poplin_drift_repairs_total{kind="bridge"}') >= 1
    late = first.pod("d")
    assert late.ping(there.address) and late.ping(here.address)


def test_a_bridge_by_its_earlier_name_is_taken_over_with_its_pods(pair):
    first, second = pair
    old, there = first.pod("old"), second.pod("there")
    first.stop()
    first.start(ready=True, BRIDGE_NAME="pods0")
    new = first.pod("new")
    assert old.ping(there.address) and new.ping(there.address) and new.ping(old.address)
    assert not first.ip_json("link", "show", "poplin0")
    # Somebody renames it while the agent runs.
    first.ip("link", "set", "pods0", "down")
    first.ip("link", "set", "pods0", "name", "other0")
    wait_for(lambda: first.ip_json("link", "show", "pods0"), "the bridge by its name", 10)
    assert not first.ip_json("link", "show", "other0")
    wait_for(lambda: old.ping(there.address) and new.ping(old.address), "the pods", 10)
    first.stop()
    first.poplind("--cleanup", "--release", "--force")
    assert not [l for l in first.ip_json("link") if l["ifname"].startswith(("pop", "pods"))]


def test_an_interface_that_is_renamed_is_followed(pair):
    first, second = pair
    expected = first.routes()
    first.ip("link", "set", "eth0", "down")
    first.ip("link", "set", "eth0", "name", "lan0")
    first.ip("link", "set", "lan0", "up")
    first.ip("route", "replace", "default", "via", f"{first.cluster.net}.0.1")
    first.wait_routes(expected, 10)
    wait_for(lambda: first.status()["interface"] == "lan0" and first.ready(), "its name", 10)
    assert nexthop_links(first) == {"lan0"}
    assert second.routes() == {first.subnet: first.address}


def test_an_interface_that_is_replaced_is_followed(pair):
    first, second = pair
    expected, subnet = first.routes(), first.subnet
    first.ip("link", "del", "eth0")
    wait_for(lambda: not first.routes(), "the routes to go with the interface")
    first.wait_log("cannot set up this node")
    before = len(first.log())
    # The last of the steps that it takes makes the node whole: nothing waits for a timer.
    run("ip", "-n", first.cluster.switch, "link", "add", "port9", "type", "veth", "peer", "name",
        "eth0", "netns", first.namespace)
    run("ip", "-n", first.cluster.switch, "link", "set", "port9", "master", "sw", "up")
    first.ip("address", "add", f"{first.address}/16", "dev", "eth0")
    first.ip("link", "set", "eth0", "up")
    first.ip("route", "add", "default", "via", f"{first.cluster.net}.0.1")
    first.wait_routes(expected, 5)
    first.wait_log("interface is another one now", since=before)
    first.wait_ready()
    assert first.subnet == subnet and second.routes() == {subnet: first.address}


def test_addresses_of_the_other_family_ask_for_no_comparison(pair):
    """Where routers advertise IPv6 networks, the kernel tells of the addresses again and again."""
    first, second = pair
    compared = first.metric("poplin_resyncs_total")
    first.ip("address", "add", "fd00:9::1/64", "dev", "eth0", "nodad")
    first.ip("address", "change", "fd00:9::1/64", "dev", "eth0", "valid_lft", "900",
             "preferred_lft", "900")
    first.ip("route", "del", second.subnet)  # told after them, and repaired
    first.wait_routes({second.subnet: second.address}, 10)
    assert first.metric("poplin_resyncs_total") == compared
    first.ip("address", "add", "192.0.2.1/32", "dev", "eth0")
    wait_for(lambda: first.metric("poplin_resyncs_total") > compared, "a comparison", 10)


def test_a_foreign_route_in_the_place_of_ours_is_told_not_fought_and_ends(pair):
    first, second = pair
    expected, foreign = first.routes(), f"{first.cluster.net}.0.9"
    first.ip("route", "replace", second.subnet, "via", foreign)
    row = wait_for(lambda: (route(first, second.subnet) or {}).get("state") == "clash"
                   and route(first, second.subnet), "it to be told", 10)
    assert "not ours" in row["reason"] and row["tries"] >= 1
    assert row["next_try_s"] is not None
    assert first.metric('poplin_netlink_errors_total{errno="EEXIST"}') >= 1
    # A full comparison does not touch it either.
    before = first.metric("poplin_resyncs_total")
    first.hangup()
    first.ip("link", "set", "eth0", "txqueuelen", "999")  # any change of the link asks for one
    wait_for(lambda: first.metric("poplin_resyncs_total") > before, "a comparison")
    assert first.ip_json("route", "show", second.subnet)[0]["gateway"] == foreign
    first.ip("route", "del", second.subnet, "via", foreign)
    first.wait_routes(expected, 3)
    assert route(first, second.subnet)["state"] == "installed"


def test_a_foreign_route_before_ours_is_a_clash_and_is_never_replaced(pair):
    """The kernel takes both, goes by the first one, and would replace that one too."""
    first, second = pair
    cluster, subnet, foreign = first.cluster, "10.2.200.0/24", f"{first.cluster.net}.0.9"
    others = {second.subnet: second.address}

    def put(address):
        cluster.put("/poplin/nodes/made-up", record(subnet, address))
    put(f"{cluster.net}.0.70")
    first.wait_routes({**others, subnet: f"{cluster.net}.0.70"})
    first.ip("route", "prepend", subnet, "via", foreign)
    wait_for(lambda: (route(first, subnet) or {}).get("state") == "clash", "it to be told", 10)
    before = first.metric("poplin_resyncs_total")
    first.ip("link", "set", "eth0", "txqueuelen", "998")
    wait_for(lambda: first.metric("poplin_resyncs_total") > before, "a comparison")
    tries = route(first, subnet)["tries"]
    put(f"{cluster.net}.0.71")
    wait_for(lambda: (route(first, subnet) or {}).get("via") == f"{cluster.net}.0.71"
             and route(first, subnet)["tries"] > tries, "another try, by the new next hop", 10)
    # Ours stays behind it as it was: its nexthop is not removed under it.
    assert [r.get("gateway") for r in first.ip_json("route", "show", subnet)] == \
        [foreign, f"{cluster.net}.0.70"]
    # Nor is it forgotten with the process that knew of the clash.
    first.kill()
    first.start(ready=True)
    assert route(first, subnet)["state"] == "clash"
    put(f"{cluster.net}.0.72")
    put(f"{cluster.net}.0.71")
    wait_for(lambda: (route(first, subnet) or {}).get("via") == f"{cluster.net}.0.71",
             "the next hop", 10)
    assert first.ip_json("route", "show", subnet)[0]["gateway"] == foreign
    first.ip("route", "del", subnet, "via", foreign)
    first.wait_routes({**others, subnet: f"{cluster.net}.0.71"}, 20)
    # A record that goes takes our route from behind the foreign one.
    first.ip("route", "prepend", subnet, "via", foreign)
    wait_for(lambda: (route(first, subnet) or {}).get("state") == "clash", "it to be told", 10)
    cluster.delete("/poplin/nodes/made-up")
    first.wait_routes(others, 10)
    assert [r["gateway"] for r in first.ip_json("route", "show", subnet)] == [foreign]
    first.ip("route", "del", subnet, "via", foreign)


def test_a_clash_asks_the_kernel_once_and_ends_with_the_link_of_the_other_route(pair):
    """A route that goes with its link is not told; each look at what stands is a dump of all."""
    first, second = pair
    expected = first.routes()
    first.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    first.ip("address", "add", "192.0.2.1/24", "dev", "other0")
    for link in ("other0", "other1"):
        first.ip("link", "set", link, "up")
    first.ip("route", "replace", second.subnet, "via", "192.0.2.9")
    wait_for(lambda: (route(first, second.subnet) or {}).get("state") == "clash", "it to be told")
    asked = first.metric('poplin_netlink_errors_total{errno="EEXIST"}')
    tries = route(first, second.subnet)["tries"]
    wait_for(lambda: route(first, second.subnet)["tries"] > tries + 3, "more tries", 10)
    # One of another metric stands beside ours, and is no reason to look either.
    first.ip("route", "add", second.subnet, "via", "192.0.2.9", "metric", "50")
    first.ip("route", "del", second.subnet, "via", "192.0.2.9", "metric", "50")
    tries = route(first, second.subnet)["tries"]
    wait_for(lambda: route(first, second.subnet)["tries"] > tries, "another try", 20)
    assert first.metric('poplin_netlink_errors_total{errno="EEXIST"}') == asked
    first.ip("link", "del", "other0")
    first.wait_routes(expected, 2)
    assert route(first, second.subnet)["state"] == "installed"


def nexthop_id(address):
    return str(int(IPv4Address(address)))


def test_a_nexthop_that_somebody_else_replaced_is_told_and_taken_back(pair):
    """Without a protocol of his, he only has to leave ours away."""
    first, second = pair
    expected, number = first.routes(), nexthop_id(second.address)
    first.ip("nexthop", "replace", "id", number, "via", f"{first.cluster.net}.0.9", "dev", "eth0")
    row = wait_for(lambda: (route(first, second.subnet) or {}).get("state") != "installed"
                   and route(first, second.subnet), "it to be told", 10)
    assert row["tries"] >= 1 and row["reason"]
    first.ip("nexthop", "del", "id", number)
    first.wait_routes(expected, 5)
    wait_for(lambda: route(first, second.subnet)["state"] == "installed", "it to be well", 5)


def test_no_route_goes_by_a_nexthop_of_somebody_elses(pair):
    first, second = pair
    cluster, subnet, others = first.cluster, "10.2.200.0/24", first.routes()
    address = f"{cluster.net}.0.70"
    first.ip("nexthop", "add", "id", nexthop_id(address), "via", f"{cluster.net}.0.9", "dev", "eth0")
    cluster.put("/poplin/nodes/made-up", record(subnet, address))
    wait_for(lambda: (route(first, subnet) or {}).get("tries"), "it to be told", 10)
    assert first.ip_json("route", "show", subnet) == []
    assert route(first, subnet)["state"] != "installed"
    first.ip("nexthop", "del", "id", nexthop_id(address))
    first.wait_routes({**others, subnet: address}, 5)
    cluster.delete("/poplin/nodes/made-up")
    first.wait_routes(others, 10)


def test_a_foreign_route_of_another_tos_is_no_clash(pair):
    """The kernel has room for both. It was taken for one in our place, before or after it came."""
    first, second = pair
    cluster, foreign = first.cluster, f"{first.cluster.net}.0.9"
    expected = first.routes()
    before = first.metric("poplin_resyncs_total")
    first.ip("route", "add", second.subnet, "tos", "0x10", "via", foreign)
    # What follows is told after it, and is put back next to another one.
    first.ip("route", "add", "10.2.200.0/24", "tos", "0x10", "via", foreign)
    cluster.put("/poplin/nodes/late", record("10.2.200.0/24", f"{cluster.net}.0.70"))
    wait_for(lambda: first.routes() == {**expected, "10.2.200.0/24": f"{cluster.net}.0.70"},
             "the late one", 10)
    for subnet in (second.subnet, "10.2.200.0/24"):
        first.ip("route", "del", subnet, "proto", "84")
        wait_for(lambda s=subnet: s in first.routes(), "it to come back", 3)
        wait_for(lambda s=subnet: (route(first, s) or {}).get("state") == "installed", "its state")
    first.ip("link", "set", "eth0", "txqueuelen", "997")
    wait_for(lambda: first.metric("poplin_resyncs_total") > before, "a comparison")
    assert first.metric('poplin_netlink_errors_total{errno="EEXIST"}') in (None, 0)
    assert len(first.ip_json("route", "show", second.subnet)) == 2
    first.ip("route", "del", second.subnet, "tos", "0x10")
    assert not [r for r in first.status("/status/routes")["routes"] if r["state"] == "clash"]


def test_repairs_do_not_wait_for_a_store_that_keeps_a_list_waiting(make_cluster):
    """etcd stops, and a full comparison with it waits for its first page until it gives up."""
    cluster = make_cluster(RESYNC_INTERVAL=1)
    first, second = cluster.start_nodes(2)
    expected = {second.subnet: second.address}
    lists = 'poplin_watch_restarts_total{reason="compare"}'
    member = cluster.members[0]
    member.pause()
    try:
        before = first.metric(lists)
        wait_for(lambda: first.metric(lists) > before, "a list that waits", 10)
        taken = []
        for _ in range(5):
            watch = RouteWatch(first, "delete", 1)
            first.ip("route", "del", second.subnet)
            began, last = watch.times()
            taken.append(last - began)
            first.wait_routes(expected)
        assert "the store cannot be followed" not in first.log()  # the list waited all the time
    finally:
        member.heal()
    assert sorted(taken)[2] < 0.01 and max(taken) < 0.5, taken


def proto84(node):
    """What stands in the main table: sorted lists of destination, type, gateway and so on."""
    more = ("gateway", "metric", "tos", "metrics", "prefsrc")
    return sorted(([r["dst"], r.get("type", "unicast"), *(r.get(name) for name in more)]
                   for r in node.ip_json(node.family, "-N", "route", "show", "proto", "84")),
                  key=str)  # None is not less than a text


@pytest.mark.parametrize("pods", ["10.2.0.0/16", "fd00:2::/56"])
def test_routes_of_our_protocol_that_we_did_not_make_are_replaced_or_removed(make_cluster, pods):
    """Whatever their type, metric or TOS. Those of other tables and protocols are not ours."""
    cluster = make_cluster(RESYNC_INTERVAL=3600, IP_SUBNET=pods)
    first, second = cluster.start_nodes(2)
    ipv6 = first.family == "-6"
    unused, late = (("fd00:2:0:c8::/64", "fd00:2:0:c9::/64") if ipv6 else
                    ("10.2.200.0/24", "10.2.201.0/24"))
    router = f"{cluster.net6}:1" if ipv6 else f"{cluster.net}.0.1"

    def ip(*args):
        first.ip(first.family, "route", *args)
    expected = proto84(first)
    strays = [[unused, "via", router, "proto", "84", "metric", "7"],
              [second.subnet, "via", router, "proto", "84", "metric", "2000"]]
    if not ipv6:
        strays.append([second.subnet, "tos", "0x10", "via", router, "proto", "84"])
    for table, proto in (("100", "84"), ("main", "85")):
        ip("add", unused, "via", router, "proto", proto, "metric", "9", "table", table)

    def check(what):
        wait_for(lambda: proto84(first) == expected, lambda: f"{what}: {proto84(first)}", 5)
    ip("replace", "blackhole", second.subnet, "proto", "84")
    check("ours, that was replaced by a blackhole")
    ip("add", "blackhole", unused, "proto", "84")
    check("a blackhole that nobody asked for")
    for stray in strays:
        ip("add", *stray)
        check(stray)
    two = ["nexthop", "via", router, "nexthop", "via", router.replace(":1", ":2") if ipv6
           else f"{cluster.net}.0.2"]
    ip("replace", second.subnet, "proto", "84", *two)
    check("ours, that was replaced by one of several next hops")
    ip("replace", second.subnet, "via", second.address, "proto", "84", "mtu", "1300")
    check("ours, that was given an MTU")
    # Next to ours, in the same place: the kernel goes by the first one.
    ip("append", "blackhole", second.subnet, "proto", "84")
    check("one behind ours")
    ip("append", second.subnet, "proto", "84", *two)
    check("one of several next hops behind ours, or among its own")
    ip("append", second.subnet, "via", router, "proto", "84")
    check("one by a gateway behind ours, or among its own")
    if not ipv6:  # which knows no order among those of one metric
        ip("prepend", second.subnet, "via", router, "proto", "84")
        check("one before ours")
        ip("prepend", second.subnet, "proto", "84", *two)
        check("one of several next hops before ours")
    first.stop()
    for stray in [["blackhole", late, "proto", "84"], *strays]:
        ip("add", *stray)
    cluster.put("/poplin/nodes/late", record(late, second.address))
    first.start(ready=True)
    expected = sorted([*expected, [late, *expected[0][1:]]], key=str)
    check("what was there at the start")
    assert {r["state"] for r in first.status("/status/routes")["routes"]} == {"installed"}
    assert first.metric('poplin_drift_repairs_total{kind="route"}') >= len(strays)
    # Neither of them was touched.
    assert first.ip_json(first.family, "route", "show", unused, "table", "100", "proto", "84")
    assert first.ip_json(first.family, "route", "show", unused, "proto", "85")


@pytest.mark.parametrize("cause", ["delete", "replace", "link"])
def test_repairs_take_milliseconds_from_the_notification(pair, cause):
    """Most of them; what else runs on the machine may hold one up, but none waits for a timer."""
    first, second = pair
    deeds = {"delete": [f"route del {second.subnet}"],
             "replace": [f"route replace {second.subnet} via {first.cluster.net}.0.1 proto 84"],
             "link": ["link set eth0 down", "link set eth0 up",
                      f"route replace default via {first.cluster.net}.0.1"]}
    taken = []
    for _ in range(10):
        watch = RouteWatch(first, cause, 1)
        subprocess.run(["ip", "-n", first.namespace, "-batch", "-"], check=True, text=True,
                       input="\n".join(deeds[cause]) + "\n")
        began, last = watch.times()
        taken.append(last - began)
        wait_for(lambda: first.routes() == {second.subnet: second.address}, "our route")
    assert sorted(taken)[7] < 0.01 and max(taken) < 0.2, taken


def test_a_strict_rp_filter_is_told_once_and_shown(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=1)
    first, second = cluster.node(), cluster.node()
    run("ip", "netns", "exec", first.namespace, "sh", "-c",
        "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter;"
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
    first.start(ready=True)
    second.start(ready=True)
    wait_for(lambda: first.metric('poplin_limits_near{limit="rp_filter"}') == 1, "the warning")
    assert "Warning   net/ipv4/conf/eth0/rp_filter is 1" in first.poplinctl("status")
    before = first.metric("poplin_resyncs_total")
    wait_for(lambda: first.metric("poplin_resyncs_total") >= before + 2, "more comparisons")
    assert first.log().count("a limit of this node is near") == 1
    run("ip", "netns", "exec", first.namespace, "sh", "-c",
        "echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
    wait_for(lambda: first.metric('poplin_limits_near{limit="rp_filter"}') == 0, "its end")
    assert "Warning" not in first.poplinctl("status")


def test_limits_are_looked_at_when_many_nodes_came(make_cluster):
    """There is no resync before the many new nodes meet one."""
    cluster = make_cluster(RESYNC_INTERVAL=3600, IP_SUBNET="10.0.0.0/8", IP_SUBNET_MARGIN=16)
    node, = cluster.start_nodes(1)
    assert node.metric('poplin_limits_near{limit="rp_filter"}') == 0
    run("ip", "netns", "exec", node.namespace, "sh", "-c",
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
    cluster.put_peers(0, 40)
    wait_for(lambda: node.metric('poplin_limits_near{limit="rp_filter"}') == 1, "the warning", 10)


def test_stale_routes_stay_for_the_grace_period(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    first, second = cluster.start_nodes(2)
    for i in (1, 2):
        cluster.put(f"/poplin/nodes/late{i}", record(f"10.2.18{i}.0/24", f"{cluster.net}.0.9{i}"))
    wait_for(lambda: len(first.routes()) == 3, "their routes")
    first.kill()
    for i in (1, 2):
        cluster.delete(f"/poplin/nodes/late{i}")
    first.start(ready=True, ROUTE_GRACE=4)
    assert route(first, "10.2.181.0/24")["state"] == "stale"
    # One comes back in time, and nothing happens to its route; the other does not.
    cluster.put("/poplin/nodes/late1", record("10.2.181.0/24", f"{cluster.net}.0.91"))
    expected = {second.subnet: second.address, "10.2.181.0/24": f"{cluster.net}.0.91"}
    wait_for(lambda: route(first, "10.2.181.0/24")["state"] == "installed", "its record")
    assert len(first.routes()) == 3
    first.wait_routes(expected)
    wait_for(lambda: len(first.ip_json("nexthop", "show", "proto", "84")) == 2, "the nexthop to go")
    assert first.metric('poplin_route_operations_total{op="add",result="ok"}') == 0
    assert first.metric('poplin_route_operations_total{op="delete",result="ok"}') == 1
    # What is removed while the agent runs goes at once.
    cluster.delete("/poplin/nodes/late1")
    first.wait_routes({second.subnet: second.address}, 3)
