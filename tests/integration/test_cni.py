# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI plugin by itself, against the specification: every verb in every version, and its end."""
import json
import os
import random
import signal
import subprocess
import time

import pytest

from cnilib import PLUGIN, VERSIONS, Node, mac_of, pod_links
from machine import is_root

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
]

CHECKED = VERSIONS[VERSIONS.index("0.4.0"):]


@pytest.fixture
def node():
    with Node() as made:
        yield made


def assert_error(answer, code, *words, version="1.0.0"):
    """Exit status 1, and nothing but the specification's error on standard output."""
    assert answer.code == 1 and answer.stderr == "", answer
    assert set(answer.json) == {"cniVersion", "code", "msg", "details"}, answer
    assert answer.json["details"], answer
    assert answer.json["cniVersion"] == version, answer
    assert answer.json["code"] == code, answer
    for word in words:
        assert word in answer.json["msg"], answer


def assert_fine(answer):
    assert answer.code == 0 and answer.stderr == "", answer
    return answer.json


def assert_silent(answer):
    assert answer.code == 0 and answer.stdout == "" and answer.stderr == "", answer


def host_link(node):
    (name,) = node.links()
    return name


def expected_result(node, pod, version, address, length=24, family=4):
    name = host_link(node)
    default = {"dst": "0.0.0.0/0" if family == 4 else "::/0", "gw": node.gateway}
    if version in ("0.1.0", "0.2.0"):
        return {"cniVersion": version, "dns": {},
                f"ip{family}": {"ip": f"{address}/{length}", "gateway": node.gateway,
                                "routes": [default]}}
    mtu = {"mtu": node.mtu} if version == "1.1.0" else {}
    ips = {"interface": 2, "address": f"{address}/{length}", "gateway": node.gateway}
    if version in ("0.3.0", "0.3.1", "0.4.0"):
        ips["version"] = str(family)
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": node.bridge, "mac": mac_of(node.netns, node.bridge), **mtu},
            {"name": name, "mac": mac_of(node.netns, name), **mtu},
            {"name": "eth0", "mac": mac_of(pod, "eth0"), **mtu,
             "sandbox": pod.path},
        ],
        "ips": [ips],
        "routes": [default],
        "dns": {},
    }


# -- VERSION ------------------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
def test_version_answers_in_the_version_asked(node, version):
    answer = assert_fine(node.run("VERSION", {"cniVersion": version}))
    assert answer == {"cniVersion": version, "supportedVersions": VERSIONS}


@pytest.mark.parametrize("conf, version", [
    ("", "1.1.0"), ("{", "1.1.0"), ("[]", "1.1.0"), ('{"cniVersion":7}', "1.1.0"),
    ('{"cniVersion":"x"}', "1.1.0"), ('{"cniVersion":"9.9.9"}', "9.9.9"),
])
def test_version_answers_whatever_it_is_given(node, conf, version):
    answer = assert_fine(node.run("VERSION", conf))
    assert answer == {"cniVersion": version, "supportedVersions": VERSIONS}


def test_the_old_configuration_still_works(node):
    """That of pods which were made before the agent wrote "ipam"."""
    pod = node.pod()
    result = assert_fine(node.add("c1", pod, conf=node.old_config()))
    assert result == expected_result(node, pod, "1.0.0", "10.2.1.2")
    assert_silent(node.run("CHECK", node.config(prevResult=result), CONTAINERID="c1",
                           IFNAME="eth0", NETNS=pod.path))
    assert_silent(node.delete("c1", conf=node.old_config()))
    node.assert_empty()


