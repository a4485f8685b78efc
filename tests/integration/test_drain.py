# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving a subnet back: by poplinctl while the agent runs, by poplind while it does not."""
import json
import subprocess
from pathlib import Path

import pytest

from cluster import ENVIRONMENT, CniError, Process, run, wait_for


def ctl(node, *args):
    return subprocess.run([str(a) for a in node.argv("poplinctl", "--config", node.config, *args)],
                          check=False, text=True, capture_output=True, timeout=60,
                          env=ENVIRONMENT)


def wish(node):
    return Path(node.settings["STATE_DIR"]) / "drain"


def attach_refused(node, name, says):
    pod = node.pod(name, attach=False)
    with pytest.raises(CniError, match=says) as error:
        pod.attach()
    assert error.value.code == 11
    return pod


def test_a_node_is_drained_and_comes_back(make_cluster):
    # Two subnets, so that the heir gets ours. A minute's lease: nothing runs out by itself.
    cluster = make_cluster(LEASE_TTL=60, IP_SUBNET="10.2.0.0/28", IP_SUBNET_MARGIN=1)
    first, other = cluster.start_nodes(2)
    subnet = first.subnet
    other.wait_routes({subnet: first.address})
    events = other.metric("poplin_event_to_kernel_seconds_count")
    result = ctl(first, "release")
    assert (result.returncode, result.stderr) == (0, "")
    assert "drained" in result.stdout
    assert not [k for k in cluster.get("/poplin/nodes") if "n1" in k or "10.2.0" in k and
                cluster.get()[k] == "n1"]
    other.wait_routes({}, 5)
    # The second that a removal waits on purpose is not counted as slowness.
    wait_for(lambda: other.metric("poplin_event_to_kernel_seconds_count") >= events + 2,
             "route and nexthop to be counted")
    assert other.metric("poplin_event_to_kernel_seconds_sum") < 0.8
    late = attach_refused(first, "late", "drained.*resume")
    assert first.http("/readyz")[0] == 503 and first.http("/healthz")[0] == 200
    shown = first.poplinctl("status")
    assert "drained" in shown
    assert first.status()["subnet"] is None
    wait_for(lambda: not first.ip_json("link", "show", "poplin0"), "the bridge to go")
    # It stays so over a restart, and again is fine.
    first.stop()
    first.start()
    wait_for(lambda: first.status().get("drain", {}).get("state") == "drained", "it to be drained")
    assert ctl(first, "release").returncode == 0
    assert "/poplin/nodes/n1" not in cluster.get()
    # Whoever needs the subnet has it at once, and this node reaches it.
    heir = cluster.node().start(ready=True)
    assert heir.subnet == subnet
    first.wait_routes({subnet: heir.address, other.subnet: other.address})
    other.stop()
    other.poplind("--release")
    result = ctl(first, "resume")
    assert (result.returncode, result.stderr) == (0, "")
    first.wait_ready()
    assert first.subnet not in (None, subnet)
    late.attach()
    assert late.ping(heir.pod("p").address)
    assert not wish(first).exists()


