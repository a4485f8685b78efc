# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to the agents and to etcd, pods of two nodes lose no packet of each other's.

A ping every millisecond and a TCP stream go on all the time, and each packet is counted.
"""
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from cluster import BUILD, run, wait_for

PINGS = 20000
RUN = 5000  # pings of one process

SERVER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
stream, count = listener.accept()[0].makefile("rb"), 0
while block := stream.read(1000):
    assert int(block[:20]) == count, (block[:20], count)
    count += 1
print(count)
"""
CLIENT = """
import select, socket, sys, time
stream, count = socket.create_connection((sys.argv[1], 7000)), 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    stream.sendall(b"%020d" % count + bytes(980))
    count += 1
stream.shutdown(socket.SHUT_WR)
print(count)
"""


class Traffic:
    """From one pod to the other, until stop()."""

    def __init__(self, here, there):
        self.here, self.there = here, there
        self.sent = self.received = 0
        self.over = threading.Event()
        self.server = self.python(there, SERVER, stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == "ready\n"
        self.client = self.python(here, CLIENT, there.address, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        self.pinger = threading.Thread(target=self.ping)
        self.pinger.start()

    @staticmethod
    def python(pod, program, *args, **pipes):
        return subprocess.Popen(["ip", "netns", "exec", pod.namespace, "/usr/bin/python3", "-c",
                                 program, *args], text=True, **pipes)

    def ping(self):
        while not self.over.is_set() or self.sent < PINGS:
            out = run("ip", "netns", "exec", self.here.namespace, "ping", "-n", "-q", "-i", "0.001",
                      "-c", RUN, "-W", "2", self.there.address, check=False, timeout=120)
            sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", out).groups()
            self.sent += int(sent)
            self.received += int(received)

    def retransmitted(self):
        lines = run("ip", "netns", "exec", self.here.namespace, "grep", "^Tcp:",
                    "/proc/net/snmp").splitlines()
        return int(dict(zip(lines[0].split(), lines[1].split()))["RetransSegs"])

    def stop(self):
        """Ends both when they are through; what was lost."""
        self.over.set()
        self.pinger.join()
        retransmitted = self.retransmitted()
        blocks = int(self.client.communicate("end\n", timeout=30)[0])
        assert int(self.server.communicate(timeout=30)[0]) == blocks > 1000
        return self.sent - self.received, retransmitted

    def kill(self):
        self.over.set()
        self.sent = PINGS
        for process in (self.server, self.client):
            process.kill()
            process.wait()


@pytest.fixture(name="traffic")
def traffic_fixture(make_cluster):
    """A full comparison with the kernel and with etcd every second, and peers that come and go."""
    cluster = make_cluster(RESYNC_INTERVAL=1, LEASE_TTL=30)
    first, second = (cluster.node() for _ in range(2))
    for node in (first, second):
        node.programs = node.dir / "programs"
        node.programs.mkdir()
        for program in ("poplind", "poplin"):
            shutil.copy2(BUILD / program, node.programs)
        node.start()
    for node in (first, second):
        node.wait_ready()
    first.wait_routes({second.subnet: second.address})
    second.wait_routes({first.subnet: first.address})
    here, there = first.pod("a"), second.pod("b")
    assert here.ping(there.address)
    traffic = Traffic(here, there)
    yield traffic, cluster, first, second
    traffic.kill()


def upgrade(node):
    """Another file in the place of the program, and a restart."""
    for program in ("poplind", "poplin"):
        new = node.programs / f"{program}.new"
        shutil.copy2(BUILD / program, new)
        with open(new, "ab") as file:
            file.write(b"newer")
        new.rename(node.programs / program)
    node.stop()
    node.start(ready=True)


def test_no_packet_is_lost(traffic):
    traffic, cluster, first, second = traffic
    for node in (first, second):
        node.stop()
        node.start(ready=True)
        node.process.end(signal.SIGKILL)
        node.start(ready=True)
        upgrade(node)
    cluster.stop_etcd()
    first.wait_log("the store cannot be followed|cannot renew", since=len(first.log()))
    first.kill()
    first.start()  # without a store
    time.sleep(1)  # it runs without one for a while
    cluster.start_etcd()
    for node in (first, second):
        node.wait_ready(60)
    before = first.metric("poplin_resyncs_total")
    for i in range(5):
        cluster.put_peers(i * 50, 50)
        cluster.etcdctl("del", "--prefix", "/poplin/nodes/node-")
    wait_for(lambda: first.metric("poplin_resyncs_total") >= before + 3, "full comparisons")
    wait_for(lambda: first.routes() == {second.subnet: second.address}, "the routes")
    lost, retransmitted = traffic.stop()
    assert traffic.sent >= PINGS
    assert (lost, retransmitted) == (0, 0)
