# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in the kernel, and what does not."""
import json
from pathlib import Path

import pytest

from cluster import b64, run, wait_for


def record(subnet, address, **more):
    return json.dumps({"version": 1, "subnets": [subnet], "address": address,
                       "backend": {"type": "host-gw"}, "machine": "m", **more})


def peer(node, name):
    return next((p for p in node.status("/status/peers")["peers"] if p["node"] == name), None)


def test_a_dead_nodes_subnet_and_routes_go(cluster):
    nodes = cluster.start_nodes(3)
    dead = nodes[2].subnet
    for node in nodes[:2]:
        assert dead in node.routes()
    nodes[2].kill()
    for node in nodes[:2]:
        wait_for(lambda n=node: dead not in n.routes(), "the route to go", 30)
        wait_for(lambda n=node: len(n.ip_json("nexthop", "show", "proto", "84")) == 1,
                 "the nexthop to go")
    assert not [k for k in cluster.get() if k.endswith("n3")]
    # It was dead, not gone: its own routes and bridge stand for its pods.
    assert len(nodes[2].routes()) == 2


def test_routes_carry_our_protocol_and_go_by_nexthop_objects(cluster):
    first, second = cluster.start_nodes(2)
    route, = first.ip_json("route", "show", "proto", "84")
    assert route["dst"] == second.subnet
    nexthop, = first.ip_json("nexthop", "show", "proto", "84")
    assert nexthop["gateway"] == second.address
    assert route["nhid"] == nexthop["id"]