# -- ADD, CHECK, DEL ----------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
def test_a_pods_life(node, version):
    pod = node.pod()
    result = assert_fine(node.add("c1", pod, version))
    assert result == expected_result(node, pod, version, "10.2.1.2")
    assert node.held() == {"10.2.1.2": "c1:eth0"}
    assert node.attachments() == {"c1:eth0": "10.2.1.2"}

    link = node.links()[host_link(node)]
    assert link["ifname"].startswith("pop") and link["master"] == node.bridge
    assert link["mtu"] == node.mtu and "UP" in link["flags"]
    assert link["linkinfo"]["info_kind"] == "veth"
    assert link["linkinfo"]["info_slave_data"]["hairpin"] is True
    (inside,) = pod.ip("-json", "address", "show", "dev", "eth0")
    assert inside["mtu"] == node.mtu and inside["operstate"] == "UP"
    assert inside["address"] == "02:70:0a:02:01:02"
    (address,) = [a for a in inside["addr_info"] if a["family"] == "inet"]
    assert (address["local"], address["prefixlen"], address["broadcast"]) \
        == ("10.2.1.2", 24, "10.2.1.255")
    (default,) = pod.ip("-json", "route", "show", "default")
    assert (default["gateway"], default["dev"]) == (node.gateway, "eth0")
    assert pod_links(pod) == ["eth0"]
    (lo,) = pod.ip("-json", "link", "show", "lo")
    assert "UP" in lo["flags"]
    subprocess.run(["ip", "netns", "exec", pod.name, "ping", "-qc1", "-W30", node.gateway],
                   check=True, stdout=subprocess.DEVNULL)

    check = node.run("CHECK", node.config(version, prevResult=result), CONTAINERID="c1",
                     IFNAME="eth0", NETNS=pod.path)
    if version in CHECKED:
        assert_silent(check)
    else:
        assert_error(check, 1, "0.4.0", version=version)
    assert_silent(node.delete("c1", version, NETNS=pod.path))
    node.assert_empty()
    assert pod_links(pod) == []
    assert_silent(node.delete("c1", version, NETNS=pod.path))


def test_ipv6():
    with Node(family=6) as node:
        pod = node.pod()
        result = assert_fine(node.add("c1", pod, "0.4.0"))
        assert result == expected_result(node, pod, "0.4.0", "fd00:2:0:1::2", 64, family=6)
        (inside,) = pod.ip("-json", "address", "show", "dev", "eth0")
        (address,) = [a for a in inside["addr_info"] if a["scope"] == "global"]
        assert (address["local"], address["prefixlen"]) == ("fd00:2:0:1::2", 64)
        assert "tentative" not in address
        (default,) = pod.ip("-json", "-6", "route", "show", "default")
        assert (default["gateway"], default["dev"]) == (node.gateway, "eth0")
        # At once: no time is lost on the detection of duplicates.
        subprocess.run(["ip", "netns", "exec", pod.name, "ping", "-qc1", "-W30", node.gateway],
                       check=True, stdout=subprocess.DEVNULL)
        assert_silent(node.run("CHECK", node.config("0.4.0", prevResult=result),
                               CONTAINERID="c1", IFNAME="eth0", NETNS=pod.path))
        assert_silent(node.delete("c1", "0.4.0"))
        node.assert_empty()


def test_a_second_interface_is_an_attachment_of_its_own(node):
    pod = node.pod()
    assert_fine(node.add("c1", pod))
    assert_fine(node.add("c1", pod, ifname="net1"))
    assert node.attachments() == {"c1:eth0": "10.2.1.2", "c1:net1": "10.2.1.3"}
    assert pod_links(pod) == ["eth0", "net1"]
    # As with the plugin bridge: both have a default route, and the last one is taken.
    assert [route["dev"] for route in pod.ip("-json", "route", "show", "default")] \
        == ["net1", "eth0"]
    assert_silent(node.delete("c1"))
    assert set(node.attachments()) == {"c1:net1"} and len(node.links()) == 1


def test_an_address_asked_for(node):
    first, second = node.pod(), node.pod()
    result = assert_fine(node.add("c1", first, ARGS="IgnoreUnknown=1;IP=10.2.1.77;K8S_POD_NAME=a"))
    assert result["ips"][0]["address"] == "10.2.1.77/24"
    assert_error(node.add("c2", second, ARGS="IP=10.2.1.77"), 100, "10.2.1.77", "c1")
    for wrong in "10.2.1.1", "10.9.9.9", "10.2.1.300", "":
        assert_error(node.add("c2", second, ARGS=f"IP={wrong}"), 4)
    assert pod_links(second) == [] and len(node.links()) == 1


