# SPDX-License-Identifier: GPL-2.0-or-later
"""How much ADD and DEL ask of the kernel, and that it does not grow with the pods that are there."""
import collections
import os
import tempfile

import pytest

from cnilib import Node
from tracer import UNSANITIZED, record, traced

pytestmark = UNSANITIZED


@pytest.fixture
def node():
    with Node() as made, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        os.symlink(memory, made.folder / "ipam")  # tmpfs, as the agent has it
        yield made


def requests(node, command, pod):
    """The sends to the kernel: how many messages each has, and its text."""
    code, out, trace = traced(node, ["-s", "64", "-e", "trace=sendto,sendmsg"], command, pod)
    assert code == 0, out
    return [(line.count("nlmsg_type="), line) for line in trace.splitlines() if "nlmsg_" in line]


def test_an_add_makes_its_link_at_once_and_configures_it_at_once(node):
    """Three sends: what the bridge is like, the link, and the batch inside of the pod (which strace
    does not decode there). Then the carrier is asked for, until it is there."""
    pod = node.pod()
    (one, bridge), (_, link), (many, _), *carrier = requests(node, "ADD", pod)
    assert one == 1 and "RTM_GETLINK" in bridge
    assert len(carrier) >= 2 and all(n == 1 and "RTM_GETLINK" in text for n, text in carrier)
    assert link.count("RTM_NEWLINK") == 3, link  # the pair, and two about the host's end
    assert many == 4  # lo and the interface up, address, route
    (name,) = node.links()
    for made in node.netns.ip("-json", "-details", "link", "show", "dev", name) + \
            pod.ip("-json", "-details", "link", "show", "dev", "eth0"):
        assert (made["num_tx_queues"], made["num_rx_queues"], made["mtu"]) == (1, 1, node.mtu)
    (one, asked), (_, removed) = requests(node, "DEL", pod)
    assert one == 1 and "RTM_GETLINK" in asked and "RTM_DELLINK" in removed
    node.assert_empty()


def calls(node, pod):
    """How often ADD and DEL call what."""
    node.add("before", pod), node.delete("before")  # what is made once
    counted = {}
    for command in "ADD", "DEL":
        names = [name for name, _ in record(node, command, pod)]
        # How often DEL looks before the kernel has told is not always the same.
        counted[command] = collections.Counter(n for n in names if n not in ("poll", "recvmsg"))
    return counted


def test_it_does_not_take_more_calls_with_60000_addresses_held(node):
    """Neither to find a free one nor to find one's own."""
    node.subnet, pod = "10.2.0.0/16", node.pod()
    node.netns.ip("address", "add", "10.2.0.1/16", "dev", node.bridge)
    node.write_state()
    few = calls(node, pod)
    for i in range(2, 60002):
        address, owner = f"10.2.{i >> 8}.{i & 255}", f"held{i}:eth0"
        os.symlink(owner, node.ipam / "addresses" / address)
        os.symlink(address, node.ipam / "attachments" / owner)
    many = calls(node, pod)
    for command in few:
        # One more where the search comes to the end of the part of the map that it reads at once.
        more = many[command] - few[command]
        assert sum(more.values()) <= 2 and not more["getdents64"], (command, more)