def test_pods_keep_a_node_from_being_drained_unless_forced(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, other = cluster.start_nodes(2)
    subnet = first.subnet
    pod = first.pod("busy")
    result = ctl(first, "release")
    assert result.returncode == 1
    assert "refused: 1 addresses are held by pods of this node (see --force)" in result.stderr
    assert not wish(first).exists()
    assert first.ready() and first.subnet == subnet
    assert "/poplin/nodes/n1" in cluster.get()
    first.pod("second")
    assert ctl(first, "release", "--force").returncode == 0
    other.wait_routes({}, 5)
    attach_refused(first, "late", "drained")
    # Its pods live on among themselves, until they are gone.
    assert pod.ping(first.pods[1].address)
    assert first.metric("poplin_pods_cut_off") == 2
    first.stop()
    first.start()
    wait_for(lambda: first.status().get("drain", {}).get("state") == "drained", "it to be drained")
    assert pod.ping(first.pods[1].address)
    for each in first.pods[:2]:
        each.detach()
    wait_for(lambda: not first.ip_json("link", "show", "poplin0"), "the bridge to go")
    assert ctl(first, "resume").returncode == 0
    first.wait_ready()


def test_draining_without_etcd_is_done_when_it_is_back(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    first, = cluster.start_nodes(1)
    cluster.stop_etcd()
    wish(first).write_text("\n")
    first.wait_log("cannot give the subnet back", 40)
    attach_refused(first, "late", "drained")
    assert first.status()["drain"]["state"] == "waiting"
    cluster.start_etcd()
    wait_for(lambda: first.status()["drain"]["state"] == "drained", "it to be drained", 40)
    assert "/poplin/nodes/n1" not in cluster.get()


def test_no_agent_no_drain(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    pod = first.pod("busy")
    first.stop()
    result = ctl(first, "release")
    assert result.returncode == 1 and "poplind --release" in result.stderr
    assert not wish(first).exists()
    result = first.poplind("--release", check=False)
    assert result.returncode == 1 and "1 addresses are held by pods of this node" in result.stderr
    assert "/poplin/nodes/n1" in cluster.get()
    first.pod("still-served")
    first.poplind("--release", "--force")
    assert "/poplin/nodes/n1" not in cluster.get()
    attach_refused(first, "late", "no subnet")
    pod.detach()
    assert first.poplind("--force", check=False).returncode == 2


def test_cleanup_with_release_touches_nothing_while_pods_hold_addresses(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    pod, beside = first.pod("busy"), first.pod("beside")
    first.stop()
    result = first.poplind("--cleanup", "--release", check=False)
    assert result.returncode == 1 and "2 addresses are held by pods of this node" in result.stderr
    assert pod.ping(beside.address) and "/poplin/nodes/n1" in cluster.get()
    assert first.pod("still-served").ping(pod.address)
    first.poplind("--cleanup", "--release", "--force")
    assert "/poplin/nodes/n1" not in cluster.get()
    assert not first.ip_json("link", "show", "poplin0")


def test_release_in_a_folder_that_is_not_the_agents_hints_at_the_config(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    result = subprocess.run([str(a) for a in first.argv("poplinctl", "release")], check=False,
                            text=True, capture_output=True, timeout=60,
                            env={**ENVIRONMENT, "STATE_DIR": str(first.dir / "not-there")})
    assert result.returncode == 1
    assert "STATE_DIR" in result.stderr and "--config" in result.stderr
    assert "not-there/drain" in result.stderr


def test_a_subnet_that_is_held_again_is_told_as_that(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    subnet, pod = first.subnet, first.pod("alive")
    assert ctl(first, "release", "--force").returncode == 0
    first.wait_log("pods have addresses of a subnet that this node does not hold")
    assert ctl(first, "resume").returncode == 0
    first.wait_ready()
    assert first.subnet == subnet
    first.wait_log(f"a subnet that was lost is held again.*{subnet}")
    assert "is gone" not in first.log()
    assert pod.ping(first.pod("new").address)


def test_a_release_that_failed_opens_the_node_again_if_nothing_was_asked_of_etcd(make_cluster):
    cluster = make_cluster(LEASE_TTL=120)
    first, = cluster.start_nodes(1)
    subnet = first.subnet
    # Of what comes later only the snapshot tells which subnet was held.
    wait_for(lambda: subnet in first.poplinctl("peers"), "the watch to tell the node's own record")
    first.stop()
    cluster.stop_etcd()
    state = first.dir / "run/node.json"
    before = state.read_text()
    assert first.poplind("--release", check=False).returncode == 1
    assert state.read_text() == before
    first.pod("still-served")
    # Another machine has the name: whose the subnet is, this node cannot say.
    cluster.start_etcd()
    text = cluster.get()["/poplin/nodes/n1"]
    cluster.put("/poplin/nodes/n1", json.dumps({**json.loads(text), "machine": "another"}))
    result = first.poplind("--release", "--force", check=False)
    assert result.returncode == 1 and "held by another machine" in result.stderr
    assert "the node stays closed" in result.stderr and not state.exists()
    # The answer to the revocation gets lost: that it was carried out this node does not know.
    cluster.delete("/poplin/nodes/n1")
    first.start(ready=True).stop()
    assert json.loads(state.read_text())["subnet"] == subnet
    cluster.helpers.append(Process(
        ["ip", "netns", "exec", cluster.store, "python3", Path(__file__).with_name("lossy.py"),
         "2390", "2379", "header", "/v3/lease/revoke"], cluster.dir / "lossy.log"))
    wait_for(lambda: ":2390 " in run("ip", "netns", "exec", cluster.store, "ss", "-ltn"),
             "the proxy")
    first.settings["ETCD_HOST"] = f"{cluster.etcd_address}:2390"
    result = first.poplind("--release", "--force", check=False)
    assert result.returncode == 1 and "the node stays closed" in result.stderr
    assert "/poplin/nodes/n1" not in cluster.get()
    attach_refused(first, "late", "no subnet")


def test_a_wish_that_cannot_be_read_changes_nothing(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    assert ctl(first, "release").returncode == 0
    # Longer than any wish.
    wish(first).write_text("x" * 4096)
    first.wait_log("cannot read whether this node is to be drained")
    attach_refused(first, "late", "drained")
    first.stop()
    first.start()
    wait_for(lambda: first.status().get("drain", {}).get("state") == "drained", "it to be drained")
    assert "/poplin/nodes/n1" not in cluster.get()
    wish(first).unlink()
    first.wait_ready()