def test_a_reused_address_meets_no_stale_neighbour(node):
    """Its MAC follows from the address: whoever knew the pod before reaches the next one."""
    entries = []
    for name in "c1", "c2":
        pod = node.pod()
        assert_fine(node.add(name, pod, ARGS="IP=10.2.1.9"))
        if name == "c2":  # known from before, and not asked for again
            assert len(entries) == 1 and mac_of(pod, "eth0") == entries[0]["lladdr"]
            node.netns.ip("neighbour", "replace", "10.2.1.9", "lladdr", entries[0]["lladdr"],
                          "dev", node.bridge, "nud", "permanent")
        subprocess.run(["ip", "netns", "exec", node.netns.name, "ping", "-qc1", "-W30",
                        "10.2.1.9"], check=True, stdout=subprocess.DEVNULL)
        entries = [e for e in node.netns.ip("-json", "neighbour", "show", "dev", node.bridge)
                   if e["dst"] == "10.2.1.9"]
        assert_silent(node.delete(name))


def test_a_second_add_leaves_the_first_intact(node):
    pod = node.pod()
    result = assert_fine(node.add("c1", pod))
    assert_error(node.add("c1", pod), 103, "c1:eth0", "10.2.1.2")
    assert_error(node.add("c1", node.pod()), 103)
    assert_silent(node.run("CHECK", node.config(prevResult=result), CONTAINERID="c1",
                           IFNAME="eth0", NETNS=pod.path))


# -- an ADD that fails leaves nothing -------------------------------------------------

def test_the_pods_interface_exists_already(node):
    pod = node.pod()
    pod.ip("link", "add", "eth0", "type", "bridge")
    assert_error(node.add("c1", pod), 101, "eth0")
    node.assert_empty()
    assert pod_links(pod) == ["eth0"]


def test_a_route_that_cannot_be_made(node):
    pod = node.pod()
    conf = node.config(ipam={"routes": [{"dst": "10.9.0.0/16", "gw": "10.77.0.1"}]})
    assert_error(node.add("c1", pod, conf=conf), 101, "route")
    node.assert_empty()
    assert pod_links(pod) == []


def test_a_missing_bridge(node):
    node.netns.ip("link", "delete", node.bridge)
    pod = node.pod()
    assert_error(node.add("c1", pod), 11, node.bridge)
    node.assert_empty()
    node.netns.ip("link", "add", node.bridge, "type", "veth", "peer", "name", "other")
    assert_error(node.add("c1", pod), 7, node.bridge)
    assert set(node.links()) == {"other"} and node.attachments() == {}


def test_a_missing_namespace(node):
    file = node.folder / "file"
    file.write_text("")
    fifo = node.folder / "fifo"
    os.mkfifo(fifo)
    assert_error(node.add("c1", "/run/netns/poplin-none"), 3, "/run/netns/poplin-none")
    for wrong in str(file), str(fifo), "/run", "/proc/self/ns/mnt":
        assert_error(node.add("c1", wrong), 4, wrong)
    assert_error(node.add("c1", None), 4, "CNI_NETNS")
    assert_error(node.add("c1", ""), 4, "CNI_NETNS")
    assert_error(node.add("c1", node.netns), 4, "host")
    node.assert_empty()


@pytest.mark.parametrize("seconds", [-1, None])
def test_an_expired_lease(node, seconds):
    pod = node.pod()
    assert_fine(node.add("before", pod))
    node.write_state(seconds)
    assert_error(node.add("c1", node.pod()), 11, "lease", node.subnet)
    assert_error(node.run("STATUS", node.config("1.1.0")), 50, "lease", version="1.1.0")
    assert set(node.attachments()) == {"before:eth0"}
    assert_silent(node.delete("before"))  # never in need of a lease
    node.assert_empty()


def test_a_node_without_state(node):
    (node.folder / "node.json").unlink()
    assert_error(node.add("c1", node.pod()), 11, "poplind")
    (node.folder / "node.json").write_text("{")
    assert_error(node.add("c1", node.pod()), 11, "node.json")
    node.write_state(subnet="10.2.9.0/24")
    assert_error(node.add("c1", node.pod()), 11, "10.2.9.0/24")
    node.assert_empty()
    assert_silent(node.delete("c1"))


