# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals and what poplind does besides running."""
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from cluster import peer, wait_for


def threads(node, name):
    tasks = Path(f"/proc/{node.process.pid}/task").iterdir()
    return sum(1 for t in tasks if (t / "comm").read_text().startswith(name))


def test_a_good_reload_takes_effect(make_cluster):
    cluster = make_cluster(LEASE_TTL=60, LOG_LEVEL="info")
    first, second = cluster.start_nodes(2)
    watch = cluster.watch_deletes()
    assert threads(first, "worker/") == 4
    first.write_config(LOG_LEVEL="debug", RESYNC_INTERVAL=1, ROUTE_WORKERS=7, LEASE_TTL=20,
                       LOG_FORMAT="json")
    log = first.hangup()
    assert re.search('setting changed.*LEASE_TTL","from":"60","to":"20"', log), log
    for name in ("LOG_LEVEL", "RESYNC_INTERVAL", "ROUTE_WORKERS", "LEASE_TTL", "LOG_FORMAT"):
        assert re.search(rf"setting changed.*{name}", log), log
    wait_for(lambda: threads(first, "worker/") == 7, "7 workers")
    wait_for(lambda: first.status()["lease"]["ttl_s"] == 20, "the lease's new TTL")
    before = first.metric("poplin_resyncs_total")
    wait_for(lambda: first.metric("poplin_resyncs_total") >= before + 2, "resyncs each second", 10)
    assert '"level":"debug"' in first.log()
    assert first.metric("poplin_config_last_reload_successful") == 1
    first.write_config(ROUTE_WORKERS=1)
    first.hangup()
    assert threads(first, "worker/") == 1
    assert watch.deletes() == []
    assert first.routes() == {second.subnet: second.address}
    watch.close()


