# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever changes the two type names gets the same network: Debian's bridge + host-local and ours
with the same configurations in turn, each on a node of its own; results and kernel compared."""
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from cnilib import PLUGIN, Answer, Namespace
from machine import is_root

DEBIAN = Path("/usr/lib/cni")

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
    pytest.mark.skipif(not (DEBIAN / "bridge").exists(), reason=f"no plugins in {DEBIAN}"),
]


class Host:
    """A node without an agent, with one kind of plugins: their bridge is theirs to make."""

    def __init__(self, ours):
        self.ours = ours
        self.plugin = PLUGIN if ours else DEBIAN / "bridge"
        self.prefix = []  # what starts the plugin

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="poplin-cni-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.netns = Namespace("host")
            stack.callback(self.netns.remove)
            self.pods = []
            stack.callback(lambda: [pod.remove() for pod in self.pods])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def pod(self):
        self.pods.append(Namespace("pod"))
        return self.pods[-1]

    def config(self, version, ipam=None, **keys):
        conf = {"cniVersion": version, "name": "net",
                "type": "poplin" if self.ours else "bridge", **keys}
        if ipam is not None:
            conf["ipam"] = {"type": "poplin" if self.ours else "host-local",
                            "dataDir": str(self.folder / "data"), **ipam}
        return conf

    def run(self, command, conf, container, pod=None, ifname="eth0", **variables):
        env = {key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")}
        env.update(CNI_COMMAND=command, CNI_CONTAINERID=container, CNI_IFNAME=ifname,
                   CNI_PATH=str(DEBIAN), PATH=os.environ["PATH"])
        if pod:
            env["CNI_NETNS"] = pod.path
        env.update({f"CNI_{key}": value for key, value in variables.items()})
        done = subprocess.run(["/usr/bin/nsenter", f"--net={self.netns.path}", *self.prefix,
                               str(self.plugin)], env=env, input=json.dumps(conf), text=True,
                              capture_output=True, timeout=60, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def both():
    with Host(False) as theirs, Host(True) as ours:
        yield theirs, ours


def same_words(host, value, pods):
    """Without what may differ: names and MACs of links, which each plugin chooses."""
    text = json.dumps(value)
    for number, pod in enumerate(pods):
        text = text.replace(pod.name, f"POD{number}")
    text = re.sub(r'"(veth|pop)[0-9a-f]+"', '"HOST-END"', text)
    text = re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
    return json.loads(text.replace(str(host.folder), "FOLDER"))


def addresses(netns, dev):
    (link,) = netns.ip("-json", "address", "show", "dev", dev)
    return sorted((a["family"], a["local"], a["prefixlen"], a["scope"])
                  for a in link["addr_info"] if a["scope"] != "link")


def routes(netns):
    """All but what the kernel makes itself, of both families and all tables."""
    found = []
    for family in "-4", "-6":
        for route in netns.ip("-json", family, "route", "show", "table", "all"):
            if route.get("protocol") != "kernel" and route.get("type") != "multicast":
                route.pop("protocol", None)
                route.pop("flags", None)  # a moment's state: linkdown
                found.append(json.dumps(route, sort_keys=True))
    return sorted(found)


def settled_links(host, pod):
    """The node's links and the pod's, with their states, which the kernel tells a while later."""
    end = time.monotonic() + 10
    while True:
        links = host.netns.ip("-json", "-details", "link", "show")
        (inside,) = pod.ip("-json", "link", "show", "dev", "eth0")
        states = {link["operstate"] for link in [*links, inside] if link["ifname"] != "lo"}
        if states == {"UP"} or time.monotonic() > end:
            return {link["ifname"]: link for link in links}, inside
        time.sleep(0.01)


def network(host, pod, bridge):
    """What the kernel has."""
    links, inside = settled_links(host, pod)
    port = [link for link in links.values() if link.get("master") == bridge]

    def sysctl(where, name):
        return subprocess.run(["ip", "netns", "exec", where.name, "cat", f"/proc/sys/net/{name}"],
                              text=True, capture_output=True, check=True).stdout.strip()
    return {
        "bridge": {key: links[bridge][key] for key in ("mtu", "operstate")},
        "promiscuous": links[bridge].get("promiscuity", 0) > 0,
        "filtering": links[bridge]["linkinfo"]["info_data"].get("vlan_filtering"),
        "bridge addresses": addresses(host.netns, bridge),
        "ports": [(p["mtu"], p["operstate"], p["linkinfo"]["info_slave_data"]["hairpin"],
                   p["linkinfo"]["info_slave_data"]["isolated"]) for p in port],
        "pod": {key: inside[key] for key in ("mtu", "operstate")},
        "pod addresses": addresses(pod, "eth0"),
        "pod routes": routes(pod),
        "host routes": routes(host.netns),
        "forwarding": (sysctl(host.netns, "ipv4/ip_forward"),
                       sysctl(host.netns, "ipv6/conf/all/forwarding")),
    }


ONE = {"ranges": [[{"subnet": "10.7.1.0/24"}]]}
DUAL = {"ranges": [[{"subnet": "10.7.1.0/24"}], [{"subnet": "fd00:7::/64"}]]}
CONFIGURATIONS = {
    "plain": {"ipam": ONE},
    "bridge's name": {"ipam": ONE, "bridge": "br7", "mtu": 1400},
    "gateway": {"ipam": ONE, "isGateway": True},
    "default gateway": {"ipam": ONE, "isDefaultGateway": True, "hairpinMode": True},
    "promiscuous": {"ipam": ONE, "isGateway": True, "promiscMode": True},
    "old form of a range": {"isGateway": True, "ipam": {
        "subnet": "10.7.1.0/24", "rangeStart": "10.7.1.50", "rangeEnd": "10.7.1.60",
        "gateway": "10.7.1.254", "routes": [{"dst": "0.0.0.0/0"}]}},
    "start is the gateway": {"isGateway": True, "ipam": {
        "subnet": "10.7.1.0/24", "rangeStart": "10.7.1.50", "gateway": "10.7.1.50"}},
    "ranges of one set": {"ipam": {"ranges": [[
        {"subnet": "10.7.1.0/24", "rangeStart": "10.7.1.9", "rangeEnd": "10.7.1.9"},
        {"subnet": "10.8.1.0/24"}]]}},
    "several sets": {"isGateway": True, "ipam": {"ranges": [
        [{"subnet": "10.7.1.0/24"}], [{"subnet": "fd00:7::/64", "gateway": "fd00:7::ff"}]]}},
    "dual stack": {"isDefaultGateway": True, "ipam": DUAL},
    "ipv6": {"isDefaultGateway": True, "ipam": {"subnet": "fd00:7::/64"}},
    "routes": {"ipam": {**ONE, "routes": [
        {"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.7.1.7"},
        {"dst": "10.10.0.0/16", "gw": "10.7.1.8"}]}},
    "no default beside one": {"isDefaultGateway": True, "ipam": {
        **ONE, "routes": [{"dst": "0.0.0.0/0", "gw": "10.7.1.9"}]}},
    "dns": {"ipam": ONE, "dns": {"nameservers": ["10.7.1.1"], "domain": "a.b", "search": ["b"],
                                 "options": ["ndots:5"]}},
    "runtime's ranges": {"ipam": {"ranges": [[{"subnet": "fd00:7::/64"}]]}, "runtimeConfig": {
        "ipRanges": [[{"subnet": "10.7.1.0/24", "rangeStart": "10.7.1.77"}]]}},
    "addresses asked for": {"ipam": DUAL, "runtimeConfig": {
        "ips": ["10.7.1.33", "fd00:7::33/64"], "mac": "02:11:22:33:44:55"}},
    "args": {"ipam": ONE, "args": {"cni": {"ips": ["10.7.1.34"], "mac": "02:11:22:33:44:66"}}},
    "no address": {},
}
VERSIONS = ["0.2.0", "0.3.1", "0.4.0", "1.0.0"]


@pytest.mark.parametrize("keys", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_same_network(both, keys):
    seen = []
    for host in both:
        conf = host.config("1.0.0", **keys)
        pods = [host.pod(), host.pod()]
        results = [host.run("ADD", conf, f"c{i}", pod)
                   for i, pod in enumerate(pods[:1] if "runtimeConfig" in keys or "args" in keys
                                           else pods)]
        bridge = keys.get("bridge", "cni0")
        for answer in results:
            assert answer.code == 0, answer
        check = host.run("CHECK", {**conf, "prevResult": results[0].json}, "c0", pods[0])
        # Debian's has faults: a bridge without an address changes its MAC, no IPAM is no plugin.
        assert check.code == 0 or not host.ours, check
        seen.append({"results": same_words(host, [r.json for r in results], pods),
                     "network": network(host, pods[0], bridge)})
        for i, pod in enumerate(pods):
            assert host.run("DEL", conf, f"c{i}", pod).code == 0
            assert [link["ifname"] for link in pod.ip("-json", "link", "show")] == ["lo"]
    assert seen[1]["results"] == seen[0]["results"]
    for what, state in seen[0]["network"].items():
        assert seen[1]["network"][what] == state, what


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_result_in_each_version(both, version):
    seen = []
    for host in both:
        pod = host.pod()
        answer = host.run("ADD", host.config(version, isDefaultGateway=True, ipam=DUAL), "c0", pod)
        assert answer.code == 0, answer
        seen.append(same_words(host, answer.json, [pod]))
    assert seen[1] == seen[0]


@pytest.mark.parametrize("variables", [
    {"ARGS": "IP=10.7.1.44"}, {"ARGS": "IgnoreUnknown=1;IP=10.7.1.44;MAC=02:11:22:33:44:77;A=b"},
], ids=["IP", "all"])
def test_the_same_arguments(both, variables):
    seen = []
    for host in both:
        pod = host.pod()
        # Without IgnoreUnknown Debian's bridge does not know IP=, which is for host-local.
        if "IgnoreUnknown" not in variables["ARGS"] and not host.ours:
            variables = {"ARGS": "IgnoreUnknown=1;" + variables["ARGS"]}
        answer = host.run("ADD", host.config("1.0.0", ipam=ONE), "c0", pod, **variables)
        assert answer.code == 0, answer
        (inside,) = pod.ip("-json", "link", "show", "dev", "eth0")
        mac = inside["address"] if "MAC" in variables["ARGS"] else None
        seen.append((same_words(host, answer.json, [pod]), addresses(pod, "eth0"), mac))
    assert seen[1] == seen[0]


WRONG = {
    "host bits": {"ipam": {"subnet": "10.7.1.5/24"}},
    "too small": {"ipam": {"subnet": "10.7.1.0/31"}},
    "single": {"ipam": {"subnet": "10.7.1.0/32"}},
    "start outside": {"ipam": {"subnet": "10.7.1.0/24", "rangeStart": "10.7.2.1"}},
    "end outside": {"ipam": {"subnet": "10.7.1.0/24", "rangeEnd": "10.7.2.1"}},
    "no range": {"ipam": {}},
    "empty set": {"ipam": {"ranges": [[]]}},
    "overlap in a set": {"ipam": {"ranges": [[{"subnet": "10.7.1.0/24"},
                                              {"subnet": "10.7.0.0/16"}]]}},
    "overlap of sets": {"ipam": {"ranges": [[{"subnet": "10.7.1.0/24"}],
                                            [{"subnet": "10.7.1.0/25"}]]}},
    "two families in a set": {"ipam": {"ranges": [[{"subnet": "10.7.1.0/24"},
                                                   {"subnet": "fd00:7::/64"}]]}},
    "not asked of any range": {"ipam": ONE, "runtimeConfig": {"ips": ["10.99.1.1"]}},
    "the gateway asked for": {"ipam": ONE, "runtimeConfig": {"ips": ["10.7.1.1"]}},
    "no address": {"ipam": ONE, "runtimeConfig": {"ips": ["x"]}},
    "hairpin and promiscuous": {"ipam": ONE, "hairpinMode": True, "promiscMode": True},
    "two addresses in 0.2.0": {"cniVersion": "0.2.0", "ipam": {"ranges": [
        [{"subnet": "10.7.1.0/24"}], [{"subnet": "10.8.1.0/24"}]]}},
}


@pytest.mark.parametrize("keys", WRONG.values(), ids=WRONG)
def test_what_both_refuse(both, keys):
    keys = dict(keys)
    version = keys.pop("cniVersion", "1.0.0")
    for host in both:
        pod = host.pod()
        answer = host.run("ADD", host.config(version, **keys), "c0", pod)
        assert answer.code == 1 and answer.json["code"] > 0, answer
        if host.ours:
            assert answer.json["code"] in (7,), answer
            # Nothing is left, not even what Debian's leaves.
            assert [link["ifname"] for link in pod.ip("-json", "link", "show")] == ["lo"]


def test_an_address_of_another_subnet_on_the_bridge(both):
    """Refused, or replaced with forceAddress."""
    for host in both:
        pods = [host.pod(), host.pod(), host.pod()]
        first = host.config("1.0.0", isGateway=True, ipam=ONE)
        other = host.config("1.0.0", isGateway=True, ipam={"subnet": "10.8.1.0/24"})
        assert host.run("ADD", first, "c0", pods[0]).code == 0
        answer = host.run("ADD", other, "c1", pods[1])
        assert answer.code == 1 and "cni0" in answer.json["msg"], answer
        answer = host.run("ADD", {**other, "forceAddress": True}, "c2", pods[2])
        assert answer.code == 0, answer
        assert [a[1] for a in addresses(host.netns, "cni0")] == ["10.8.1.1"]


# -- the type names are changed while pods run ----------------------------------------------------

class Change:
    """A node whose pods were attached by Debian's plugins, and that has ours from then on."""

    def __init__(self, host):
        self.host = host

    def config(self, ours, **keys):
        self.host.ours, self.host.plugin = ours, PLUGIN if ours else DEBIAN / "bridge"
        return self.host.config("1.0.0", **keys)

    def reservations(self):
        """{address: container} of host-local."""
        return {path.name: path.read_text().split()[0]
                for path in (self.host.folder / "data" / "net").iterdir()
                if path.is_file() and re.fullmatch(r"[0-9a-f]+[.:][0-9a-f.:]+", path.name)}


