# SPDX-License-Identifier: GPL-2.0-or-later
"""How a node finds its own interface and address."""
import pytest

from cluster import wait_for


def refuse(node):
    """It ends by itself, with a status that tells so."""
    process = node.start().process
    assert process.popen.wait(20) == 1
    process.ended = True


def test_the_default_route_may_go(cluster):
    """The other nodes are on the link: they are reached without it."""
    first, second = cluster.start_nodes(2)
    pods = [node.pod("one") for node in (first, second)]
    first.ip("route", "del", "default")
    first.ip("address", "add", "192.0.2.77/32", "dev", "lo")  # whatever moves it to look again
    first.ip("link", "set", "poplin0", "mtu", "1300")
    wait_for(lambda: first.ip_json("link", "show", "poplin0")[0]["mtu"] == 1500, "the repair")
    assert first.ready()
    assert first.status()["reasons"] == []
    assert first.routes() == {second.subnet: second.address}
    assert pods[0].ping(pods[1].address)


def test_an_address_inside_the_pod_network_is_refused(cluster):
    """Other nodes would refuse it as a next hop, and its network could be given to pods."""
    node = cluster.node(IP_SUBNET=f"{cluster.net}.0.0/16")
    refuse(node)
    assert f"{node.address} on eth0 lies in the pod network {cluster.net}.0.0/16" in node.log()
    assert cluster.get() == {}


@pytest.mark.parametrize("name", ["lo", "eth0"])
def test_a_bridge_name_that_is_taken_is_refused(cluster, name):
    node = cluster.node(BRIDGE_NAME=name)
    refuse(node)
    assert f"BRIDGE_NAME {name}: there is a link of this name that is no bridge" in node.log()
    assert cluster.get() == {}


@pytest.mark.parametrize("mtu, told", [(1500, False), (9000, True)])
def test_an_mtu_larger_than_the_links_is_told_once(cluster, mtu, told):
    node = cluster.node(MTU=mtu)
    node.start(ready=True)
    node.ip("link", "set", "poplin0", "mtu", "1300")
    wait_for(lambda: node.ip_json("link", "show", "poplin0")[0]["mtu"] == mtu, "the repair")
    assert node.log().count("MTU is larger than that of the interface") == told