def test_a_full_subnet():
    with Node(subnet="10.2.1.0/29") as node:
        for i in range(5):
            assert_fine(node.add(f"c{i}", node.pod()))
        pod = node.pod()
        assert_error(node.add("more", pod), 100, "10.2.1.0/29")
        assert pod_links(pod) == [] and len(node.links()) == 5
        assert_silent(node.delete("c3"))
        result = assert_fine(node.add("more", pod))
        assert result["ips"][0]["address"] == "10.2.1.5/29"


def test_a_state_that_cannot_be_written(node):
    """On a disk that was mounted read-only: nothing is given, nothing is taken for free."""
    pod, other = node.pod(), node.pod()
    result = assert_fine(node.add("c1", pod))
    ipam = node.folder / "ipam"
    node.prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c",
                   f'/bin/mount --bind {ipam} {ipam} && /bin/mount -o remount,bind,ro {ipam} && '
                   'exec "$0"']
    assert_error(node.add("c2", other), 5, str(ipam), "Read-only")
    assert pod_links(other) == []
    assert_silent(node.run("CHECK", node.config(prevResult=result), CONTAINERID="c1", IFNAME="eth0",
                           NETNS=pod.path))
    assert_error(node.delete("c1"), 5, str(ipam), "Read-only")
    assert node.held() == {"10.2.1.2": "c1:eth0"}
    node.prefix = []
    result = assert_fine(node.add("c2", other))
    assert result["ips"][0]["address"] == "10.2.1.3/24"
    for name in "c1", "c2":
        assert_silent(node.delete(name))
    node.assert_empty()


def test_a_result_that_cannot_be_written(node):
    """A runtime that is gone never learns of the address, and would never give it back."""
    pod = node.pod()
    read, write = os.pipe()
    os.close(read)
    process = node.start("ADD", node.config(), stdout=write, CONTAINERID="c1", IFNAME="eth0",
                         NETNS=pod.path)
    os.close(write)
    process.communicate(timeout=60)
    assert process.returncode == 1
    node.assert_empty()
    with open("/dev/full", "wb") as full:
        process = node.start("ADD", node.config(), stdout=full, CONTAINERID="c1", IFNAME="eth0",
                             NETNS=pod.path)
        process.communicate(timeout=60)
    assert process.returncode == 1
    node.assert_empty()
    assert pod_links(pod) == []


# -- DEL ------------------------------------------------------------------------------

def test_del_needs_no_namespace(node):
    gone, kept = node.pod(), node.pod()
    for name, pod in ("c1", gone), ("c2", kept):
        assert_fine(node.add(name, pod))
    path = gone.path
    gone.remove()
    assert_silent(node.delete("c1", NETNS=path))
    assert_silent(node.delete("c2"))  # no CNI_NETNS at all
    node.assert_empty()
    assert pod_links(kept) == []


def test_del_without_anything(node):
    node.netns.ip("link", "delete", node.bridge)
    (node.folder / "node.json").unlink()
    assert_silent(node.delete("never", NETNS="/run/netns/poplin-none"))
    assert not (node.folder / "ipam").exists()


def test_del_of_half_an_attachment(node):
    pod = node.pod()
    assert_fine(node.add("c1", pod))
    node.netns.ip("link", "delete", host_link(node))
    assert_silent(node.delete("c1"))
    node.assert_empty()
    assert_fine(node.add("c1", pod))
    (node.ipam / "addresses" / "10.2.1.3").unlink()
    assert_silent(node.delete("c1"))
    node.assert_empty()


def test_a_link_left_over_is_replaced(node):
    pod = node.pod()
    assert_fine(node.add("c1", pod))
    (node.ipam / "addresses" / "10.2.1.2").unlink()  # half made
    result = assert_fine(node.add("c1", node.pod()))
    assert result["ips"][0]["address"] == "10.2.1.3/24"
    assert len(node.links()) == 1 and pod_links(pod) == []


# -- CHECK ----------------------------------------------------------------------------

