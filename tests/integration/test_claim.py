# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets which subnet."""
import json
import re

from cluster import wait_for


def records(cluster):
    return {k: json.loads(v) for k, v in cluster.get("/poplin/nodes/").items()}


def test_fifty_agents_at_once_get_fifty_subnets(make_cluster):
    cluster = make_cluster(LEASE_TTL=60, LOG_LEVEL="info")
    nodes = [cluster.node() for _ in range(50)]
    for node in nodes:
        node.start()
    wait_for(lambda: len(records(cluster)) == 50, "50 records", 90)
    subnets = [r["subnets"][0] for r in records(cluster).values()]
    assert len(set(subnets)) == 50
    holders = cluster.get("/poplin/nodes-subnets/")
    assert len(holders) == 50
    for key, record in records(cluster).items():
        subnet_key = "/poplin/nodes-subnets/" + record["subnets"][0].replace("/", "-")
        assert holders[subnet_key] == key.rsplit("/", 1)[1]
    # Each has a route to each other one, and none to itself.
    for node in nodes:
        wait_for(lambda n=node: len(n.routes()) == 49, f"{node.name}'s 49 routes", 60)


def test_a_claim_takes_five_requests(make_cluster):
    """Thousands of nodes may come at one moment. What it takes beside the list of the nodes."""
    cluster = make_cluster(LEASE_TTL=60)
    cluster.node().start(ready=True)  # the first one writes the cluster's settings, too
    second = cluster.node().start(ready=True)
    requests = dict(re.findall(r'^poplin_etcd_requests_total{op="(\w+)",result="ok"} ([1-9]\d*)$',
                               second.http("/metrics")[1], re.M))
    assert requests == {"txn": "3", "put": "1", "lease_grant": "1", "range": "1"}


def test_a_full_network_is_told_and_tried_again(make_cluster):
    # 10.2.0.0/28 with 2 more bits: four subnets of /30.
    cluster = make_cluster(LEASE_TTL=5, IP_SUBNET="10.2.0.0/28", IP_SUBNET_MARGIN=2)
    nodes = cluster.start_nodes(4)
    late = cluster.node().start()
    late.wait_log(r"10\.2\.0\.0/28 is full: all of its 4 subnets of /30 are held")
    late.wait_log(r"tries=3")
    assert not late.ready()
    assert "full" in " ".join(late.status("/status")["reasons"])
    taken = nodes[1].subnet
    nodes[1].stop()
    nodes[1].poplind("--release")
    late.wait_ready(60)
    assert late.subnet == taken


def test_a_restart_keeps_subnet_and_lease_and_nobody_sees_it(cluster):
    first, second = cluster.start_nodes(2)
    subnet, watch = first.subnet, cluster.watch_deletes()
    lease = re.search(r'"lease":\s*(\d+)', cluster.etcdctl("get", "/poplin/nodes/n1", "-w", "json"))
    for end in (first.stop, first.kill):
        end()
        first.start(ready=True)
        assert first.subnet == subnet
    again = re.search(r'"lease":\s*(\d+)', cluster.etcdctl("get", "/poplin/nodes/n1", "-w", "json"))
    assert again[1] == lease[1]
    assert watch.deletes() == []
    assert second.metric('poplin_route_operations_total{op="delete",result="ok"}') == 0
    watch.close()


def test_a_changed_ttl_moves_the_claim_without_a_flap(cluster):
    first, second = cluster.start_nodes(2)
    subnet, watch = first.subnet, cluster.watch_deletes()
    first.stop()
    first.start(LEASE_TTL=30, ready=True)
    assert first.status()["lease"]["ttl_s"] == 30
    assert first.subnet == subnet
    assert watch.deletes() == []
    assert subnet in second.routes()
    watch.close()


def test_a_returned_subnet_is_the_last_to_be_used_again(cluster):
    first, = cluster.start_nodes(1)
    returned = first.subnet
    first.stop()
    first.poplind("--release")
    assert list(cluster.get("/poplin/nodes")) == ["/poplin/nodes-network"]
    other, = cluster.start_nodes(1)
    assert other.subnet != returned


def test_two_machines_under_one_name(cluster):
    first, = cluster.start_nodes(1)
    impostor = cluster.node("other", NODE_NAME=first.name)
    machine_id = impostor.dir / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    impostor.wrap = ["unshare", "-m", "sh", "-c",
                     f'mount --bind {machine_id} /etc/machine-id && exec "$@"', "sh"]
    impostor.start()
    impostor.wait_log(rf"node name '{first.name}' is held by another machine, at "
                      rf"{first.address} with subnet {re.escape(first.subnet)}")
    status = impostor.process.popen.wait(10)
    impostor.process = None
    assert status == 1
    assert first.ready()
    # When the first one is dead, the name is free.
    first.kill()
    wait_for(lambda: "/poplin/nodes/n1" not in cluster.get(), "the end of the lease")
    impostor.start(ready=True)


def test_a_record_deleted_by_hand_comes_back(cluster):
    first, second = cluster.start_nodes(2)
    subnet = first.subnet
    cluster.delete("/poplin/nodes/n1")
    wait_for(lambda: "/poplin/nodes/n1" in cluster.get(), "the record")
    assert first.subnet == subnet
    second.wait_routes({subnet: first.address})


def test_the_subnet_is_claimed_again_when_the_lease_was_lost(cluster):
    first, second = cluster.start_nodes(2)
    subnet = first.subnet
    lease = int(re.search(r'"lease":\s*(\d+)',
                          cluster.etcdctl("get", "/poplin/nodes/n1", "-w", "json"))[1])
    cluster.etcdctl("lease", "revoke", f"{lease:x}")
    wait_for(lambda: "/poplin/nodes/n1" in cluster.get(), "the record")
    assert first.subnet == subnet
    second.wait_routes({subnet: first.address})


def test_the_pythons_record_of_this_node_is_taken_over(cluster):
    cluster.put("/poplin/nodes/n1", "10.2.77.0/24")
    first, = cluster.start_nodes(1)
    assert first.subnet == "10.2.77.0/24"
    assert records(cluster)["/poplin/nodes/n1"]["address"] == first.address


def test_subnets_of_python_records_are_not_given_out(make_cluster):
    cluster = make_cluster(LEASE_TTL=5, IP_SUBNET="10.2.0.0/28", IP_SUBNET_MARGIN=2)
    for i, name in enumerate(("p0", "p1", "p2")):
        cluster.put(f"/poplin/nodes/{name}", f"10.2.0.{4 * i}/30")
    first, = cluster.start_nodes(1)
    assert first.subnet == "10.2.0.12/30"