@pytest.fixture
def change():
    with Host(False) as host:
        yield Change(host)


def given(answer):
    assert answer.code == 0, answer
    return [ip["address"].split("/")[0] for ip in answer.json["ips"]]


SMALL = {"isGateway": True, "ipam": {"ranges": [
    [{"subnet": "10.7.1.0/29"}], [{"subnet": "fd00:7::/125"}]]}}  # five pods and six


def test_addresses_of_host_local_are_held(change):
    host, pods = change.host, [change.host.pod() for _ in range(7)]
    old = change.config(False, **SMALL)
    theirs = [given(host.run("ADD", old, f"c{i}", pods[i])) for i in range(3)]
    new = change.config(True, **SMALL)
    ours = [given(host.run("ADD", new, f"c{i}", pods[i])) for i in (3, 4)]
    every = [address for both_families in theirs + ours for address in both_families]
    assert len(set(every)) == len(every) == 10
    # Full, with those of both; and none of them is given on request.
    full = host.run("ADD", new, "c5", pods[5])
    assert full.code == 1 and full.json["code"] == 100 and "5 are held" in full.json["msg"], full
    status = host.run("STATUS", {**new, "cniVersion": "1.1.0"}, "")
    assert status.code == 1 and status.json["code"] == 50, status
    wanted = host.run("ADD", {**new, "runtimeConfig": {"ips": [theirs[1][0]]}}, "c5", pods[5])
    assert wanted.code == 1 and "c1:eth0" in wanted.json["msg"], wanted
    # An attachment that is there is not made again, nor taken apart.
    again = host.run("ADD", new, "c1", pods[1])
    assert again.code == 1 and again.json["code"] == 103, again
    assert addresses(pods[1], "eth0")[0][1] == theirs[1][0]
    assert host.run("DEL", new, "c1", pods[1]).code == 0
    assert given(host.run("ADD", new, "c5", pods[5]))[0] == theirs[1][0]


