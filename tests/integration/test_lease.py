# SPDX-License-Identifier: GPL-2.0-or-later
"""The lease and the fence: what is promised to the plugin is true, whatever happens to the claim."""
import json
import re
import signal
import time
from pathlib import Path

import pytest

from cluster import CniError, wait_for


def lease_of(cluster, key="/poplin/nodes/n1"):
    found = re.search(r'"lease":\s*(\d+)', cluster.etcdctl("get", key, "-w", "json"))
    return int(found[1]) if found else 0


def subnet_key(subnet):
    return "/poplin/nodes-subnets/" + subnet.replace("/", "-")


def state(node):
    return json.loads((Path(node.settings["STATE_DIR"]) / "node.json").read_text())


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ask_status(node):
    """STATUS is new in version 1.1.0 of the specification."""
    node.cni("STATUS", config={**node.plugin_config(), "cniVersion": "1.1.0"})


def refused(node, name):
    """Tries to attach a pod; the error of the fence."""
    pod = node.pod(name, attach=False)
    with pytest.raises(CniError) as error:
        pod.attach()
    assert error.value.code == 11
    with pytest.raises(CniError) as status:
        ask_status(node)
    assert status.value.code == 50
    return error.value.error["msg"] + " " + error.value.error.get("details", "")


def another_machine(node, digits):
    """Gives the node a machine-id of its own."""
    machine_id = node.dir / "machine-id"
    machine_id.write_text(digits * 32 + "\n")
    node.wrap = ["unshare", "-m", "sh", "-c",
                 f'mount --bind {machine_id} /etc/machine-id && exec "$@"', "sh"]
    return node


# -- the lease ------------------------------------------------------------------------

