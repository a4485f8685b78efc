# SPDX-License-Identifier: GPL-2.0-or-later
"""Three members of etcd, and one fault at a time. No living node may lose a route or its record."""
import itertools
import json
import sys
import time
from pathlib import Path

import pytest

from cluster import Cluster, Failed, wait_for

sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))

from recorder import Log, Store  # noqa: E402

BOTH, INTO, OUT_OF = {}, {"outward": False}, {"inward": False}
DELETED = 'poplin_route_operations_total{op="delete",result="ok"}'
numbers = itertools.count(1)


@pytest.fixture(scope="module", name="shared")
def shared_fixture():
    """One cluster for all: a lease outlives every fault here."""
    with Cluster({"LEASE_TTL": 40}, members=3) as cluster:
        cluster.start_etcd()
        log = Log(cluster.dir / "etcd.jsonl")
        store = Store(log, cluster.members)
        cluster.start_nodes(3)
        yield cluster
        complaints = cluster.complaints()
        store.stop()
        log.close()
    assert not complaints, "\n".join(f"{k}:\n{v}" for k, v in complaints.items())


@pytest.fixture(name="trio")
def trio_fixture(shared, request):
    """The cluster at rest; afterwards all of it must be as before, and follow what is new."""
    request.node.clusters = [shared]
    cluster = shared
    nodes = list(cluster.nodes.values())
    leader = wait_for(lambda: next((m for m in cluster.members
                                    if m.metric("etcd_server_is_leader")), None), "a leader")
    cluster.leader = leader
    cluster.speaker = next(m for m in reversed(cluster.members) if m is not leader)
    tables = {node.name: node.routes() for node in nodes}
    yield cluster
    for member in cluster.members:
        member.heal()
    for node in nodes:
        node.firewall.clear()
    for member in cluster.members:
        member.wait()
    subnet, address = put_record(cluster)
    for node in nodes:
        wait_for(lambda n=node: n.routes().get(subnet) == address, f"{node.name} to follow", 40)
        wait_for(node.ready, f"{node.name} to be ready", 40)
        assert tables[node.name].items() <= node.routes().items()
        assert node.metric(DELETED) == 0
    log = cluster.dir / "etcd.jsonl"
    wait_for(lambda: subnet in log.read_text(), "the recorder to follow")
    assert '"op":"delete"' not in log.read_text()


def put_record(cluster):
    """Of a node that is made up. It stays."""
    i = next(numbers)
    subnet, address = f"10.2.{100 + i}.0/24", f"{cluster.net}.0.{100 + i}"
    record = json.dumps({"version": 1, "subnets": [subnet], "address": address,
                         "backend": {"type": "host-gw"}, "machine": "m"})
    def put():
        try:
            cluster.put(f"/poplin/nodes/made-up-{i}", record)
            return True
        except Failed:  # no leader at the moment
            return False
    wait_for(put, "etcd to take a record", 30)
    return subnet, address


def followed(cluster, subnet, timeout):
    for node in cluster.nodes.values():
        wait_for(lambda n=node: subnet in n.routes(), f"{node.name}'s route to {subnet}", timeout)


def test_a_killed_leader_costs_nothing(trio):
    trio.leader.stop()
    followed(trio, put_record(trio)[0], 20)


def test_a_killed_majority_costs_nothing_and_nobody_gives_up(trio):
    for member in trio.members[:2]:
        member.stop()
    for node in trio.nodes.values():
        wait_for(lambda n=node: not n.status()["store"]["connected"], "it to be noticed", 40)
        assert node.ready() or node.status()["lease"]["held"]


def test_a_leader_that_is_stopped_is_left(trio):
    """SIGSTOP: connections stand and say nothing."""
    trio.leader.pause()
    followed(trio, put_record(trio)[0], 40)


@pytest.mark.parametrize("way", [BOTH, INTO, OUT_OF], ids=["both", "into", "out of"])
def test_a_leader_that_nodes_cannot_reach_is_left(trio, way):
    trio.leader.cut_clients(**way)
    followed(trio, put_record(trio)[0], 40)


@pytest.mark.parametrize("way", [BOTH, INTO, OUT_OF], ids=["both", "into", "out of"])
def test_a_leader_without_the_other_members_is_left(trio, way):
    """It answers, but knows nothing new: who watches there must notice."""
    trio.leader.cut_members(**way)
    followed(trio, put_record(trio)[0], 40)


def test_members_that_answer_slowly_are_lived_with(trio):
    for member in trio.members:
        member.slow()
    followed(trio, put_record(trio)[0], 40)


def test_a_member_with_a_full_disk_is_left(trio):
    member = trio.leader
    member.fill_disk()
    start = time.monotonic()
    while member.alive() and time.monotonic() < start + 30:
        try:
            trio.put("/filler", "x" * 100_000)
        except Failed:  # while the next leader is elected
            pass
    assert not member.alive(), "it has found room yet"
    followed(trio, put_record(trio)[0], 40)


@pytest.mark.parametrize("way", [BOTH, INTO, OUT_OF], ids=["both", "into", "out of"])
def test_a_node_that_is_cut_off_catches_up(trio, way):
    node = trio.nodes["n1"]
    before = node.routes()
    node.cut_off(**way)
    subnet, _ = put_record(trio)
    wait_for(lambda: subnet in trio.nodes["n2"].routes(), "the others to follow")
    # What comes on a connection that stands is read, though nobody gets to know.
    assert before.items() <= node.routes().items()
    node.firewall.clear()
    followed(trio, subnet, 40)
