# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus, a probe, and a person at the node get to see."""
import json
import re
import subprocess

import pytest

from cluster import Failed, wait_for

SAMPLE = re.compile(r'^[a-z_:][a-z0-9_:]*(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? '
                    r'(\+Inf|-?[0-9.]+(e[+-]?[0-9]+)?)$')


def test_metrics_are_prometheus_text(cluster):
    first, second = cluster.start_nodes(2)
    first.wait_routes({second.subnet: second.address})
    code, body = first.http("/metrics")
    assert code == 200
    types = {}
    for line in body.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types
            types[name] = kind
        elif not line.startswith("#"):
            assert SAMPLE.match(line), line
            name = re.sub(r"_(bucket|sum|count)$", "", line.split("{")[0].split(" ")[0])
            assert name in types or line.split("{")[0].split(" ")[0] in types, line
    for name in ("build_info", "lease_ttl_seconds", "peers", "routes_desired", "routes_installed",
                 "workqueue_depth", "workqueue_retries_total", "etcd_requests_total",
                 "etcd_request_duration_seconds", "event_to_kernel_seconds"):
        assert f"poplin_{name}" in types, name
    assert first.metric('poplin_routes_installed{family="ipv4"}') == 1
    assert first.metric("poplin_peers") == 1
    assert first.metric("poplin_event_to_kernel_seconds_count") >= 1
    assert first.metric('poplin_etcd_requests_total{op="txn",result="ok"}') >= 1


def test_histograms_add_up(cluster):
    first, second = cluster.start_nodes(2)
    first.wait_routes({second.subnet: second.address})
    series = {}
    for line in first.http("/metrics")[1].splitlines():
        found = re.match(r'(\w+)_bucket\{(.*?),?le="(.*)"\} (\d+)$', line)
        if found:
            name, labels, bound, count = found.groups()
            series.setdefault((name, labels), []).append((float(bound), int(count)))
    assert {name for name, _ in series} == {
        "poplin_resync_duration_seconds", "poplin_etcd_request_duration_seconds",
        "poplin_event_to_kernel_seconds", "poplin_cni_duration_seconds"}
    for (name, labels), buckets in series.items():
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf"), name
        assert [n for _, n in buckets] == sorted(n for _, n in buckets), name
        labels = f"{{{labels}}}" if labels else ""
        if name != "poplin_etcd_request_duration_seconds":  # renewals go on between two looks
            assert first.metric(f"{name}_count{labels}") >= buckets[-1][1]
        assert first.metric(f"{name}_sum{labels}") >= 0


def test_poplinctl_without_an_agent_says_so(cluster):
    node = cluster.node()
    for options in ([], ["--json"]):
        with pytest.raises(Failed, match=r"exit 1\n.*127\.0\.0\.1:9476"):
            node.poplinctl(*options, "status")
    with pytest.raises(Failed, match="exit 2"):
        node.poplinctl("nonsense")


def test_clients_that_misbehave_hinder_nobody(cluster):
    first, = cluster.start_nodes(1)
    # Connected and silent, half a request, and nonsense, from the node's own namespace.
    script = r"""
import socket, sys, time
held = []
for i in range(60):
    s = socket.create_connection(("127.0.0.1", 9476), 2)
    s.sendall([b"", b"GET /metr", b"\0\xff" * 500 + b"\r\n\r\n", b"GET /" + b"x" * 60000][i % 4])
    held.append(s)
print("held", flush=True)
sys.stdin.read()
"""
    client = subprocess.Popen(["ip", "netns", "exec", first.namespace, "python3", "-c", script],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "held\n"
        # Too many connections may be refused for a while, but not for ever.
        wait_for(lambda: first.http("/healthz")[0] == 200, "an answer", 30)
        assert first.process.alive()
        assert first.stop() < 2
    finally:
        client.communicate("")


def test_health_readiness_and_status(cluster):
    first, second = cluster.start_nodes(2)
    assert first.http("/healthz")[0] == 200
    assert first.http("/readyz")[0] == 200
    status = first.status()
    assert status["node"] == "n1" and status["ready"] is True and status["reasons"] == []
    assert status["address"] == first.address and status["interface"] == "eth0"
    assert status["lease"]["held"] and 0 < status["lease"]["expires_in_s"] <= 5
    assert status["peers"]["known"] == 1
    assert first.http("/nothing")[0] == 404
    second.kill()


def test_poplinctl_shows_tables_and_json(cluster):
    first, second = cluster.start_nodes(2)
    first.wait_routes({second.subnet: second.address})
    pod = first.pod("web-1")
    cluster.put("/poplin/nodes/bad", "nonsense")
    wait_for(lambda: first.metric("poplin_peers_rejected") == 1, "the bad record")
    status = first.poplinctl("status")
    assert first.subnet in status and "n1" in status
    peers = first.poplinctl("peers")
    assert re.search(rf"n2\s+{re.escape(second.subnet)}\s+{re.escape(second.address)}", peers)
    assert re.search(r"bad.*rejected", peers)
    routes = first.poplinctl("routes")
    assert re.search(rf"{re.escape(second.subnet)}\s+.*installed", routes)
    assert re.search(rf"{re.escape(pod.address)}\s+eth0\s+pop[0-9a-f]+\s+web-1", first.poplinctl("pods"))
    assert json.loads(first.poplinctl("--json", "status"))["subnet"] == first.subnet
    assert len(json.loads(first.poplinctl("--json", "peers"))["peers"]) == 3
    assert json.loads(first.poplinctl("--json", "pods"))["pods"][0]["container"] == "web-1"