def test_a_pod_of_host_local_is_checked_and_removed(change):
    host, pod, other = change.host, change.host.pod(), change.host.pod()
    result = host.run("ADD", change.config(False, **SMALL), "c0", pod)
    given(result)
    new = change.config(True, **SMALL)
    check = host.run("CHECK", {**new, "prevResult": result.json}, "c0", pod)
    assert check.code == 0, check
    wrong = host.run("CHECK", {**new, "prevResult": result.json}, "c1", pod)
    assert wrong.code == 1 and "c0:eth0" in wrong.json["msg"], wrong
    given(host.run("ADD", new, "c2", other))
    assert len(change.reservations()) == 2
    # With the link, whose name on the node is not ours; twice, and for one that never was.
    for container in "c0", "c0", "c9":
        assert host.run("DEL", new, container, pod).code == 0
    assert change.reservations() == {}
    assert [link["ifname"] for link in pod.ip("-json", "link", "show")] == ["lo"]
    assert [link["ifname"] for link in other.ip("-json", "link", "show")] == ["lo", "eth0"]


def test_reservations_of_gone_pods_are_collected(change):
    host, pods = change.host, [change.host.pod() for _ in range(3)]
    old = change.config(False, **SMALL)
    for i in range(3):
        given(host.run("ADD", old, f"c{i}", pods[i]))
    pods[0].remove()
    pods[1].remove()
    new = change.config(True, **SMALL)
    assert host.run("DEL", new, "c0").code == 0  # no namespace any more
    assert set(change.reservations().values()) == {"c1", "c2"}
    valid = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": [
        {"containerID": "c2", "ifname": "eth0"}]}
    assert host.run("GC", {**new, **valid}, "").code == 0
    assert set(change.reservations().values()) == {"c2"}


