#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job of poplin, shown on nodes that are network namespaces of this machine."""
import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
# Built in place by hand, or beside it: automake does not take both.
BUILD = TOP if (TOP / "config.status").exists() else TOP / "build/demo"
os.environ["POPLIN_BUILD"] = str(BUILD)
sys.path.insert(0, str(TOP / "tests"))

from cluster import Cluster, Failed, wait_for  # noqa: E402

LEASE_TTL = 6
PINGS_MAX = 2000
# A stamp, since a configure that was interrupted leaves a Makefile too.
BUILD_SCRIPT = """set -e
if [ ! -f config.status ] && [ ! -f "$1/configured" ]; then
	./autogen.sh
	(cd "$1" && "$OLDPWD/configure" && touch configured)
fi
make -C "$1" -j"$(nproc)"
"""


class Interrupted(BaseException):
    """A signal ends the demo."""

    def __init__(self, number):
        super().__init__()
        self.status = 128 + number


def interrupt(number, _):
    raise Interrupted(number)


def tell(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def show(text):
    for line in text.rstrip().splitlines() or [""]:
        print(f"    {line}".rstrip(), flush=True)


def build():
    log = BUILD / "demo.log"
    print(f"building (the log is in {log.relative_to(TOP)})", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        done = subprocess.run(["sh", "-c", BUILD_SCRIPT, "build", BUILD], cwd=TOP, check=False,
                              stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if done.returncode:
        sys.exit("".join(log.read_text(errors="replace").splitlines(True)[-30:]))


def join(cluster, count):
    nodes = [cluster.node().start() for _ in range(count)]
    for node in nodes:
        node.wait_ready()
    return nodes


def reach_all(pods):
    """Every pod pings every other, and it is told."""
    start = time.monotonic()
    pairs = list(itertools.permutations(pods, 2))
    what = f"every pod reaches every pod: {len(pairs)} pings"
    if len(pairs) > PINGS_MAX:
        what = f"pods reach each other: {PINGS_MAX} of {len(pairs)} pairs, drawn by lot,"
        pairs = random.sample(pairs, PINGS_MAX)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: pair[0].ping(pair[1].address), pairs))
    if not all(answers):
        lost = [f"{a.address} -> {b.address}" for (a, b), ok in zip(pairs, answers) if not ok]
        raise Failed(f"no answer: {', '.join(lost)}")
    show(f"{what} in {time.monotonic() - start:.1f} s")


def demo(cluster, count):
    tell("A datastore: etcd, on a switch that all nodes are plugged into.")
    cluster.start_etcd()
    show(f"etcd at http://{cluster.etcd_address}:2379")

    tell(f"{count} nodes start at the same moment. Each claims a pod subnet in etcd under a lease.")
    nodes = join(cluster, count)
    for key, value in cluster.get("/poplin/nodes-subnets/").items():
        show(f"{key}  ->  {value}")

    tell("Each node has a bridge for its pods, and a route to each other node's subnet.")
    for node in nodes:
        wait_for(lambda n=node: len(n.routes()) == count - 1, "the routes")
    show(nodes[0].poplinctl("status"))
    show("")
    show(nodes[0].poplinctl("routes"))
    show("")
    show(nodes[0].ip("route", "show"))

    tell("Two pods per node, attached by the plugin that the agent installed.")
    pods = [node.pod(f"{node.name}-pod{i}") for node in nodes for i in (1, 2)]
    show(nodes[0].poplinctl("pods"))
    show("")
    reach_all(pods)

    dead, rest = nodes[-1], nodes[:-1]
    lost = dead.subnet
    tell(f"Node {dead.name} dies (its agent is killed). Its lease of {LEASE_TTL} s runs out, and its "
         f"subnet {lost} and the routes to it go by themselves.")
    start = time.monotonic()
    dead.kill()
    for node in rest:
        wait_for(lambda n=node: lost not in n.routes(), "the routes to go", 60)
    show(f"gone from all others after {time.monotonic() - start:.1f} s; left in etcd:")
    for key, value in cluster.get("/poplin/nodes-subnets/").items():
        show(f"{key}  ->  {value}")

    tell("A new node joins. It gets a subnet that was not used before; the lost one rests longest.")
    start = time.monotonic()
    new, = join(cluster, 1)
    for node in rest:
        wait_for(lambda n=node: new.subnet in n.routes(), "the route to the new node")
    show(f"{new.name} is ready with {new.subnet} after {time.monotonic() - start:.2f} s, and every "
         "other node has a route to it")
    alive = [p for p in pods if p.node is not dead] + [new.pod(f"{new.name}-pod1")]
    reach_all(alive)
    show("")
    show(nodes[0].poplinctl("peers"))

    tell("What Prometheus would see of the first node (a few of its metrics):")
    for name in ("poplin_peers", 'poplin_routes_installed{family="ipv4"}',
                 'poplin_route_operations_total{op="add",result="ok"}',
                 'poplin_route_operations_total{op="delete",result="ok"}',
                 "poplin_event_to_kernel_seconds_count", "poplin_event_to_kernel_seconds_sum",
                 "poplin_ipam_addresses"):
        show(f"{name} {nodes[0].metric(name):g}")
    return nodes


def keep(cluster, node):
    pod = node.pods[0]
    tell("It all goes on running. Look around in another terminal:")
    show(f"ip netns exec {node.namespace} {BUILD}/poplinctl status    # or peers, routes, pods\n"
         f"ip netns exec {node.namespace} curl -s http://127.0.0.1:9476/metrics\n"
         f"ip -n {node.namespace} route\n"
         f"ip netns exec {pod.namespace} ping {node.pods[1].address}\n"
         f"ip netns exec {cluster.store} env ETCDCTL_API=3 etcdctl get --prefix /poplin\n"
         f"less {node.log_path}")
    tell("Ctrl-C ends it and cleans up.")
    try:
        signal.pause()
    except Interrupted as end:
        end.status = 0  # as it should end
        raise


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo/run", description=__doc__)
    parser.add_argument("--nodes", type=int, default=4, metavar="N", help="nodes (2 to 100) [4]")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    options = parser.parse_args()
    if not 2 <= options.nodes <= 100:
        parser.error("--nodes must be 2 to 100")
    # Whatever ends us, the namespaces go: close() runs when the with statement is left.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    status = 0
    try:
        build()
        with Cluster({"LEASE_TTL": LEASE_TTL}, name="demo") as cluster:
            try:
                nodes = demo(cluster, options.nodes)
                if options.keep:
                    keep(cluster, nodes[0])
                tell("That was the main job. Cleaning up.")
            except Interrupted:
                tell("Cleaning up.")
                raise
            except Failed as error:
                print(f"\nThe demo failed: {error}", file=sys.stderr)
                status = 1
    except Interrupted as end:
        status = end.status
    return status


if __name__ == "__main__":
    sys.exit(main())
