# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to the agents and to etcd, pods of two nodes lose no packet of each other's.

A ping every millisecond and a TCP stream go on all the time, and each packet is counted.
"""
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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


def pings(namespace, address, *options):
    """(sent, received) of a ping that ends by itself."""
    out = run("ip", "netns", "exec", namespace, "ping", "-n", "-q", *options, "-W", "2", address,
              check=False, timeout=120)
    return tuple(int(n) for n in re.search(r"(\d+) packets transmitted, (\d+) rec", out).groups())


@pytest.fixture(name="moving")
def moving_fixture(make_cluster):
    """A node with a pod, and a peer without an agent that is reached by either of two gateways."""
    cluster = make_cluster(RESYNC_INTERVAL=3600)
    node = cluster.node().start(ready=True)
    peer = f"{cluster.prefix}-peer"
    gateways = [f"{cluster.net}.0.{70 + i}" for i in range(2)]
    cluster.join(peer, gateways[0])
    try:
        run("ip", "-n", peer, "address", "add", f"{gateways[1]}/16", "dev", "eth0")
        run("ip", "-n", peer, "address", "add", "10.2.170.1/23", "dev", "lo")
        run("ip", "-n", peer, "address", "add", "10.2.171.1/32", "dev", "lo")
        run("ip", "-n", peer, "route", "add", node.subnet, "via", node.address)
        yield cluster, node, gateways
    finally:
        run("ip", "netns", "del", peer, check=False)


MOVER = """
import base64, http.client, json, select, sys
etcd, moves = http.client.HTTPConnection("127.0.0.1", 2379), 0
encode = lambda text: base64.b64encode(text.encode()).decode()
bodies = [json.dumps({"key": encode("/poplin/nodes/" + name), "value": encode(record)})
          for name, record in json.loads(sys.argv[1])]
while not select.select([sys.stdin], [], [], 0.001)[0]:
    for body in bodies:
        etcd.request("POST", "/v3/kv/put", body)
        assert etcd.getresponse().read()
        moves += 1
print(moves)
"""


def test_a_peer_that_moves_to_another_gateway_loses_no_packet(moving):
    """Its route is replaced in one step, and the nexthop that it was on is deleted after that, with
    which the kernel would drop it. It is two peers: the worker that moves the last of them must not
    meet one that deletes the nexthop already. Pings go on that wait only for their answers, which
    hits the moment in which there would be no route; one of them comes each millisecond."""
    cluster, node, gateways = moving
    pods = [node.pod(name) for name in "abc"]
    subnets = {"moves0": "10.2.170.0/24", "moves1": "10.2.171.0/24"}
    records = [(name, json.dumps({"version": 1, "subnets": [subnet], "address": gateway,
                                  "backend": {"type": "host-gw"}, "machine": "m"}))
               for gateway in gateways for name, subnet in subnets.items()]
    for name, record in records:  # both gateways are in the neighbour table
        cluster.put(f"/poplin/nodes/{name}", record)
        wait_for(lambda r=json.loads(record): node.routes().get(r["subnets"][0]) == r["address"],
                 "the route")
        assert all(pod.ping("10.2.170.1") for pod in pods)
    replaced = 'poplin_route_operations_total{op="replace",result="ok"}'
    before = node.metric(replaced)
    mover = subprocess.Popen(["ip", "netns", "exec", cluster.store, "/usr/bin/python3", "-c", MOVER,
                              json.dumps(records)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with ThreadPoolExecutor() as pool:
            ways = [["10.2.170.1", "-i", "0.001", "-c", "5000"],
                    ["10.2.170.1", "-f", "-c", "100000"], ["10.2.171.1", "-f", "-c", "100000"]]
            going = [pool.submit(pings, pod.namespace, *way) for pod, way in zip(pods, ways)]
            done = [ping.result() for ping in going]
        moves = int(mover.communicate("end\n", timeout=30)[0])
    finally:
        mover.kill()
        mover.wait()
    node.wait_routes(dict.fromkeys(subnets.values(), gateways[1]))
    for sent, received in done:
        assert sent == received, (done, moves)
    assert moves >= 200 and node.metric(replaced) - before >= 100