def test_what_host_local_left_and_nobody_can_read(change):
    """Whose address is it? ADD, CHECK, DEL and GC say so and do nothing; a pod of ours has no part in it."""
    host, pods = change.host, [change.host.pod() for _ in range(3)]
    keys = {"isGateway": True, "ipam": {"ranges": [[{"subnet": "10.7.1.0/29"}]]}}
    first = host.run("ADD", change.config(False, **keys), "c0", pods[0])
    address = given(first)[0]
    new = change.config(True, **keys)
    ours = host.run("ADD", new, "c1", pods[1])
    given(ours)
    folder = host.folder / "data" / "net"
    # Who may not override permissions: the superuser of a machine reads what has none.
    host.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]

    def refused(answer, *words):
        assert answer.code == 1 and answer.json["code"] == 5, answer
        assert all(word in answer.json["msg"] for word in ("Permission denied", *words)), answer

    for path in folder / address, folder:
        path.chmod(0)
        word = str(folder) if path == folder else address
        refused(host.run("ADD", new, "c2", pods[2]), word)
        assert [link["ifname"] for link in pods[2].ip("-json", "link", "show")] == ["lo"]
        refused(host.run("CHECK", {**new, "prevResult": first.json}, "c0", pods[0]), word)
        refused(host.run("DEL", new, "c0", pods[0]), word)
        refused(host.run("DEL", new, "c0"), word)
        refused(host.run("GC", {**new, "cniVersion": "1.1.0", "cni.dev/valid-attachments": [
            {"containerID": "c1", "ifname": "eth0"}]}, ""), word)
        if path != folder:
            check = host.run("CHECK", {**new, "prevResult": ours.json}, "c1", pods[1])
            assert check.code == 0, check
        path.chmod(0o700)
        assert change.reservations()[address] == "c0"
        assert addresses(pods[0], "eth0")[0][1] == address
    (folder / address).chmod(0)
    assert host.run("DEL", new, "c1", pods[1]).code == 0
    (folder / address).chmod(0o600)
    assert host.run("DEL", new, "c0", pods[0]).code == 0
    assert change.reservations() == {}