@pytest.mark.parametrize("version", CHECKED)
def test_check_finds_what_changed(node, version):
    def check(previous, netns=None):
        return node.run("CHECK", node.config(version, prevResult=previous), CONTAINERID="c1",
                        IFNAME="eth0", NETNS=netns or pod.path)

    pod = node.pod()
    result = assert_fine(node.add("c1", pod, version))
    name = host_link(node)
    changes = [
        (pod, "route delete default", f"route add default via {node.gateway}", "default"),
        (pod, "link set eth0 down",
         f"link set eth0 up;route add default via {node.gateway}", "down"),
        (pod, "address delete 10.2.1.2/24 dev eth0",
         f"address add 10.2.1.2/24 dev eth0;route add default via {node.gateway}", "10.2.1.2/24"),
        (pod, "link set eth0 down name eth9",
         f"link set eth9 name eth0 up;route add default via {node.gateway}", "eth0"),
        (node.netns, f"link set {name} nomaster", f"link set {name} master {node.bridge}", name),
        (node.netns, f"link set {name} down", f"link set {name} up", name),
        (node.netns, f"link set {node.bridge} down", f"link set {node.bridge} up", node.bridge),
        (node.netns, f"address delete {node.gateway}/24 dev {node.bridge}",
         f"address add {node.gateway}/24 dev {node.bridge}", f"{node.gateway}/24"),
    ]
    for where, spoil, mend, word in changes:
        where.ip(*spoil.split())
        assert_error(check(result), 102, word, version=version)
        for command in mend.split(";"):
            where.ip(*command.split())
        if spoil.endswith(f"{name} down"):
            pod.ip("route", "replace", "default", "via", node.gateway)
        assert_silent(check(result))

    assert_error(check(None), 7, "prevResult", version=version)
    assert_error(check([]), 7, "prevResult", version=version)
    assert_error(check({}), 102, "eth0", version=version)
    other = json.loads(json.dumps(result))
    other["ips"][0]["address"] = "10.2.1.3/24"
    assert_error(check(other), 102, "10.2.1.2", version=version)
    assert_error(check(result, "/run/netns/poplin-none"), 102, version=version)
    node.write_state(-1)
    assert_error(check(result), 11, "lease", version=version)
    node.write_state()
    holder = node.ipam / "addresses" / "10.2.1.2"
    holder.unlink()
    holder.symlink_to("other:eth0")
    assert_error(check(result), 102, "10.2.1.2", "other:eth0", version=version)
    holder.unlink()
    node.delete("c1")
    assert_error(check(result), 102, "c1:eth0", version=version)


# -- STATUS and GC ----------------------------------------------------------------------

def test_status(node):
    assert_silent(node.run("STATUS", node.config("1.1.0")))
    for version in VERSIONS[:-1]:
        assert_error(node.run("STATUS", node.config(version)), 1, "1.1.0", version=version)
    node.write_state(-1)
    assert_error(node.run("STATUS", node.config("1.1.0")), 50, "lease", version="1.1.0")
    # Without the bridge those who are attached have no network either.
    node.netns.ip("link", "set", node.bridge, "down")
    assert_error(node.run("STATUS", node.config("1.1.0")), 51, node.bridge, version="1.1.0")
    node.netns.ip("link", "delete", node.bridge)
    assert_error(node.run("STATUS", node.config("1.1.0")), 51, node.bridge, version="1.1.0")


def test_gc(node):
    pods = {f"c{i}": node.pod() for i in range(4)}
    for name, pod in pods.items():
        assert_fine(node.add(name, pod, "1.1.0"))
    pods["c2"].remove()
    (node.ipam / "addresses" / "10.2.1.5").unlink()  # c3 is half made
    valid = [{"containerID": "c0", "ifname": "eth0"}, {"containerID": "c1", "ifname": "eth9"}]

    for wrong in None, {}, [1], [{"containerID": "c0"}]:  # None: it is missing
        conf = node.config("1.1.0", **{"cni.dev/valid-attachments": wrong})
        assert_error(node.run("GC", conf), 7, version="1.1.0")
    for version in VERSIONS[:-1]:
        assert_error(node.run("GC", node.config(version, **{"cni.dev/valid-attachments": []})), 1,
                     version=version)
    assert len(node.attachments()) == 4

    conf = node.config("1.1.0", **{"cni.dev/valid-attachments": valid})
    assert_silent(node.run("GC", conf))
    assert node.attachments() == {"c0:eth0": "10.2.1.2"}
    assert node.held() == {"10.2.1.2": "c0:eth0"}
    assert len(node.links()) == 1 and pod_links(pods["c0"]) == ["eth0"]
    conf["cni.dev/valid-attachments"] = []
    assert_silent(node.run("GC", conf))
    assert_silent(node.run("GC", conf))
    node.assert_empty()


