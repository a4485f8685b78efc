# SPDX-License-Identifier: GPL-2.0-or-later
"""poplin first in a list of plugins: CNI_CHAIN in the agent, and Debian's portmap, bandwidth, tuning
and firewall behind it, run in turn as libcni does."""
import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from cluster import run, wait_for
from cnilib import PLUGIN, Namespace
from machine import is_root
from test_cni_dropin import DEBIAN, DUAL, ONE, Host

CHAIN = [
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 10_000_000,
     "egressRate": 100_000_000, "egressBurst": 10_000_000},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1300},
    {"type": "firewall", "backend": "iptables"},
]
SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 80))
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.recv(4096)
    c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello")
    c.close()
"""

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
]


class List:
    """What libcni does with a list: each plugin gets the result of the one before it."""

    def __init__(self, host, version, ipam, ports):
        self.host, self.ports = host, ports
        self.plugins = [host.config(version, isDefaultGateway=True, ipam=ipam), *CHAIN]
        self.common = {"cniVersion": version, "name": "net"}
        self.result = None

    def run(self, command, plugin, *args):
        conf = {**plugin, **self.common}
        if self.result:
            conf["prevResult"] = self.result
        if "portMappings" in conf.pop("capabilities", {}):
            conf["runtimeConfig"] = {"portMappings": self.ports}
        if plugin is self.plugins[0]:
            return self.host.run(command, conf, *args)
        with Chained(self.host, plugin["type"]) as other:
            return other.run(command, conf, *args)

    def add(self, *args):
        self.result = None
        for plugin in self.plugins:
            answer = self.run("ADD", plugin, *args)
            assert answer.code == 0, (plugin["type"], answer)
            self.result = answer.json

    def check(self, *args):
        """The names of the plugins that complain; without portmap: Debian's searches the rules of
        IPv4 among those of IPv6, whoever is the first."""
        return [plugin["type"] for plugin in self.plugins if plugin["type"] != "portmap"
                and self.run("CHECK", plugin, *args).code]

    def delete(self, *args):
        for plugin in reversed(self.plugins):
            answer = self.run("DEL", plugin, *args)
            assert answer.code == 0, (plugin["type"], answer)


@contextlib.contextmanager
def Chained(host, name):
    """The host, with another plugin to be run."""
    ours, host.plugin = host.plugin, DEBIAN / name
    try:
        yield host
    finally:
        host.plugin = ours


@contextlib.contextmanager
def peer_of(host):
    """A machine beside the host, 192.0.2.2; the host is 192.0.2.1."""
    peer = Namespace("peer")
    try:
        host.netns.ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns",
                      peer.name)
        for netns, dev, address in (host.netns, "up0", 1), (peer, "eth0", 2):
            netns.ip("address", "add", f"192.0.2.{address}/24", "dev", dev)
            netns.ip("link", "set", dev, "up")
        yield peer
    finally:
        peer.remove()


@contextlib.contextmanager
def server_in(pod):
    process = subprocess.Popen(["ip", "netns", "exec", pod.name, "/usr/bin/python3", "-c", SERVER],
                               text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "listening\n"
        yield
    finally:
        process.kill()
        process.communicate()


def get(netns, url):
    return run("ip", "netns", "exec", netns, "curl", "-s", "-m", "5", url, check=False)


def rules(host):
    return run("ip", "netns", "exec", host.netns.name, "nft", "list", "ruleset")


@pytest.mark.skipif(not (DEBIAN / "portmap").exists(), reason=f"no plugins in {DEBIAN}")
@pytest.mark.parametrize("version,ipam", [("0.4.0", ONE), ("1.0.0", DUAL)], ids=["0.4.0", "dual"])
def test_first_in_a_list(version, ipam):
    with Host(True) as host, peer_of(host) as peer:
        pod, before = host.pod(), host.netns.ip("-json", "link", "show")
        plugins = List(host, version, ipam,
                       [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
        plugins.add("c0", pod)
        addresses = [ip["address"].split("/")[0] for ip in plugins.result["ips"]]
        assert len(addresses) == len(ipam["ranges"])
        assert len(plugins.result["interfaces"]) == 4  # one is bandwidth's
        assert plugins.check("c0", pod) == []
        (inside,) = pod.ip("-json", "link", "show", "dev", "eth0")
        assert inside["mtu"] == 1300
        with server_in(pod):
            assert get(peer.name, "http://192.0.2.1:8080/") == "hello"
            for address in addresses:
                assert address in rules(host)
            # What one of them lost, that one notices, and ours does not complain of theirs.
            pod.ip("link", "set", "eth0", "mtu", "1290")
            assert plugins.check("c0", pod) == ["tuning"]
            for _ in range(2):
                plugins.delete("c0", pod)
            assert get(peer.name, "http://192.0.2.1:8080/") == ""
        for address in addresses:
            assert address not in rules(host)
        names = {link["ifname"] for link in host.netns.ip("-json", "link", "show")}
        assert names == {link["ifname"] for link in before} | {"cni0"}
        assert [link["ifname"] for link in pod.ip("-json", "link", "show")] == ["lo"]
        assert not list((host.folder / "data/net/addresses").iterdir())


# -- the agent -----------------------------------------------------------------------


def written(node):
    """The plugins of the configuration that the agent wrote."""
    return json.loads(Path(node.settings["CNI_CONFIG_LOCATION"]).read_text())["plugins"]


def test_the_agent_appends_the_plugins(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node = cluster.node()
    path = node.dir / "chain.json"
    path.write_text(json.dumps(CHAIN[:1]))
    node.start(ready=True, CNI_CHAIN=path)
    own, *others = written(node)
    assert own["type"] == "poplin" and others == CHAIN[:1]
    # A pod is attached as ever.
    assert node.pod("one").ping(own["ipam"]["ranges"][0][0]["subnet"].replace(".0/24", ".1"))
    # The same file with other plugins, taken over by a reload; nobody tampered with ours.
    path.write_text(json.dumps({"name": "any", "plugins": CHAIN}))
    assert "configuration loaded" in node.hangup()
    wait_for(lambda: written(node) == [own, *CHAIN], "the plugins of the changed file")
    assert node.metric('poplin_drift_repairs_total{kind="file"}') == 0
    # One that is wrong is refused as a whole.
    path.write_text(json.dumps([*CHAIN, {"type": "../sh"}]))
    log = node.hangup()
    assert "configuration refused" in log and f"CNI_CHAIN: {path}: plugin 5: 'type' is" in log
    # So it is when the agent meets it by itself: what stands stays, and the status says why.
    node.write_config(CNI_CHAIN="", RESYNC_INTERVAL=1)
    assert "configuration loaded" in node.hangup()
    wait_for(lambda: written(node) == [own], "no plugin but ours")
    path.write_text(json.dumps(CHAIN[2:]))
    node.write_config(CNI_CHAIN=path)
    assert "configuration loaded" in node.hangup()
    wait_for(lambda: written(node) == [own, *CHAIN[2:]], "the plugins of the file")
    path.write_text("[")
    wait_for(lambda: str(path) in json.dumps(node.status()), "the status to name the file")
    assert written(node) == [own, *CHAIN[2:]]
    # Without a reload, after RESYNC_INTERVAL.
    path.write_text(json.dumps(CHAIN[1:]))
    wait_for(lambda: written(node) == [own, *CHAIN[1:]], "the plugins of the file at last")
    node.wait_ready()


def test_a_wrong_chain_is_refused_at_the_start(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node = cluster.node()
    path = node.dir / "chain.json"
    path.write_text(json.dumps(CHAIN))
    config = node.settings["CNI_CONFIG_LOCATION"]
    node.write_config(CNI_CHAIN=path, CNI_CONFIG_LOCATION=config.with_suffix(".conf"))
    refused = node.poplind(check=False)
    assert refused.returncode == 2
    assert f"CNI_CHAIN='{path}'" in refused.stderr and "CNI_CONFIG_LOCATION='" in refused.stderr
    node.write_config(CNI_CONFIG_LOCATION=config)
    assert node.poplind("--check-config").returncode == 0
    plugins = node.settings["CNI_PLUGIN_LOCATION"].parent
    plugins.mkdir(parents=True)
    for plugin in CHAIN[1:]:
        (plugins / plugin["type"]).touch()
    missing = f"CNI_CHAIN={path}: the plugin {plugins / 'portmap'} is not there"
    told = node.poplind("--check-config").stderr
    assert missing in told and told.count("is not there") == 1
    path.write_text('[{"type": "portmap"},\n 7]')
    refused = node.poplind(check=False)
    assert refused.returncode == 2 and f"{path}: plugin 2: not an object" in refused.stderr
    path.unlink()
    refused = node.poplind(check=False)
    assert refused.returncode == 2 and f"CNI_CHAIN: {path}: open" in refused.stderr
