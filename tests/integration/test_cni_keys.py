# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of the configuration one by one, without an agent: IPAM of other plugins, masquerading, what
a runtime asks for, what is refused, and GC of each of these."""
import json
import subprocess

import pytest

from cnilib import PLUGIN
from machine import is_root
from test_cni_dropin import DEBIAN, ONE, Host

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
]
needs_debian = pytest.mark.skipif(not (DEBIAN / "host-local").exists(),
                                  reason=f"no plugins in {DEBIAN}")


@pytest.fixture
def host():
    with Host(True) as made:
        yield made


def fine(answer):
    assert answer.code == 0 and answer.stderr == "", answer
    return answer.json


def links(pod):
    return [link["ifname"] for link in pod.ip("-json", "link", "show")]


def host_ends(host):
    return [link["ifname"] for link in host.netns.ip("-json", "link", "show")
            if link["ifname"].startswith("pop")]


def masqueraded(host):
    """{address: comment} of the map; {} without a table."""
    done = subprocess.run(["ip", "netns", "exec", host.netns.name, "nft", "-j", "list", "table",
                           "inet", "poplin_pods"], text=True, capture_output=True, check=False)
    if done.returncode:
        return {}
    found = {}
    for item in json.loads(done.stdout)["nftables"]:
        for key, _ in item.get("map", {}).get("elem", []):
            found[key["elem"]["val"]] = key["elem"]["comment"]
    return found


# -- IPAM of another plugin ---------------------------------------------------------------

@needs_debian
def test_ipam_of_host_local(host):
    pod, other = host.pod(), host.pod()
    data = host.folder / "data/net"
    conf = host.config("1.0.0", ipam={**ONE, "type": "host-local"}, isDefaultGateway=True)
    result = fine(host.run("ADD", conf, "c0", pod))
    assert result["ips"] == [{"interface": 2, "address": "10.7.1.2/24", "gateway": "10.7.1.1"}]
    assert (data / "10.7.1.2").read_text().split() == ["c0", "eth0"]
    assert host.run("CHECK", {**conf, "prevResult": result}, "c0", pod).code == 0
    # A second ADD takes nothing from the first.
    answer = host.run("ADD", conf, "c0", pod)
    assert answer.code == 1 and answer.json["code"] == 103, answer
    assert (data / "10.7.1.2").exists() and links(pod) == ["lo", "eth0"]
    # What fails after its ADD is given back by its DEL.
    other.ip("link", "add", "eth0", "type", "bridge")
    assert host.run("ADD", conf, "c1", other).code == 1
    assert not (data / "10.7.1.3").exists()
    (data / "10.7.1.2").unlink()
    answer = host.run("CHECK", {**conf, "prevResult": result}, "c0", pod)
    assert answer.code == 1 and "host-local" in answer.json["msg"], answer
    fine(host.run("DEL", conf, "c0", pod))
    fine(host.run("DEL", conf, "c0", pod))
    assert links(pod) == ["lo"] and host_ends(host) == []


@needs_debian
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.0.0"])
def test_ipam_of_static(host, version):
    pod = host.pod()
    conf = host.config(version, ipam={
        "type": "static", "addresses": [{"address": "10.7.1.9/24", "gateway": "10.7.1.1"}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.7.1.1"]}})
    result = fine(host.run("ADD", conf, "c0", pod))
    assert result["dns"] == {"nameservers": ["10.7.1.1"]}
    assert "10.7.1.9/24" in json.dumps(result)
    (route,) = pod.ip("-json", "route", "show", "default")
    assert route["gateway"] == "10.7.1.1"
    fine(host.run("DEL", conf, "c0", pod))
    assert links(pod) == ["lo"]


@needs_debian
def test_an_ipam_plugin_that_fails(host):
    pod = host.pod()
    conf = host.config("1.0.0", ipam={"type": "static", "addresses": [{"address": "x"}]})
    answer = host.run("ADD", conf, "c0", pod)
    assert answer.code == 1 and "'static'" in answer.json["msg"], answer
    conf["ipam"]["type"] = "poplin-none"
    answer = host.run("ADD", conf, "c0", pod)
    assert answer.json["code"] == 7 and "poplin-none" in answer.json["msg"], answer
    answer = host.run("ADD", conf, "c0", pod, PATH="")
    assert answer.json["code"] == 4 and "CNI_PATH" in answer.json["msg"], answer
    conf["ipam"]["type"] = "../static"
    assert host.run("ADD", conf, "c0", pod).json["code"] == 7
    assert links(pod) == ["lo"] and host_ends(host) == []


def test_gc_and_status_are_forwarded(host):
    """To a plugin that writes down what it was asked, and answers an error of its own."""
    told = host.folder / "told"
    plugin = host.folder / "teller"
    plugin.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{told}\ncat >>{told}\necho >>{told}\n"
                      "echo '{\"code\": 123, \"msg\": \"no\", \"details\": \"more\"}'\nexit 1\n")
    plugin.chmod(0o755)
    conf = host.config("1.1.0", ipam={"type": "teller"})
    conf["cni.dev/valid-attachments"] = []
    for command in "STATUS", "GC", "DEL":
        answer = host.run(command, conf, "c0", PATH=str(host.folder))
        assert answer.code == 1 and answer.json["code"] == 123, answer
        assert answer.json["msg"] == "plugin 'teller': no; more"
    text = told.read_text()
    assert [line for line in text.splitlines() if line.isupper()] == ["STATUS", "GC", "DEL"]
    assert text.count('"valid-attachments"'.replace('"valid', '"cni.dev/valid')) == 3


# -- ipMasq ---------------------------------------------------------------------------------

def test_masquerading(host):
    """Out of the network with the node's address, within it with the pod's own."""
    outside, pods = host.pod(), [host.pod(), host.pod()]
    host.netns.ip("link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns",
                  outside.name)
    for where, address in (host.netns, "192.0.2.1/24"), (outside, "192.0.2.2/24"):
        where.ip("address", "add", address, "dev", "up0")
        where.ip("link", "set", "up0", "up")
    conf = host.config("1.0.0", ipam={"ranges": [[{"subnet": "10.7.1.0/24"}],
                                                  [{"subnet": "fd00:7::/64"}]]},
                       isDefaultGateway=True, ipMasq=True)
    for i, pod in enumerate(pods):
        fine(host.run("ADD", conf, f"c{i}", pod))
    assert set(masqueraded(host)) == {"10.7.1.2", "10.7.1.3", "fd00:7::2", "fd00:7::3"}
    # Nobody outside has a route to the pods: an answer proves the node's address.
    subprocess.run(["ip", "netns", "exec", pods[0].name, "ping", "-qc1", "-W5", "192.0.2.2"],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ip", "netns", "exec", pods[0].name, "ping", "-qc1", "-W5", "10.7.1.3"],
                   check=True, stdout=subprocess.DEVNULL)
    # The namespace is gone, and CNI_NETNS is not given: nothing leaks.
    pods[0].remove()
    fine(host.run("DEL", conf, "c0"))
    assert set(masqueraded(host)) == {"10.7.1.3", "fd00:7::3"}
    conf["cniVersion"] = "1.1.0"
    conf["cni.dev/valid-attachments"] = []
    fine(host.run("GC", conf, ""))
    assert masqueraded(host) == {} and host_ends(host) == []


@needs_debian
def test_masquerading_with_another_plugins_addresses(host):
    pod = host.pod()
    conf = host.config("1.0.0", ipam={**ONE, "type": "host-local"}, ipMasq=True)
    fine(host.run("ADD", conf, "c0", pod))
    assert set(masqueraded(host)) == {"10.7.1.2"}
    pod.remove()
    fine(host.run("DEL", conf, "c0"))
    assert masqueraded(host) == {}


# -- IPAM of our own --------------------------------------------------------------------------

def test_excluded_and_reserved_addresses(host):
    conf = host.config("1.0.0", ipam={
        "subnet": "10.7.1.0/28", "exclude": ["10.7.1.2", "10.7.1.4-10.7.1.6", "10.7.1.8/30"],
        "reserve": ["10.7.1.13"]})
    given = []
    for i in range(4):
        pod = host.pod()
        answer = host.run("ADD", conf, f"c{i}", pod)
        if answer.code == 0:
            given.append(answer.json["ips"][0]["address"])
    assert given == ["10.7.1.3/28", "10.7.1.7/28", "10.7.1.12/28", "10.7.1.14/28"]
    answer = host.run("ADD", conf, "more", pod, ifname="net1")
    assert answer.json["code"] == 100 and "4 are held" in answer.json["msg"], answer
    status = host.run("STATUS", {**conf, "cniVersion": "1.1.0"}, "")
    assert status.json["code"] == 50 and "4 are held" in status.json["msg"], status
    fine(host.run("ADD", conf, "more", pod, ifname="net1", ARGS="IP=10.7.1.13"))
    answer = host.run("ADD", conf, "never", pod, ifname="net2", ARGS="IP=10.7.1.5")
    assert answer.json["code"] == 4 and "excluded" in answer.json["msg"], answer


def test_dual_stack_by_subnet6(host):
    conf = host.config("1.0.0", isDefaultGateway=True, ipam={
        "subnet": "10.7.1.0/24", "subnet6": "fd00:7::/64"})
    pod = host.pod()
    result = fine(host.run("ADD", conf, "c0", pod))
    assert [ip["address"] for ip in result["ips"]] == ["10.7.1.2/24", "fd00:7::2/64"]
    # At once, IPv6 as well: nobody waits for duplicates of an address. A reply has the time it needs.
    for netns, dev in (pod, "eth0"), (host.netns, "cni0"):
        (link,) = netns.ip("-json", "address", "show", "dev", dev)
        ready = [a for a in link["addr_info"] if a["scope"] == "global" and not a.get("tentative")]
        assert {a["family"] for a in ready} == {"inet", "inet6"}, (dev, link)
    for target in "10.7.1.1", "fd00:7::1":
        subprocess.run(["ip", "netns", "exec", pod.name, "ping", "-qc1", "-W30", target],
                       check=True, stdout=subprocess.DEVNULL)
    conf["ipam"]["subnet6"] = "10.8.1.0/24"
    assert host.run("ADD", conf, "c1", host.pod()).json["code"] == 7


def test_pods_of_two_ipv6_networks_on_one_bridge_reach_each_other(host):
    """Their first addresses differ in the first bytes only, and their MACs must differ all the same."""
    pods, macs = [], set()
    for i in 1, 2:
        pods.append(host.pod())
        result = fine(host.run("ADD", host.config("1.0.0", name=f"net{i}", isDefaultGateway=True,
                                                  ipam={"subnet": f"fd00:{i}::/64"}),
                               f"c{i}", pods[-1]))
        macs |= {interface["mac"] for interface in result["interfaces"]}
    assert len(macs) == 5, macs  # the bridge, and both ends of each link
    # The router may ask for neighbours once its own link-local address was looked for.
    subprocess.run(["ip", "netns", "exec", pods[0].name, "ping", "-qc1", "-w10", "fd00:2::2"],
                   check=True, stdout=subprocess.DEVNULL)


def test_a_bridge_made_here_has_a_mac_that_no_agent_takes_for_its_own(host):
    for i, (subnet, mac) in enumerate([("10.7.1.0/24", "02:72:0a:07:01:01"), ("fd00:7::/64", "02:72:")]):
        conf = host.config("1.0.0", name=f"net{i}", bridge=f"br{i}", isGateway=True,
                           ipam={"subnet": subnet})
        result = fine(host.run("ADD", conf, f"c{i}", host.pod()))
        (bridge,) = [link for link in result["interfaces"] if link["name"] == f"br{i}"]
        assert bridge["mac"].startswith(mac)


def test_resolv_conf(host):
    file = host.folder / "resolv.conf"
    file.write_text("# a\nnameserver 10.0.0.10\nnameserver fd00::10\nsearch a.b c.d\n"
                    "options ndots:5 edns0\ndomain a.b\n\nnonsense\n")
    conf = host.config("1.0.0", ipam={**ONE, "resolvConf": str(file)})
    assert fine(host.run("ADD", conf, "c0", host.pod()))["dns"] == {
        "nameservers": ["10.0.0.10", "fd00::10"], "search": ["a.b", "c.d"],
        "options": ["ndots:5", "edns0"], "domain": "a.b"}
    conf["ipam"]["resolvConf"] = str(host.folder / "none")
    pod = host.pod()
    assert host.run("ADD", conf, "c1", pod).json["code"] == 5
    assert links(pod) == ["lo"] and not (host.folder / "data/net/addresses/10.7.1.3").exists()


def test_a_route_with_all_its_fields(host):
    conf = host.config("1.1.0", ipam={**ONE, "routes": [
        {"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 99},
        {"dst": "10.8.0.0/16", "scope": 253, "gw": None}]}, isGateway=True)
    pod = host.pod()
    conf["ipam"]["routes"][1].pop("gw")
    answer = host.run("ADD", {**conf, "ipam": {**conf["ipam"],
                                               "routes": conf["ipam"]["routes"][:1]}}, "c0", pod)
    result = fine(answer)
    assert result["routes"] == [{"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1200,
                                 "priority": 7, "table": 99}]
    (route,) = pod.ip("-json", "route", "show", "table", "99")
    assert (route["dst"], route["gateway"], route["metric"]) == ("10.9.0.0/16", "10.7.1.1", 7)
    assert route["metrics"] == [{"mtu": 1300, "advmss": 1200}]


# -- the rest -----------------------------------------------------------------------------------

def test_behind_another_plugin(host):
    """prevResult is passed on, with ours behind it."""
    previous = {"cniVersion": "1.0.0", "interfaces": [{"name": "dummy0"}],
                "ips": [{"address": "10.1.1.1/24", "interface": 0}],
                "routes": [{"dst": "10.1.0.0/16"}], "dns": {"domain": "x"}}
    pod = host.pod()
    conf = host.config("1.0.0", ipam=ONE, isDefaultGateway=True, prevResult=previous)
    result = fine(host.run("ADD", conf, "c0", pod))
    assert [i["name"] for i in result["interfaces"]][0] == "dummy0"
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [
        ("10.1.1.1/24", 0), ("10.7.1.2/24", 3)]
    assert [r["dst"] for r in result["routes"]] == ["10.1.0.0/16", "0.0.0.0/0"]
    assert result["dns"] == {"domain": "x"}
    assert host.run("CHECK", {**conf, "prevResult": result}, "c0", pod).code in (0, 1)


@pytest.mark.parametrize("key, value", [
    ("vlan", 100), ("vlanTrunk", [{"id": 7}]), ("ipMasqBackend", "iptables"),
])
def test_a_key_that_would_change_the_network_is_refused(host, key, value):
    pod = host.pod()
    answer = host.run("ADD", host.config("1.0.0", ipam=ONE, **{key: value}), "c0", pod)
    assert answer.json["code"] == 2 and f"'{key}'" in answer.json["msg"], answer
    assert json.dumps(value, separators=(",", ":")) in answer.json["msg"]
    assert links(pod) == ["lo"]


@pytest.mark.parametrize("args, word", [
    ("A=b", "A"), ("IP", "IP"), ("IP=x", "x"), ("MAC=01:00:00:00:00:01", "MAC"),
    ("MAC=0:1:2:3:4:5", "MAC"), ("IgnoreUnknown=maybe", "maybe"),
])
def test_wrong_arguments(host, args, word):
    answer = host.run("ADD", host.config("1.0.0", ipam=ONE), "c0", host.pod(), ARGS=args)
    assert answer.json["code"] == 4, answer
    assert "CNI_ARGS" in answer.json["msg"] and word in answer.json["msg"], answer
    # DEL does what it can.
    assert host.run("DEL", host.config("1.0.0", ipam=ONE), "c0", ARGS=args).code == 0


def test_duplicate_addresses_are_detected_when_asked_for(host):
    conf = host.config("1.0.0", ipam={"subnet": "fd00:7::/64"}, enabledad=True)
    first, second = host.pod(), host.pod()
    fine(host.run("ADD", conf, "c0", first))
    (inside,) = first.ip("-json", "address", "show", "dev", "eth0")
    assert [a for a in inside["addr_info"] if "tentative" in a and a["scope"] == "global"] == []
    # What IPAM does not know of.
    first.ip("address", "add", "fd00:7::3/64", "dev", "eth0", "nodad")
    answer = host.run("ADD", conf, "c1", second)
    assert answer.code == 1 and "fd00:7::3" in answer.json["msg"], answer
    assert links(second) == ["lo"]


def test_gc_of_links_that_hold_no_address(host):
    """The state was lost: links of this network go, those of another stay."""
    pods = [host.pod() for _ in range(3)]
    conf = host.config("1.1.0", ipam=ONE)
    for i, pod in enumerate(pods):
        which = {**conf, "name": "other"} if i == 2 else conf
        which = {**which, "ipam": {**which["ipam"], "subnet": "10.8.1.0/24", "ranges": None}} \
            if i == 2 else which
        fine(host.run("ADD", which, f"c{i}", pod))
    subprocess.run(["rm", "-rf", str(host.folder / "data/net")], check=True)
    conf["cni.dev/valid-attachments"] = [{"containerID": "c0", "ifname": "eth0"}]
    fine(host.run("GC", conf, ""))
    assert [links(pod) for pod in pods] == [["lo", "eth0"], ["lo"], ["lo", "eth0"]]


@pytest.mark.parametrize("attached", [False, True], ids=["nowhere else", "held"])
def test_the_link_of_another_network_is_left_alone(host, attached):
    """Both networks give the attachment's link the same name."""
    pod = host.pod()
    keys = {"ipMasq": True, "macspoofchk": True}
    one = host.config("1.1.0", ipam=ONE, **keys)
    other = host.config("1.1.0", name="other", bridge="br1", ipam={"subnet": "10.8.1.0/24"},
                        **keys)
    if attached:  # as a DEL that was lost leaves it
        fine(host.run("ADD", other, "c1", pod))
        host.netns.ip("link", "delete", *host_ends(host))
    result = fine(host.run("ADD", one, "c1", pod))

    def assert_left():
        assert links(pod) == ["lo", "eth0"]
        fine(host.run("CHECK", {**one, "prevResult": result}, "c1", pod))
        assert (host.folder / "data/net/attachments/c1:eth0").is_symlink()
        assert result["ips"][0]["address"].split("/")[0] in masqueraded(host)

    where = host.pod()
    answer = host.run("ADD", other, "c1", where)
    assert answer.json["code"] == 103 and "another network" in answer.json["msg"], answer
    assert links(where) == ["lo"]
    assert_left()
    fine(host.run("GC", {**other, "cni.dev/valid-attachments": []}, ""))
    assert_left()
    fine(host.run("DEL", other, "c1", pod))
    assert_left()
    assert not (host.folder / "data/other/attachments/c1:eth0").is_symlink()
    fine(host.run("DEL", one, "c1", pod))
    assert links(pod) == ["lo"]
    fine(host.run("ADD", other, "c1", pod))