def test_a_reload_moves_to_another_etcd_endpoint(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    # The same etcd by another address.
    other = f"{cluster.net}.0.3"
    os.system(f"ip -n {cluster.store} address add {other}/16 dev eth0")
    first.write_config(ETCD_HOST=f"http://{other}:2379")
    cluster.etcd.end()
    cluster.etcd = None
    subnet = first.subnet
    # It listens on the new address alone now.
    urls = ["--listen-client-urls", f"http://{other}:2379,http://127.0.0.1:2379"]
    from cluster import Process
    cluster.etcd = Process(["ip", "netns", "exec", cluster.store, "etcd", "--data-dir",
                            cluster.dir / "etcd", *urls, "--advertise-client-urls",
                            f"http://{other}:2379"], cluster.dir / "etcd2.log")
    first.hangup()
    wait_for(lambda: first.status()["store"]["endpoint"] == f"http://{other}:2379" and
             first.status()["store"]["connected"], "the other endpoint", 30)
    assert first.subnet == subnet


@pytest.mark.parametrize("name,value,says", [
    ("LEASE_TTL", "soon", r"LEASE_TTL.*soon.*poplin\.conf:\d+"),
    ("ROUTE_WORKERS", "0", r"ROUTE_WORKERS.*1.*64"),
    ("ETCD_HOST", "http://[", r"ETCD_HOST"),
    ("IP_SUBNET", "10.2.0.1/16", r"IP_SUBNET.*10\.2\.0\.0/16"),
])
def test_a_bad_reload_is_refused_whole(make_cluster, name, value, says):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    good = first.settings.get(name)
    first.write_config(**{"ROUTE_WORKERS": 9, name: value})
    log = first.hangup()
    assert re.search(r"configuration refused", log)
    assert re.search(says, log), log
    assert threads(first, "worker/") == 4
    assert first.metric("poplin_config_last_reload_successful") == 0
    assert first.ready()
    shown = r"Warning +the configuration was refused, the old one stays: .*" + name
    assert re.search(shown, first.poplinctl("status"))
    first.settings.pop(name)
    first.write_config(**({name: good} if good else {}), ROUTE_WORKERS=9)
    assert "loaded" in first.hangup()
    assert first.status()["warnings"] == []
    wait_for(lambda: threads(first, "worker/") == 9, "9 workers")


def test_what_cannot_change_says_so(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, = cluster.start_nodes(1)
    first.write_config(BRIDGE_NAME="other0", LOG_LEVEL="info")
    log = first.hangup()
    assert re.search(r"need a restart.*BRIDGE_NAME", log)
    assert re.search(r"setting changed.*LOG_LEVEL", log)
    assert first.status()["bridge"]["name"] == "poplin0"


@pytest.mark.parametrize("etcd", ["there", "away"])
def test_sigterm_stops_within_two_seconds_and_leaves_everything(make_cluster, etcd):
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    pod = first.pod("stays")
    other = second.pod("other")
    if etcd == "away":
        cluster.cut_etcd()
    assert first.stop() < 2
    assert first.routes() == {second.subnet: second.address}
    assert pod.ping(other.address)
    assert Path(first.settings["CNI_CONFIG_LOCATION"]).exists()
    if etcd == "there":
        assert "/poplin/nodes/n1" in cluster.get()


def test_reloads_and_changes_without_end(make_cluster):
    cluster = make_cluster(LEASE_TTL=60, LOG_LEVEL="info", IP_SUBNET="10.0.0.0/8",
                           IP_SUBNET_MARGIN=16)
    first, = cluster.start_nodes(1)
    wanted = {}
    for i in range(40):
        first.write_config(ROUTE_WORKERS=1 + i * 7 % 16, RESYNC_INTERVAL=1 + i % 3,
                           LEASE_TTL=30 + i % 2, LOG_FORMAT=("text", "json")[i % 2],
                           ETCD_HOST=("", "http://")[i % 2] + f"{cluster.etcd_address}:2379")
        first.process.send(signal.SIGHUP)
        cluster.put_peers(i * 10, 10)
        wanted.update(peer(n) for n in range(i * 10, i * 10 + 10))
        if i % 4 == 3:
            cluster.etcdctl("del", f"/poplin/nodes/node-{i * 10:05d}")
            wanted.pop(peer(i * 10)[0])
    first.wait_routes(wanted)
    first.hangup()
    assert threads(first, "worker/") == first.settings["ROUTE_WORKERS"]
    wait_for(lambda: first.status()["lease"]["ttl_s"] == first.settings["LEASE_TTL"], "the TTL")
    assert first.stop() < 2


@pytest.mark.parametrize("etcd", ["there", "refuses", "silent"])
def test_sigterm_at_any_moment_of_the_start(make_cluster, etcd):
    cluster = make_cluster(LEASE_TTL=60, IP_SUBNET="10.0.0.0/8", IP_SUBNET_MARGIN=16)
    cluster.put_peers(0, 300)
    if etcd == "refuses":
        cluster.stop_etcd()
    if etcd == "silent":
        cluster.cut_etcd()
    node = cluster.node()
    moments = random.Random(3)
    for i in range(12):
        node.start()
        if i:  # and once before it is ready for a signal
            wait_for(lambda: "starting" in node.log(), "its first words")
        time.sleep(moments.uniform(0, 0.4))
        node.process.send(signal.SIGHUP) if i % 3 == 2 else None
        status, seconds = node.process.end()
        assert status in (0, -signal.SIGTERM) and seconds < 2, (status, seconds)
        assert status == 0 or i == 0
        node.log_path.write_text("")


def test_release_and_cleanup(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    first, second = cluster.start_nodes(2)
    subnet = first.subnet
    pod = first.pod("one")
    for option in ("--release", "--cleanup"):
        refused = first.poplind(option, check=False)
        assert refused.returncode == 1
        assert "runs already" in refused.stderr
    assert subnet in second.routes()
    first.stop()
    refused = first.poplind("--release", check=False)
    assert refused.returncode == 1 and "1 addresses are held by pods of this node" in refused.stderr
    assert subnet in second.routes()
    first.poplind("--release", "--force")
    wait_for(lambda: subnet not in second.routes(), "the route to go")
    assert "/poplin/nodes/n1" not in cluster.get()
    first.poplind("--release", "--force")  # nothing left to release
    first.poplind("--cleanup")
    assert first.routes() == {}
    assert first.ip_json("nexthop", "show", "proto", "84") == []
    assert {link["ifname"] for link in first.ip_json("link", "show")} == {"lo", "eth0"}
    assert not Path(first.settings["CNI_CONFIG_LOCATION"]).exists()
    assert not Path(first.settings["CNI_PLUGIN_LOCATION"]).exists()
    left = {p.name for p in Path(first.settings["STATE_DIR"]).rglob("*") if not p.is_dir()}
    assert left <= {"poplind.lock"}
    assert pod.namespace
    first.poplind("--cleanup")  # nothing left to clean


def test_cleanup_takes_what_a_killed_agent_and_a_lost_bridge_left(cluster):
    first, = cluster.start_nodes(1)
    first.pod("one")
    first.kill()
    first.ip("link", "del", "poplin0")
    half = [Path(first.settings[name]) for name in ("CNI_CONFIG_LOCATION", "CNI_PLUGIN_LOCATION")]
    for path in half:
        (path.parent / f".{path.name}.tmp").write_text("half")
    first.poplind("--cleanup")
    assert {link["ifname"] for link in first.ip_json("link", "show")} == {"lo", "eth0"}
    for path in half:
        assert list(path.parent.iterdir()) == []


def test_warnings_about_settings_are_logged_as_the_settings_say(cluster):
    first = cluster.node(LOG_FORMAT="json", NODE_NAMEX="x")
    first.start(ready=True)
    lines = [json.loads(line) for line in first.log().splitlines()]
    assert any("NODE_NAMEX" in json.dumps(line) for line in lines)


def test_a_second_agent_is_refused(cluster):
    first, = cluster.start_nodes(1)
    second = first.poplind(check=False)
    assert second.returncode == 1
    assert f"pid {first.process.pid}" in second.stderr
    assert first.ready()


@pytest.mark.parametrize("name,value,allowed", [
    ("LEASE_TTL", "4", "5"), ("MTU", "70000", "65535"), ("NODE_NAME", "a b", "NODE_NAME"),
    ("CNI_VERSION", "9.9", "1.0.0"), ("ETCD_HOST", "ftp://x", "http"),
    ("IP_SUBNET_MARGIN", "20", "30"), ("ROUTE_PROTOCOL", "4", "5"),
    ("METRICS_ADDRESS", "nowhere", "port"), ("LOG_LEVEL", "loud", "debug"),
])
def test_a_wrong_setting_exits_2_before_anything_was_touched(cluster, name, value, allowed):
    node = cluster.node(**{name: value})
    for options in ([], ["--check-config"]):
        result = node.poplind(*options, check=False)
        assert result.returncode == 2
        for part in (name, value, "poplin.conf:", allowed):
            assert part in result.stderr, (part, result.stderr)
    assert not Path(node.settings["STATE_DIR"]).exists()
    assert cluster.get() == {}


def test_check_config_prints_what_would_hold(cluster):
    node = cluster.node(LEASE_TTL=77)
    out = node.poplind("--check-config").stdout
    assert re.search(r'LEASE_TTL="?77', out)
    assert not Path(node.settings["STATE_DIR"]).exists()