def test_gc_takes_null_for_no_attachments(node):
    """libcni writes a nil slice so: no pod is left."""
    pod = node.pod()
    assert_fine(node.add("c1", pod, "1.1.0"))
    conf = {**node.config("1.1.0"), "cni.dev/valid-attachments": None}
    assert json.dumps(conf).endswith(': null}')
    assert_silent(node.run("GC", conf))
    node.assert_empty()
    assert pod_links(pod) == []


# -- what it is given ----------------------------------------------------------------------

NOT_JSON = {
    "empty": b"", "cut": b"{", "list": b"[]", "null": b"null", "no text": b"\xff\xfe",
    "twice": b'{"a":1,"a":2}', "more": b"{}garbage", "deep": b"[" * 100000,
    "long": b" " * (1024 * 1024 + 1),
}


@pytest.mark.parametrize("conf", NOT_JSON.values(), ids=NOT_JSON)
def test_not_json(node, conf):
    for command in "ADD", "DEL", "CHECK":
        answer = node.run(command, conf, CONTAINERID="c1", IFNAME="eth0",
                          NETNS="/run/netns/poplin-none")
        assert_error(answer, 6, version="1.1.0")


@pytest.mark.parametrize("version", ["1.2.0", "2.0.0", "0.0.9", "1.0", 1.0, [], "x"])
def test_a_version_that_is_not_spoken(node, version):
    conf = node.config()
    conf["cniVersion"] = version
    if version is None:
        del conf["cniVersion"]
    for command in "ADD", "DEL", "CHECK", "STATUS", "GC":
        answer = node.run(command, conf, CONTAINERID="c1", IFNAME="eth0",
                          NETNS="/run/netns/poplin-none")
        assert_error(answer, 1, "cniVersion", "0.1.0", "1.1.0", version="1.1.0")


@pytest.mark.parametrize("key, values", [
    ("name", [None, "", "../x", "a/b", ".", "-a", 7, "x" * 300]),
    ("network", ["10.2.0.0", "10.2.0.1/16", 1]),
    ("bridge", ["x" * 16, {}]),
    ("mtu", [-1, 65536, "1500", 1.5]),
    ("stateDir", ["run/poplin", "/" + "x" * 600]),
])
def test_a_wrong_configuration(node, key, values):
    pod = node.pod()
    for value in values:
        answer = node.add("c1", pod, conf=node.config(**{key: value}))
        assert_error(answer, 7, key)
    node.assert_empty()


def test_keys_that_are_not_ours_are_left_alone(node):
    conf = node.config(runtimeConfig={"portMappings": []}, dns={}, args={"cni": {}, "x": 1},
                       capabilities={"mac": True}, ours=False, vlan=0, macspoofchk=False)
    assert_fine(node.add("c1", node.pod(), conf=conf))


