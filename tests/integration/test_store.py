# SPDX-License-Identifier: GPL-2.0-or-later
"""etcd comes and goes. Nothing of the data path may notice."""
import json
import re
import shutil
import signal

import pytest

from cluster import CniError, run, wait_for


def record(subnet, address):
    return json.dumps({"version": 1, "subnets": [subnet], "address": address,
                       "backend": {"type": "host-gw"}, "machine": "m"})


def test_etcd_restarts_and_everything_goes_on(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    first, second = cluster.start_nodes(2)
    subnets = first.subnet, second.subnet
    cluster.stop_etcd()
    first.wait_log("the store cannot be followed")
    assert not first.status()["store"]["connected"]
    assert first.routes() == {subnets[1]: second.address}
    cluster.start_etcd()
    wait_for(lambda: first.status()["store"]["connected"], "the watch", 30)
    cluster.put("/poplin/nodes/new", record("10.2.150.0/24", f"{cluster.net}.0.50"))
    for node in (first, second):
        wait_for(lambda n=node: n.routes().get("10.2.150.0/24"), "the new route")
    assert (first.subnet, second.subnet) == subnets
    assert first.metric('poplin_route_operations_total{op="delete",result="ok"}') == 0


def test_an_agent_that_starts_while_etcd_is_away_keeps_routes(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    first, second = cluster.start_nodes(2)
    expected = {second.subnet: second.address}
    config = first.plugin_config()
    path = first.dir / "run" / "snapshot"
    wait_for(lambda: path.exists() and "n2" in path.read_text(), "the snapshot")
    cluster.stop_etcd()
    first.kill()
    # Routes that were lost meanwhile are restored from the snapshot.
    first.ip("route", "del", *expected)
    first.start()
    first.wait_log("cannot (claim a subnet|renew the lease)")
    first.wait_routes(expected)
    first.wait_ready()
    assert "from a snapshot" in first.http("/readyz")[1]
    assert first.http("/healthz")[0] == 200
    assert first.plugin_config() == config
    first.pod("served")
    # But never beyond the lease's deadline.
    wait_for(lambda: not first.ready(), "the deadline", 50)
    late = first.pod("late", attach=False)
    with pytest.raises(CniError, match="run out"):
        late.attach()
    # A damaged one is ignored, and so is one of another node: routes stay as they are.
    first.kill()
    good = path.read_text()
    for bad in (good[:-20], good.replace("n2", "n9"), ""):
        path.write_text(bad)
        before = len(first.log())
        first.start()
        first.wait_log("the snapshot is not used", since=before)
        assert first.http("/readyz")[0] == 503
        assert first.routes() == expected
        first.kill()
    path.unlink()
    first.start()
    cluster.start_etcd()
    first.wait_ready(40)
    assert first.routes() == expected


def test_compaction_while_cut_off_leads_to_a_new_list(make_cluster):
    cluster = make_cluster(LEASE_TTL=120)
    first, second = cluster.start_nodes(2)
    cluster.put("/poplin/nodes/gone", record("10.2.160.0/24", f"{cluster.net}.0.50"))
    wait_for(lambda: "10.2.160.0/24" in first.routes(), "the route")
    cluster.cut_etcd()
    cluster.stop_etcd()
    cluster.start_etcd()
    cluster.delete("/poplin/nodes/gone")
    cluster.put("/poplin/nodes/new", record("10.2.161.0/24", f"{cluster.net}.0.51"))
    for i in range(5):
        cluster.put("/other", str(i))
    revision = json.loads(cluster.etcdctl("get", "/other", "-w", "json"))["header"]["revision"]
    cluster.etcdctl("compact", str(revision))
    cluster.cut_etcd(down=False)
    first.wait_routes({second.subnet: second.address, "10.2.161.0/24": f"{cluster.net}.0.51"}, 40)
    first.wait_log("listing the store again.*compacted")
    assert first.metric('poplin_watch_restarts_total{reason="stale"}') >= 1


def test_our_own_record_that_went_while_cut_off_comes_back(make_cluster):
    # The lease lives on, so no renewal tells; without its keys anybody may claim the subnet.
    cluster = make_cluster(LEASE_TTL=600)
    first, second = cluster.start_nodes(2)
    subnet = first.subnet
    cluster.cut_etcd()
    cluster.stop_etcd()
    cluster.start_etcd()
    cluster.delete("/poplin/nodes/n1")
    cluster.delete("/poplin/nodes-subnets/" + subnet.replace("/", "-"))
    cluster.put("/other", "x")
    revision = json.loads(cluster.etcdctl("get", "/other", "-w", "json"))["header"]["revision"]
    cluster.etcdctl("compact", str(revision))
    cluster.cut_etcd(down=False)
    wait_for(lambda: "/poplin/nodes/n1" in cluster.get(), "the record", 40)
    assert cluster.get("/poplin/nodes-subnets/")
    assert first.subnet == subnet
    second.wait_routes({subnet: first.address}, 40)


def test_an_empty_new_etcd_gets_the_same_claims_again(make_cluster):
    cluster = make_cluster(LEASE_TTL=10)
    first, second = cluster.start_nodes(2)
    subnets = first.subnet, second.subnet
    cluster.stop_etcd()
    cluster.start_etcd(wipe=True)
    wait_for(lambda: len(cluster.get("/poplin/nodes/")) == 2, "both records", 40)
    wait_for(lambda: (first.subnet, second.subnet) == subnets, "the same subnets", 20)
    first.wait_routes({subnets[1]: second.address}, 30)
    second.wait_routes({subnets[0]: first.address}, 30)


def test_a_restored_backup_is_followed_though_its_revisions_are_older(make_cluster):
    # The same cluster id, so nothing but the revision tells. A watch from a revision that is yet
    # to come stays silent until the store gets there.
    cluster = make_cluster(LEASE_TTL=10)
    first, second = cluster.start_nodes(2)
    subnets = first.subnet, second.subnet
    cluster.put("/poplin/nodes/kept", record("10.2.180.0/24", f"{cluster.net}.0.50"))
    cluster.put("/poplin/nodes/moved", record("10.2.181.0/24", f"{cluster.net}.0.51"))
    cluster.stop_etcd()
    backup = cluster.dir / "backup"
    shutil.copytree(cluster.dir / "etcd", backup)
    cluster.start_etcd()
    third, = cluster.start_nodes(1)
    third_subnet = third.subnet
    cluster.put("/poplin/nodes/moved", record("10.2.181.0/24", f"{cluster.net}.0.61"))
    cluster.put("/poplin/nodes/new", record("10.2.182.0/24", f"{cluster.net}.0.52"))
    for i in range(300):
        cluster.put("/other", str(i))
    first.wait_routes({subnets[1]: second.address, third_subnet: third.address,
                       "10.2.180.0/24": f"{cluster.net}.0.50",
                       "10.2.181.0/24": f"{cluster.net}.0.61",
                       "10.2.182.0/24": f"{cluster.net}.0.52"})
    cluster.stop_etcd()
    shutil.rmtree(cluster.dir / "etcd")
    backup.rename(cluster.dir / "etcd")
    cluster.start_etcd()
    first.wait_routes({subnets[1]: second.address, third_subnet: third.address,
                       "10.2.180.0/24": f"{cluster.net}.0.50",
                       "10.2.181.0/24": f"{cluster.net}.0.51"}, 60)
    # The third one joined after the backup, and has its claim again.
    wait_for(lambda: "/poplin/nodes/n3" in cluster.get(), "its record", 30)
    assert (first.subnet, second.subnet, third.subnet) == (*subnets, third_subnet)
    # The watch is a living one.
    cluster.put("/poplin/nodes/later", record("10.2.183.0/24", f"{cluster.net}.0.53"))
    for node in (first, second, third):
        wait_for(lambda n=node: "10.2.183.0/24" in n.routes(), "the next record", 30)


def test_a_node_that_slept_past_its_lease_gives_way(make_cluster):
    # Two subnets of /29. The sleeper's is claimed by another one meanwhile, and then there is none.
    cluster = make_cluster(LEASE_TTL=5, IP_SUBNET="10.2.0.0/28", IP_SUBNET_MARGIN=1)
    sleeper, other = cluster.start_nodes(2)
    subnet = sleeper.subnet
    pod = sleeper.pod("early")
    sleeper.process.send(signal.SIGSTOP)
    heir = cluster.node().start()
    heir.wait_ready(40)
    assert heir.subnet == subnet
    late = sleeper.pod("late", attach=False)
    with pytest.raises(CniError, match="lease") as error:
        late.attach()
    assert error.value.code == 11
    sleeper.process.send(signal.SIGCONT)
    sleeper.wait_log("another node holds the subnet that was ours")
    wait_for(lambda: not sleeper.ready(), "it to be no longer ready")
    assert json.loads(cluster.get()["/poplin/nodes/n3"])["subnets"] == [subnet]
    other.wait_routes({subnet: heir.address})
    # As soon as one is free it goes on with that.
    free = other.subnet
    other.stop()
    other.poplind("--release")
    sleeper.wait_ready(60)
    assert sleeper.subnet == free
    heir.wait_routes({free: sleeper.address})
    late.attach()
    heirs = heir.pod("pod")
    # The old pod lives on: by its old gateway it reaches the new one beside it.
    assert pod.ping(late.address)
    assert f"{subnet}, which this node holds no longer" in sleeper.http("/readyz")[1]
    assert sleeper.metric("poplin_pods_cut_off") == 1
    assert sleeper.metric("poplin_lease_conflicts_total") == 1
    assert subnet in sleeper.poplinctl("status")
    # A restarted agent knows it too.
    sleeper.stop()
    sleeper.start(ready=True)
    assert pod.ping(late.address)
    assert sleeper.metric("poplin_pods_cut_off") == 1
    # With the last one the old gateway goes, and the new owner's pods can be reached.
    pod.detach()
    sleeper.wait_routes({subnet: heir.address}, 30)
    assert late.ping(heirs.address)
    assert sleeper.http("/readyz")[1] == "ok\n"
    assert sleeper.metric("poplin_pods_cut_off") == 0
    gateway = sleeper.status()["bridge"]["address"]
    assert [a["local"] for link in sleeper.ip_json("address", "show", "dev", "poplin0")
            for a in link["addr_info"] if a["family"] == "inet"] == [gateway]
    assert heir.metric("poplin_lease_conflicts_total") == 0


def test_an_endpoint_that_is_dead_is_passed_over(make_cluster):
    # One whose packets vanish, one that refuses, and the one that lives.
    cluster = make_cluster(LEASE_TTL=30)
    hosts = f"{cluster.net}.0.99,{cluster.etcd_address}:1,{cluster.etcd_address}:2379"
    first, second = cluster.start_nodes(2, ETCD_HOST=hosts)
    for node in (first, second):
        assert node.status()["store"]["endpoint"].endswith(f"{cluster.etcd_address}:2379")
    first.wait_routes({second.subnet: second.address})
    cluster.put("/poplin/nodes/new", record("10.2.150.0/24", f"{cluster.net}.0.50"))
    for node in (first, second):
        wait_for(lambda n=node: n.routes().get("10.2.150.0/24"), "the new route")


def test_an_endpoint_that_vanishes_without_a_word_is_left(make_cluster):
    # No RST and no FIN: nothing but the silence of the connection tells.
    cluster = make_cluster(LEASE_TTL=60)
    hosts = [f"{cluster.net}.0.{i}" for i in (3, 4)]
    for host in hosts:
        run("ip", "-n", cluster.store, "address", "add", f"{host}/32", "dev", "eth0")
    cluster.stop_etcd()
    cluster.start_etcd(more_urls=[f"http://{host}:2379" for host in hosts])
    first, = cluster.start_nodes(1, ETCD_HOST=",".join(hosts))
    # Each thread has taken one of the two; the watch's connection is the one that a put comes by.
    before = received(first)
    cluster.put("/poplin/nodes/old", record("10.2.149.0/24", f"{cluster.net}.0.50"))
    wait_for(lambda: "10.2.149.0/24" in first.routes(), "the route")
    watched, = (host for host, count in received(first).items() if count > before[host])
    # For the node alone: etcd's gateway may reach etcd itself by any of its addresses.
    first.firewall.drop([watched[0]])
    cluster.put("/poplin/nodes/new", record("10.2.150.0/24", f"{cluster.net}.0.50"))
    wait_for(lambda: "10.2.150.0/24" in first.routes(), "the new route", 60)
    assert first.status()["lease"]["held"]


def received(node):
    """{(host, local port): bytes} of the connections to etcd."""
    text = run("ip", "netns", "exec", node.namespace, "ss", "-Htni", "dport", "=", ":2379")
    return {(host, port): int(count) for port, host, count in re.findall(
        r":(\d+)\s+([0-9.]+):2379[^\n]*\n[^\n]*bytes_received:(\d+)", text)}


def test_a_node_without_etcd_past_its_lease_gives_out_no_address(make_cluster):
    cluster = make_cluster(LEASE_TTL=5)
    first, = cluster.start_nodes(1)
    first.pod("before")
    cluster.stop_etcd()
    wait_for(lambda: not first.status()["lease"]["held"], "the lease to run out")
    late = first.pod("late", attach=False)
    with pytest.raises(CniError, match="lease") as error:
        late.attach()
    assert error.value.code == 11
    # Pods can still go.
    first.pods[0].detach()
    cluster.start_etcd()
    wait_for(lambda: first.status()["lease"]["held"], "the lease", 30)
    late.attach()