def test_a_restart_is_no_event_at_all(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    first, second = cluster.start_nodes(2)
    watch = cluster.watch_deletes()
    for end in (first.stop, first.kill):
        end()
        first.start(ready=True)
        wait_for(lambda: first.metric('poplin_lease_claims_total{result="ok"}') == 1, "the claim")
    assert watch.events() == []
    assert second.metric('poplin_route_operations_total{op="delete",result="ok"}') == 0
    watch.close()


def test_a_revoked_lease_is_noticed_at_once(make_cluster):
    # A minute's lease: no renewal comes to our help.
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    subnet, lease = first.subnet, lease_of(cluster)
    cluster.etcdctl("lease", "revoke", f"{lease:x}")
    wait_for(lambda: lease_of(cluster) not in (0, lease), "a new lease", 5)
    assert lease_of(cluster, subnet_key(subnet)) == lease_of(cluster)
    assert first.subnet == subnet
    second.wait_routes({subnet: first.address})
    first.pod("after")


def test_a_record_put_over_ours_is_repaired(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    subnet = first.subnet
    good = cluster.get()["/poplin/nodes/n1"]
    lease = lease_of(cluster)
    # Garbage; a bare subnet, as by hand; and what looks right, but hangs on no lease.
    for value in ("garbage", "10.2.200.0/24", good):
        cluster.put("/poplin/nodes/n1", value)
        wait_for(lambda: cluster.get()["/poplin/nodes/n1"] == good and
                 lease_of(cluster) not in (0, lease), f"the record instead of {value}", 10)
        lease = lease_of(cluster)
        assert lease_of(cluster, subnet_key(subnet)) == lease
        assert first.subnet == subnet
    second.wait_routes({subnet: first.address})
    assert first.ready()


def test_a_record_that_names_another_subnet_does_not_move_the_node(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    subnet, old, other = first.subnet, first.pod("old"), second.pod("other")
    good = json.loads(cluster.get()["/poplin/nodes/n1"])
    cluster.put("/poplin/nodes/n1", json.dumps({**good, "subnets": ["10.2.222.0/24"]}))
    wait_for(lambda: json.loads(cluster.get()["/poplin/nodes/n1"]) == good, "our record", 10)
    wait_for(first.ready, "it to be ready")
    assert first.subnet == subnet
    assert "/poplin/nodes-subnets/10.2.222.0-24" not in cluster.get()
    second.wait_routes({subnet: first.address})
    assert old.ping(other.address)
    assert first.metric("poplin_lease_conflicts_total") == 0


def test_a_record_of_another_machine_over_ours_is_reported_and_not_fought(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    old = first.pod("old")
    good = cluster.get()["/poplin/nodes/n1"]
    theirs = json.dumps({**json.loads(good), "address": f"{cluster.net}.0.77", "machine": "theirs"})
    watch = cluster.watch_deletes()
    cluster.put("/poplin/nodes/n1", theirs)
    first.wait_log(rf"held by another machine, at {cluster.net}\.0\.77")
    wait_for(lambda: not first.ready(), "it to be no longer ready")
    assert "no lease of" in refused(first, "late")
    assert first.process.alive()
    assert [e for e in watch.events() if e[0] == "PUT"] == [("PUT", "/poplin/nodes/n1")]
    assert cluster.get()["/poplin/nodes/n1"] == theirs
    cluster.delete("/poplin/nodes/n1")
    first.wait_ready(30)
    assert cluster.get()["/poplin/nodes/n1"] == good
    first.pods[-1].attach()
    assert old.ping(first.pods[-1].address)
    watch.close()


def test_a_subnets_key_that_went_is_noticed_when_another_takes_it(make_cluster):
    # Two subnets; the watch of the records does not tell of the subnet's key.
    cluster = make_cluster(LEASE_TTL=120, IP_SUBNET="10.2.0.0/28", IP_SUBNET_MARGIN=1)
    first, = cluster.start_nodes(1)
    subnet = first.subnet
    cluster.delete(subnet_key(subnet))
    # As if another had claimed it by the rules.
    cluster.put(subnet_key(subnet), "thief")
    cluster.put("/poplin/nodes/thief", json.dumps(
        {"version": 1, "subnets": [subnet], "address": f"{cluster.net}.0.50",
         "backend": {"type": "host-gw"}, "machine": "thief"}))
    wait_for(lambda: first.subnet not in (None, subnet), "another subnet", 10)
    assert cluster.get()[subnet_key(subnet)] == "thief"
    assert first.metric("poplin_lease_conflicts_total") == 1


def test_a_subnets_key_that_went_comes_back(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    cluster.delete(subnet_key(first.subnet))
    wait_for(lambda: subnet_key(first.subnet) in cluster.get(), "the subnet's key", 20)
    assert lease_of(cluster, subnet_key(first.subnet)) == lease_of(cluster)


def test_a_claim_that_fails_does_not_let_a_healthy_lease_run_out(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, second = cluster.start_nodes(2)
    subnet, watch = first.subnet, cluster.watch_deletes()
    good = cluster.get()["/poplin/nodes-network"]
    cluster.put("/poplin/nodes-network", "{")
    first.write_config(LEASE_TTL=6)
    first.hangup()
    first.wait_log("settings of the cluster in key /poplin/nodes-network")
    renewals = 'poplin_lease_renewals_total{result="ok"}'
    before = first.metric(renewals)
    # More than twice the TTL.
    wait_for(lambda: first.metric(renewals) >= before + 12, "renewals", 40)
    assert watch.deletes() == []
    assert state(first)["leaseDeadlineBootNs"] > boot_ns()
    first.pod("meanwhile")
    assert second.routes() == {subnet: first.address}
    cluster.put("/poplin/nodes-network", good)
    wait_for(lambda: first.status()["lease"]["ttl_s"] == 6, "the other TTL", 10)
    watch.close()


# -- the fence --------------------------------------------------------------------------

def test_the_deadline_never_passes_the_end_of_the_lease(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    for _ in range(5):
        before = boot_ns()
        first.metric("poplin_build_info")
        seen = state(first)
        assert seen["leaseDeadlineBootNs"] < boot_ns() + 5e9
        wait_for(lambda s=seen: state(first) != s, "a renewal", 5)
        # Renewed at a third of the TTL, give or take a fifth.
        assert boot_ns() - before < 2.6e9


def test_the_fence_closes_and_opens_by_itself(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, second = cluster.start_nodes(2)
    mine, other = first.pod("mine"), second.pod("other")
    cluster.cut_etcd()
    wait_for(lambda: not first.status()["lease"]["held"], "the lease to run out")
    assert "has run out" in refused(first, "late")
    # What is there goes on.
    assert mine.ping(other.address)
    cluster.cut_etcd(down=False)

    def attached():
        try:
            first.pods[-1].attach()
            return True
        except CniError as error:
            assert error.code == 11
            return False
    wait_for(attached, "ADD to work again", 30)
    ask_status(first)


def test_a_dead_agent_closes_the_fence_too(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    first.kill()
    first.pod("in-time")
    wait_for(lambda: state(first)["leaseDeadlineBootNs"] < boot_ns(), "the deadline", 10)
    assert "has run out" in refused(first, "late")


def test_lease_fence_off(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    cluster.cut_etcd()
    wait_for(lambda: not first.status()["lease"]["held"], "the lease to run out")
    refused(first, "p")
    first.write_config(LEASE_FENCE="off")
    assert re.search("setting changed.*LEASE_FENCE", first.hangup())
    wait_for(lambda: not state(first)["fence"], "the setting in node.json", 30)
    first.pods[-1].attach()
    ask_status(first)
    first.write_config(LEASE_FENCE="on")
    first.hangup()
    wait_for(lambda: state(first)["fence"], "the setting in node.json", 30)
    refused(first, "late")


def test_a_torn_or_removed_node_json_closes_the_fence_until_the_next_renewal(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    path = Path(first.settings["STATE_DIR"]) / "node.json"
    good = path.read_text()
    first.process.send(signal.SIGSTOP)
    path.write_text(good[: len(good) // 2])
    refused(first, "torn")
    path.unlink()
    refused(first, "gone")
    path.write_text(good)
    # Of another boot, whose clock ran ahead of ours.
    old = {**json.loads(good), "bootId": "0" * 36, "leaseDeadlineBootNs": boot_ns() + 10**15}
    path.write_text(json.dumps(old))
    assert "earlier boot" in refused(first, "booted")
    first.process.send(signal.SIGCONT)
    wait_for(lambda: path.read_text() != json.dumps(old), "the next renewal", 10)
    for pod in first.pods:
        pod.attach()


def test_a_shorter_ttl_shortens_the_promise_first(make_cluster):
    cluster = make_cluster(LEASE_TTL=600)
    first, = cluster.start_nodes(1)
    assert state(first)["leaseDeadlineBootNs"] > boot_ns() + 500e9
    first.write_config(LEASE_TTL=5)
    first.hangup()
    wait_for(lambda: state(first)["leaseDeadlineBootNs"] < boot_ns() + 5e9, "the deadline")
    # The same over a restart: the agent that died had promised ten minutes.
    first.write_config(LEASE_TTL=600)
    first.hangup()
    wait_for(lambda: state(first)["leaseDeadlineBootNs"] > boot_ns() + 500e9, "the deadline")
    first.kill()
    first.start(LEASE_TTL=5)
    wait_for(lambda: state(first)["leaseDeadlineBootNs"] < boot_ns() + 5e9, "the deadline")
    first.wait_ready()


# -- what all nodes share ----------------------------------------------------------------

def test_what_a_restored_store_gives_to_an_earlier_holder_is_not_used(make_cluster):
    """All four subnets are held, so that the one that is given back goes to the node that asks next."""
    cluster = make_cluster(members=3, LEASE_TTL=20, IP_SUBNET="10.2.0.0/27", IP_SUBNET_MARGIN=2)
    first, *others = cluster.start_nodes(4)
    subnet = first.subnet
    cluster.etcdctl("snapshot", "save", cluster.dir / "snapshot")
    first.stop()
    first.poplind("--release")
    heir = cluster.node().start(ready=True)
    assert heir.subnet == subnet
    heir.pod("early")
    for node in others:
        wait_for(lambda n=node: n.routes().get(subnet) == heir.address, "the route to the heir")
    stopped = boot_ns()
    cluster.restore_etcd(cluster.dir / "snapshot")
    # No promise outlives the store that it was made by for longer than a lease.
    assert state(heir)["leaseDeadlineBootNs"] < stopped + 20e9
    wait_for(lambda: state(heir)["leaseDeadlineBootNs"] == 0, "it to be noticed", 8)
    refused(heir, "mid")
    for node in others:
        wait_for(lambda n=node: n.routes().get(subnet) == first.address, "what etcd says now", 8)
    # Nobody renews that record.
    wait_for(lambda: state(heir)["leaseDeadlineBootNs"] > boot_ns(), "the claim", 60)
    assert state(heir)["subnet"] == subnet
    heir.pod("late")
    for node in others:
        wait_for(lambda n=node: n.routes().get(subnet) == heir.address, "the route to the heir")


def test_the_first_node_writes_the_settings_and_who_disagrees_does_not_start(cluster):
    first, = cluster.start_nodes(1)
    assert json.loads(cluster.get()["/poplin/nodes-network"]) == \
        {"version": 1, "subnet": "10.2.0.0/16", "margin": 8}
    other = cluster.node()
    for changes in ({"IP_SUBNET": "10.3.0.0/16"}, {"IP_SUBNET": "10.2.0.0/16",
                                                   "IP_SUBNET_MARGIN": 6}):
        other.start(**changes)
        assert other.process.popen.wait(10) == 2
        margin = changes.get("IP_SUBNET_MARGIN", 8)
        assert re.search(rf"IP_SUBNET={changes['IP_SUBNET']} and IP_SUBNET_MARGIN={margin}, the "
                         r"cluster 10\.2\.0\.0/16 and 8 \(key /poplin/nodes-network\)", other.log())
        other.process = None
    assert "/poplin/nodes/n2" not in cluster.get()
    assert other.routes() == {} and not other.ip_json("link", "show", "poplin0")
    other.start(ready=True, IP_SUBNET_MARGIN=8)
    # Settings that nobody can read are not overwritten.
    cluster.put("/poplin/nodes-network", "{")
    third = cluster.node().start()
    third.wait_log("settings of the cluster in key /poplin/nodes-network")
    assert cluster.get()["/poplin/nodes-network"] == "{"
    cluster.delete("/poplin/nodes-network")
    third.wait_ready(60)
    assert json.loads(cluster.get()["/poplin/nodes-network"])["margin"] == 8
    assert first.ready()


def test_two_machines_that_start_at_once_under_one_name(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    peer, = cluster.start_nodes(1)
    twins = [another_machine(cluster.node(f"twin{i}", NODE_NAME="same"), str(i)) for i in (1, 2)]
    for twin in twins:
        twin.start()
    wait_for(lambda: sum(not t.process.alive() for t in twins) == 1, "one to give up", 30)
    loser, winner = sorted(twins, key=lambda t: t.process.alive())
    assert loser.process.popen.returncode == 1
    loser.process = None
    assert re.search(rf"'same' is held by another machine, at {winner.address}", loser.log())
    # Without a trace.
    assert loser.routes() == {} and not loser.ip_json("link", "show", "poplin0")
    assert not loser.ip_json("nexthop", "show")
    winner.wait_ready()
    winner.wait_routes({peer.subnet: peer.address})


def test_a_cloned_machine_takes_the_name_over_and_nobody_fights(make_cluster):
    """One NODE_NAME and one machine-id: only the lease tells two machines apart."""
    cluster = make_cluster(LEASE_TTL=30)
    first = cluster.node("first", NODE_NAME="same").start(ready=True)
    watch = cluster.watch_deletes()
    clone = cluster.node("clone", NODE_NAME="same").start(ready=True)
    first.wait_log("another machine took the name of this node.*machine-id")
    wait_for(lambda: not first.ready(), "the first one to give way")
    assert "no lease of" in refused(first, "late")
    assert first.metric("poplin_lease_conflicts_total") == 1
    # It tries again, and leaves the keys alone: one PUT of each was the clone's.
    first.wait_log("tries=3")
    puts = [e for e in watch.events() if e[0] == "PUT"]
    assert sorted(k for _, k in puts if "network" not in k) == \
        ["/poplin/nodes-subnets/" + clone.subnet.replace("/", "-"), "/poplin/nodes/same"]
    assert clone.ready() and clone.metric('poplin_lease_claims_total{result="ok"}') == 1
    assert len(re.findall("another machine took the name", first.log())) == 1
    clone.stop()
    clone.poplind("--release")
    first.wait_ready(40)
    watch.close()