def test_what_is_removed_by_hand_comes_back_at_once(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    first, second = cluster.start_nodes(2)
    expected = {second.subnet: second.address}
    first.wait_routes(expected)
    first.ip("route", "del", second.subnet)
    first.wait_routes(expected, 3)
    first.ip("nexthop", "flush", "proto", "84")
    first.wait_routes(expected, 3)
    first.ip("route", "replace", second.subnet, "via", f"{cluster.net}.0.1", "proto", "84")
    first.wait_routes(expected, 3)
    first.ip("link", "set", "eth0", "down")
    wait_for(lambda: not first.routes(), "the routes to go with the link")
    first.ip("link", "set", "eth0", "up")
    first.wait_routes(expected, 10)
    assert first.metric('poplin_drift_repairs_total{kind="route"}') >= 1


def test_the_bridge_is_repaired(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    first, = cluster.start_nodes(1)
    bridge = lambda: first.ip_json("-d", "address", "show", "dev", "poplin0")[0]  # noqa: E731
    good = bridge()
    gateway = first.subnet.replace(".0/24", ".1")
    assert [a["local"] for a in good["addr_info"] if a["family"] == "inet"] == [gateway]
    first.ip("link", "set", "poplin0", "address", "02:00:00:00:00:01", "mtu", "1400")
    wait_for(lambda: (bridge()["address"], bridge()["mtu"]) == (good["address"], good["mtu"]),
             "MAC and MTU", 3)
    first.ip("address", "flush", "dev", "poplin0")
    first.ip("address", "add", "10.2.250.1/24", "dev", "poplin0")
    wait_for(lambda: [a["local"] for a in bridge()["addr_info"] if a["family"] == "inet"]
             == [gateway], "the gateway's address, and no other", 3)
    first.ip("link", "set", "poplin0", "down")
    wait_for(lambda: "UP" in bridge()["flags"], "the bridge to be up", 3)
    first.ip("link", "del", "poplin0")
    wait_for(lambda: first.ip_json("link", "show", "dev", "poplin0"), "the bridge", 3)


def test_foreign_routes_stay_and_a_clash_is_told_and_taken_over_later(cluster):
    first, = cluster.start_nodes(1)
    first.ip("route", "add", "10.2.200.0/24", "via", f"{cluster.net}.0.9")
    first.ip("route", "add", "10.9.0.0/16", "via", f"{cluster.net}.0.9")
    first.ip("route", "add", "blackhole", "10.2.201.0/24")
    cluster.put("/poplin/nodes/clash", record("10.2.200.0/24", f"{cluster.net}.0.77"))
    cluster.put("/poplin/nodes/hole", record("10.2.201.0/24", f"{cluster.net}.0.78"))

    def states():
        return {r["destination"]: r["state"] for r in first.status("/status/routes")["routes"]}
    wait_for(lambda: states() == {"10.2.200.0/24": "clash", "10.2.201.0/24": "clash"},
             "both clashes to be shown")
    foreign = {r["dst"]: r.get("gateway") for r in first.ip_json("route", "show", "proto", "boot")}
    assert foreign["10.2.200.0/24"] == foreign["10.9.0.0/16"] == f"{cluster.net}.0.9"
    first.ip("route", "del", "10.2.200.0/24")
    wait_for(lambda: first.routes().get("10.2.200.0/24") == f"{cluster.net}.0.77", "our route", 3)
    first.stop()
    first.poplind("--cleanup")
    assert first.routes() == {}
    left = [r["dst"] for r in first.ip_json("route", "show")]
    assert "10.9.0.0/16" in left and "10.2.201.0/24" in left


GARBAGE = {
    "not-json": ("{", "not JSON"),
    "no-record": ("[]", "neither a JSON object nor a prefix"),
    "everything": (record("0.0.0.0/0", "172.30.0.50"), "not one of the /24 subnets"),
    "bare-everything": ("0.0.0.0/0", "not one of the /24 subnets"),
    "outside": (record("10.3.0.0/24", "172.30.0.50"), "not one of the /24 subnets"),
    "wrong-length": (record("10.2.4.0/23", "172.30.0.50"), "not one of the /24 subnets"),
    "hop-inside": (record("10.2.210.0/24", "10.2.5.1"), "inside the pod network"),
    "hop-nowhere": (record("10.2.211.0/24", "0.0.0.0"), "not a unicast address"),
    "hop-local": (record("10.2.212.0/24", "127.0.0.1"), "not a unicast address"),
    "version-2": (record("10.2.213.0/24", "172.30.0.50", version=2), '"version" must be 1'),
    "backend": (record("10.2.214.0/24", "172.30.0.50", backend={"type": "pigeon"}), "pigeon"),
    "shell; rm": (record("10.2.215.0/24", "172.30.0.50"), "not a node name"),
}


def test_garbage_records_have_no_effect_and_stop_no_other(cluster):
    first, = cluster.start_nodes(1)
    for name, (value, _) in GARBAGE.items():
        cluster.put(f"/poplin/nodes/{name}", value)
    cluster.put("/poplin/nodes/ours", record(first.subnet, f"{cluster.net}.0.60"))
    cluster.put("/poplin/nodes/good", record("10.2.220.0/24", f"{cluster.net}.0.61"))
    first.wait_routes({"10.2.220.0/24": f"{cluster.net}.0.61"})
    shown = {p["node"]: p for p in first.status("/status/peers")["peers"]}
    for name, (_, reason) in GARBAGE.items():
        assert shown[name]["state"] == "rejected", name
        assert reason in shown[name]["reason"], name
    assert shown["ours"]["state"] == "rejected"
    assert "own subnet" in shown["ours"]["reason"]
    assert first.status()["peers"]["rejected"] == len(GARBAGE) + 1
    assert first.metric("poplin_peers_rejected") == len(GARBAGE) + 1
    assert "record refused" in first.log()
    for name in GARBAGE:
        cluster.delete(f"/poplin/nodes/{name}")
    wait_for(lambda: first.metric("poplin_peers_rejected") == 1, "them to go")


def test_a_key_with_a_nul_byte_is_no_other_nodes_record(cluster):
    """In C the name ends there: it would have taken the route of the node of that name away."""
    first, second = cluster.start_nodes(2)
    first.wait_routes({second.subnet: second.address})
    key = b64("/poplin/nodes/n2\0x")
    cluster.post("/v3/kv/put", {"key": key, "value": b64("garbage")})
    wait_for(lambda: peer(first, "n2?x"), "the garbage to be seen")
    assert peer(first, "n2?x")["state"] == "rejected"
    assert first.routes() == {second.subnet: second.address}
    cluster.post("/v3/kv/deleterange", {"key": key})
    wait_for(lambda: not peer(first, "n2?x"), "the garbage to go")
    assert first.routes() == {second.subnet: second.address}


def test_a_next_hop_that_is_not_on_link_fails_alone(cluster):
    first, = cluster.start_nodes(1)
    cluster.put("/poplin/nodes/far", record("10.2.221.0/24", "192.0.2.7"))
    cluster.put("/poplin/nodes/near", record("10.2.222.0/24", f"{cluster.net}.0.62"))
    first.wait_routes({"10.2.222.0/24": f"{cluster.net}.0.62"})

    def far():
        return next(r for r in first.status("/status/routes")["routes"]
                    if r["destination"] == "10.2.221.0/24")
    wait_for(lambda: far()["state"] == "failing", "it to be shown")
    assert "not on a network of this node" in far()["reason"]
    assert first.ready()


def test_what_the_kernel_said_is_told_with_a_route_that_fails(cluster):
    """A next hop that is the network's broadcast address was an "Invalid argument"."""
    first, = cluster.start_nodes(1)
    cluster.put("/poplin/nodes/wide", record("10.2.221.0/24", f"{cluster.net}.255.255"))

    def wide():
        return next((r for r in first.status("/status/routes")["routes"]
                     if r["destination"] == "10.2.221.0/24"), {})
    reason = "Invalid argument: Nexthop has invalid gateway"
    wait_for(lambda: reason in (wide().get("reason") or ""), lambda: f"the reason: {wide()}", 10)
    wait_for(lambda: reason in first.poplinctl("routes"), "it in the table", 10)


def test_the_older_claim_wins_on_every_node_and_the_other_follows(cluster):
    nodes = cluster.start_nodes(2)
    cluster.put("/poplin/nodes/b-older", record("10.2.230.0/24", f"{cluster.net}.0.71"))
    cluster.put("/poplin/nodes/a-newer", record("10.2.230.0/24", f"{cluster.net}.0.72"))
    for node in nodes:
        wait_for(lambda n=node: (peer(n, "a-newer") or {}).get("state") == "conflict",
                 "the conflict")
        assert node.routes()["10.2.230.0/24"] == f"{cluster.net}.0.71"
        assert "b-older" in peer(node, "a-newer")["reason"]
        assert node.metric("poplin_peers_conflicts") == 1
    # A change of its record does not make the older claim younger.
    cluster.put("/poplin/nodes/b-older", record("10.2.230.0/24", f"{cluster.net}.0.73"))
    for node in nodes:
        wait_for(lambda n=node: n.routes()["10.2.230.0/24"] == f"{cluster.net}.0.73", "its change")
    cluster.delete("/poplin/nodes/b-older")
    for node in nodes:
        wait_for(lambda n=node: n.routes().get("10.2.230.0/24") == f"{cluster.net}.0.72",
                 "the next one")


def test_a_python_record_is_resolved_by_the_nodes_name(cluster):
    first = cluster.node()
    hosts = Path(f"/etc/netns/{first.namespace}")
    hosts.mkdir(parents=True)
    try:
        (hosts / "hosts").write_text(f"{cluster.net}.0.80 python-node\n")
        first.start(ready=True)
        cluster.put("/poplin/nodes/python-node", "10.2.240.0/24")
        first.wait_routes({"10.2.240.0/24": f"{cluster.net}.0.80"})
        cluster.put("/poplin/nodes/nowhere.invalid", "10.2.241.0/24")
        wait_for(lambda: (peer(first, "nowhere.invalid") or {}).get("state") == "unresolved",
                 "the other to wait")
        # The node leaves and comes back.
        cluster.delete("/poplin/nodes/python-node")
        first.wait_routes({})
        cluster.put("/poplin/nodes/python-node", "10.2.240.0/24")
        first.wait_routes({"10.2.240.0/24": f"{cluster.net}.0.80"})
        first.stop()
    finally:
        run("rm", "-rf", hosts)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_stale_routes_go_only_after_the_list(cluster, end):
    first, second = cluster.start_nodes(2)
    expected = {second.subnet: second.address}
    getattr(first, end)()
    first.ip("route", "add", "10.2.199.0/24", "via", second.address, "proto", "84")
    cluster.cut_etcd()
    first.start()
    first.wait_log("cannot claim|cannot be followed")
    assert set(first.routes()) == {second.subnet, "10.2.199.0/24"}
    cluster.cut_etcd(down=False)
    first.wait_routes(expected, 40)
    first.wait_ready(40)


def test_a_gateway_that_changed_while_the_agent_was_away_leaves_no_nexthop(cluster):
    first, = cluster.start_nodes(1)
    cluster.put("/poplin/nodes/moves", record("10.2.170.0/24", f"{cluster.net}.0.90"))
    first.wait_routes({"10.2.170.0/24": f"{cluster.net}.0.90"})
    first.kill()
    cluster.put("/poplin/nodes/moves", record("10.2.170.0/24", f"{cluster.net}.0.91"))
    first.start(ready=True)
    first.wait_routes({"10.2.170.0/24": f"{cluster.net}.0.91"})
    wait_for(lambda: [n["gateway"] for n in first.ip_json("nexthop", "show", "proto", "84")]
             == [f"{cluster.net}.0.91"], "the old nexthop to go")


def test_a_node_that_moves_to_another_address_is_followed(cluster):
    first, second = cluster.start_nodes(2)
    subnet, watch, new = first.subnet, cluster.watch_deletes(), f"{cluster.net}.99.1"
    first.ip("address", "add", f"{new}/16", "dev", "eth0")
    first.ip("address", "del", f"{first.address}/16", "dev", "eth0")
    first.ip("address", "replace", f"{new}/16", "dev", "eth0")
    first.ip("route", "replace", "default", "via", f"{cluster.net}.0.1")
    second.wait_routes({subnet: new})
    first.wait_routes({second.subnet: second.address})
    assert first.subnet == subnet
    assert watch.deletes() == []
    watch.close()


def test_the_cni_files_come_back(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=1)
    first, = cluster.start_nodes(1)
    config, plugin = (Path(first.settings[n]) for n in ("CNI_CONFIG_LOCATION",
                                                        "CNI_PLUGIN_LOCATION"))
    good, program = config.read_text(), plugin.read_bytes()
    config.unlink()
    wait_for(config.exists, "the configuration", 10)
    config.write_text("{}")
    plugin.unlink()
    wait_for(lambda: config.read_text() == good and plugin.exists()
             and plugin.read_bytes() == program, "both files", 10)
    assert [p.name for p in config.parent.iterdir()] == [config.name]
    first.pod("works")


def test_the_bridges_mtu_follows_the_interfaces(make_cluster):
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    first, = cluster.start_nodes(1)
    first.ip("link", "set", "eth0", "mtu", "1400")
    wait_for(lambda: first.ip_json("link", "show", "dev", "poplin0")[0]["mtu"] == 1400, "it", 10)
    wait_for(lambda: first.plugin_config()["mtu"] == 1400, "the plugin's configuration", 10)