@pytest.mark.parametrize("variables, word", [
    ({"CONTAINERID": None}, "CNI_CONTAINERID"),
    ({"CONTAINERID": ""}, "CNI_CONTAINERID"),
    ({"CONTAINERID": "../c1"}, "CNI_CONTAINERID"),
    ({"CONTAINERID": "c:1"}, "CNI_CONTAINERID"),
    ({"CONTAINERID": "-c1"}, "CNI_CONTAINERID"),
    ({"CONTAINERID": "c" * 300}, "CNI_CONTAINERID"),
    ({"CONTAINERID": b"c\xff\xc3"}, "CNI_CONTAINERID"),
    ({"IFNAME": None}, "CNI_IFNAME"),
    ({"IFNAME": ""}, "CNI_IFNAME"),
    ({"IFNAME": "."}, "CNI_IFNAME"),
    ({"IFNAME": ".."}, "CNI_IFNAME"),
    ({"IFNAME": "a/b"}, "CNI_IFNAME"),
    ({"IFNAME": "a:b"}, "CNI_IFNAME"),
    ({"IFNAME": "a b"}, "CNI_IFNAME"),
    ({"IFNAME": "eth%d"}, "CNI_IFNAME"),
    ({"IFNAME": "x" * 16}, "CNI_IFNAME"),
    ({"IFNAME": b"\xff"}, "CNI_IFNAME"),
    ({"NETNS": b"/run/\xff\xfe"}, "CNI_NETNS"),
    ({"NETNS": "/run/ä/" + ("é" * 100 + "/") * 4}, "/run/ä"),
])
def test_wrong_variables(node, variables, word):
    pod = node.pod()
    given = {"CONTAINERID": "c1", "IFNAME": "eth0", "NETNS": pod.path, **variables}
    answer = node.run("ADD", node.config(), **given)
    # A path in UTF-8 that is merely not there is a container that is gone.
    assert answer.json and answer.json["code"] == (3 if word == "/run/ä" else 4), answer
    assert_error(answer, answer.json["code"], word)
    node.assert_empty()


def test_an_unknown_verb(node):
    assert_error(node.run("EXPLODE", node.config()), 4, "CNI_COMMAND", "EXPLODE", version="1.1.0")
    for command in None, "":
        answer = node.run(command, node.config())
        assert answer.code == 1 and "CNI_COMMAND" in answer.stderr
        assert answer.json["code"] == 4 and "CNI_COMMAND" in answer.json["msg"]


# -- many, and killed ---------------------------------------------------------------------

def test_200_pods(node):
    """Ten at a time; each has an address of its own and reaches the gateway."""
    pods = {f"c{i}": node.pod() for i in range(200)}
    names = list(pods)
    for first in range(0, len(names), 10):
        started = [(name, node.start("ADD", node.config(), CONTAINERID=name, IFNAME="eth0",
                                     NETNS=pods[name].path)) for name in names[first:first + 10]]
        for name, process in started:
            stdout, stderr = process.communicate(timeout=60)
            assert process.returncode == 0, (name, stdout, stderr)
    assert len(node.held()) == len(node.attachments()) == len(node.links()) == 200
    for name in names[::20]:
        subprocess.run(["ip", "netns", "exec", pods[name].name, "ping", "-qc1", "-W30",
                        node.gateway], check=True, stdout=subprocess.DEVNULL)
    for first in range(0, len(names), 10):
        started = [node.start("DEL", node.config(), CONTAINERID=name, IFNAME="eth0")
                   for name in names[first:first + 10]]
        for process in started:
            stdout, stderr = process.communicate(timeout=60)
            assert process.returncode == 0, (stdout, stderr)
    node.assert_empty()


def test_killed_at_any_moment(node):
    """A DEL takes away whatever a killed ADD or DEL left, and the next ADD works."""
    pod = node.pod()
    times = []
    for _ in range(5):  # a machine with other work may be slow at one of them
        began = time.monotonic()
        assert_fine(node.add("c0", pod))
        times.append(time.monotonic() - began)
        assert_silent(node.delete("c0"))
    took = min(times)
    moments = random.Random(20)
    cut = {"ADD": 0, "DEL": 0}
    for i in range(80):
        command = "DEL" if i % 4 == 3 else "ADD"
        if command == "DEL":
            assert_fine(node.add("victim", pod))
        process = node.start(command, node.config(), CONTAINERID="victim", IFNAME="eth0",
                             NETNS=pod.path)
        time.sleep(moments.uniform(0, took * 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        cut[command] += process.returncode == -signal.SIGKILL
        assert_silent(node.delete("victim"))
        node.assert_empty()
        assert pod_links(pod) == []
    assert cut["ADD"] > 5 and cut["DEL"] > 0, cut
    assert_fine(node.add("victim", pod))
