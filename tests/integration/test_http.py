# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus, a probe, and a person at the node get to see."""
import json
import re

from cluster import wait_for

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
