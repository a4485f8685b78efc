# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pod may send, by the frames that arrive: from the first one on, with portIsolation and
macspoofchk, and by an interface that is left to somebody else."""
import json
import re
import subprocess
import time

import pytest

from cnilib import PLUGIN, Node
from machine import is_root
from test_cni_dropin import DEBIAN, ONE, Host
from test_cni_keys import fine, host_ends, masqueraded

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
]
GATEWAY = "10.7.1.1"


@pytest.fixture
def host():
    with Host(True) as made:
        yield made


def add(host, container, **keys):
    """A pod on the bridge: (namespace, address, MAC, configuration)."""
    conf = host.config("1.0.0", isGateway=True, ipam=ONE, **keys)
    pod = host.pod()
    answer = host.run("ADD", conf, container, pod)
    assert answer.code == 0, answer
    (mac,) = [i["mac"] for i in answer.json["interfaces"] if "sandbox" in i and i["sandbox"]]
    return pod, answer.json["ips"][0]["address"].split("/")[0], mac, conf


def reaches(pod, address, wait="1"):
    return subprocess.run(["ip", "netns", "exec", pod.name, "ping", "-qc1", f"-W{wait}", address],
                          stdout=subprocess.DEVNULL, check=False).returncode == 0


def set_mac(pod, mac):
    pod.ip("link", "set", "eth0", "address", mac)
    pod.ip("neighbour", "flush", "dev", "eth0")


@pytest.mark.parametrize("mtu", [1500, 1200])
def test_a_hosts_end_has_no_address_of_its_own(host, mtu):
    """What IPv6 gives to each link by itself costs the kernel a walk over all when one goes. With an
    MTU of less than 1,280 a link has no IPv6 at all, which is no reason to fail."""
    pod, address, _, _ = add(host, "a", mtu=mtu)
    beside, other, _, _ = add(host, "b", mtu=mtu)
    assert reaches(pod, other) and reaches(beside, address) and reaches(pod, GATEWAY)
    ports = host.netns.ip("-json", "address", "show", "type", "veth")
    assert len(ports) == 2
    assert [a["local"] for port in ports for a in port["addr_info"]] == []


def nft(host, *argv):
    return subprocess.run(["ip", "netns", "exec", host.netns.name, "nft", *argv], text=True,
                          capture_output=True, check=False)


def guards(host):
    """{set: [element]} of our table; {} without it."""
    done = nft(host, "-j", "list", "table", "bridge", "poplin_pods")
    if done.returncode:
        return {}
    sets = [item["set"] for item in json.loads(done.stdout)["nftables"] if "set" in item]
    return {s["name"]: [e["elem"] for e in s.get("elem", [])] for s in sets}


# -- portIsolation ------------------------------------------------------------------------

def test_isolated_pods_reach_the_gateway_but_not_each_other(host):
    first, first_address, _, _ = add(host, "c0", portIsolation=True)
    second, second_address, _, conf = add(host, "c1", portIsolation=True)
    free, free_address, _, _ = add(host, "c2")
    for pod in first, second, free:
        assert reaches(pod, GATEWAY, "5")
    assert not reaches(first, second_address) and not reaches(second, first_address)
    # It is between isolated ports alone.
    assert reaches(first, free_address, "5") and reaches(free, second_address, "5")
    fine(host.run("DEL", conf, "c1", second))


def test_isolated_hairpin(host):
    """Both flags of a port come in one message."""
    pod, address, _, _ = add(host, "c0", portIsolation=True, hairpinMode=True)
    (port,) = [link for link in host.netns.ip("-json", "-details", "link", "show")
               if link.get("master") == "cni0"]
    assert port["linkinfo"]["info_slave_data"]["isolated"]
    assert port["linkinfo"]["info_slave_data"]["hairpin"]
    assert reaches(pod, address, "5")


# -- macspoofchk --------------------------------------------------------------------------

@pytest.mark.skipif(not (DEBIAN / "bridge").exists(), reason=f"no plugins in {DEBIAN}")
def test_spoofed_frames_are_dropped_as_by_bridge():
    """Also those with the MAC of another pod; without the key they pass."""
    seen = []
    for ours in False, True:
        with Host(ours) as host:
            checked, _, mac, conf = add(host, "c0", macspoofchk=True)
            other, other_address, other_mac, _ = add(host, "c1", macspoofchk=True)
            free, _, _, _ = add(host, "c2")
            found = [reaches(checked, GATEWAY, "5"), reaches(checked, other_address, "5")]
            for forged in "02:11:22:33:44:55", other_mac:
                set_mac(checked, forged)
                found += [reaches(checked, GATEWAY), reaches(checked, other_address)]
            set_mac(checked, mac)
            set_mac(free, "02:11:22:33:44:66")
            found += [reaches(checked, GATEWAY, "5"), reaches(free, GATEWAY, "5")]
            assert host.run("DEL", conf, "c0", checked).code == 0
            found += [reaches(other, GATEWAY, "5")]
            seen.append(found)
    assert seen[1] == seen[0] == [True, True, False, False, False, False, True, True, True]


def test_not_one_forged_frame_arrives(host):
    """Of 100 broadcasts, each half with the right MAC, as the gateway's side counts them."""
    pod, _, mac, _ = add(host, "c0", macspoofchk=True)
    count = ("import socket,sys\n"
             "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(0x88b5))\n"
             "s.bind(('cni0',0x88b5)); s.settimeout(20); print('ready',flush=True)\n"
             "seen=[]\n"
             "while True:\n"
             "    frame=s.recv(100); seen.append(frame[6:12])\n"
             "    if frame[14:18]==b'last': break\n"
             "print(len(set(seen)),len(seen),seen[0].hex(':'))\n")
    send = ("import socket,sys\n"
            "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(('eth0',0))\n"
            "right=bytes.fromhex(sys.argv[1].replace(':',''))\n"
            "for i in range(100):\n"
            "    mac=right if i%2 else bytes([2,0,0,0,0,i])\n"
            "    s.send(b'\\xff'*6+mac+b'\\x88\\xb5'+(b'last' if i==99 else b'more')+bytes(46))\n")
    counter = subprocess.Popen(["ip", "netns", "exec", host.netns.name, "python3", "-c", count],
                               stdout=subprocess.PIPE, text=True)
    assert counter.stdout.readline() == "ready\n"
    subprocess.run(["ip", "netns", "exec", pod.name, "python3", "-c", send, mac], check=True)
    assert counter.communicate(timeout=30)[0].split() == ["1", "50", mac]
    assert counter.returncode == 0


@pytest.mark.parametrize("left", ("guarded", "senders"))
def test_half_of_what_checks_a_mac_goes_too(host, left):
    """Somebody removed the other half."""
    pod, _, mac, conf = add(host, "c0", macspoofchk=True)
    (port,) = host_ends(host)
    gone = f'"{port}"' if left == "senders" else f'"{port}" . {mac}'
    name = "guarded" if left == "senders" else "senders"
    done = nft(host, "delete", "element", "bridge", "poplin_pods", name, "{", gone, "}")
    assert done.returncode == 0, done.stderr
    assert len(guards(host)[left]) == 1
    fine(host.run("DEL", conf, "c0", pod))
    assert not any(guards(host).values())


def test_what_checks_macs_goes_with_its_pod(host):
    pods = [add(host, f"c{i}", macspoofchk=True) for i in range(3)]
    conf = pods[0][3]
    assert {name: len(elements) for name, elements in guards(host).items()} == {
        "guarded": 3, "senders": 3}
    # Without a namespace, and twice.
    pods[0][0].remove()
    fine(host.run("DEL", conf, "c0"))
    fine(host.run("DEL", conf, "c0"))
    assert sorted(e["val"]["concat"][1] if "concat" in e["val"] else "?"
                  for e in guards(host)["senders"]) == sorted(p[2] for p in pods[1:])
    # GC leaves what is valid, and another network's.
    other = {**conf, "name": "other", "ipam": {**conf["ipam"], "ranges": [[
        {"subnet": "10.7.1.0/24", "rangeStart": "10.7.1.200"}]]}}
    fine(host.run("ADD", other, "d0", host.pod()))
    gc = {**conf, "cniVersion": "1.1.0",
          "cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    fine(host.run("GC", gc, ""))
    comments = sorted(e["comment"].split()[1] for e in guards(host)["senders"])
    assert comments == ["net", "other"] and len(guards(host)["guarded"]) == 2
    assert reaches(pods[2][0], GATEWAY, "5")
    fine(host.run("GC", {**gc, "name": "other", "cni.dev/valid-attachments": []}, ""))
    fine(host.run("GC", {**gc, "cni.dev/valid-attachments": []}, ""))
    assert guards(host) == {"guarded": [], "senders": []}


def test_a_failed_add_leaves_nothing_in_nftables(host):
    """Neither before the pod is entered nor after: the rules are those of the node's namespace."""
    pod = host.pod()
    conf = host.config("1.0.0", ipam={**ONE, "routes": [{"dst": "10.9.0.0/16", "gw": "10.77.0.1"}]},
                       macspoofchk=True, ipMasq=True)
    answer = host.run("ADD", conf, "c0", pod)
    assert answer.code == 1 and "route" in answer.json["msg"], answer
    assert guards(host) == {"guarded": [], "senders": []} and masqueraded(host) == {}
    pod.ip("link", "add", "eth0", "type", "bridge")
    answer = host.run("ADD", conf, "c0", pod)
    assert answer.code == 1 and "eth0" in answer.json["msg"], answer
    assert guards(host) == {"guarded": [], "senders": []} and masqueraded(host) == {}


def test_what_a_killed_add_left_is_replaced(host):
    """All but the elements is gone, and the next pod of that name has another MAC."""
    pod, _, mac, conf = add(host, "c0", macspoofchk=True)
    host.netns.ip("link", "delete", [link["ifname"] for link in host.netns.ip(
        "-json", "link", "show") if link["ifname"].startswith("pop")][0])
    subprocess.run(["rm", "-rf", str(host.folder / "data")], check=True)
    conf["runtimeConfig"] = {"mac": "02:11:22:33:44:55"}
    fine(host.run("ADD", conf, "c0", pod))
    assert reaches(pod, GATEWAY, "5")
    set_mac(pod, mac)
    assert not reaches(pod, GATEWAY)
    assert len(guards(host)["guarded"]) == len(guards(host)["senders"]) == 1


def test_check_notices_that_macs_are_not_checked(host):
    pod, _, _, conf = add(host, "c0", macspoofchk=True)
    result = fine(host.run("ADD", conf, "c1", pod, ifname="eth1"))
    check = {**conf, "prevResult": result}
    fine(host.run("CHECK", check, "c1", pod, ifname="eth1"))
    (link,) = [i["name"] for i in result["interfaces"] if i["name"].startswith("pop")]
    assert nft(host, "delete", "element", "bridge", "poplin_pods", "guarded",
               f"{{ {link} }}").returncode == 0
    answer = host.run("CHECK", check, "c1", pod, ifname="eth1")
    assert answer.json["code"] == 102 and "'macspoofchk'" in answer.json["msg"], answer
    nft(host, "flush", "ruleset")
    answer = host.run("CHECK", check, "c1", pod, ifname="eth1")
    assert answer.json["code"] == 102 and link in answer.json["msg"], answer
    # What is gone need not be removed; the next ADD makes all of it anew.
    fine(host.run("DEL", conf, "c1", pod, ifname="eth1"))
    fine(host.run("ADD", conf, "c2", host.pod()))
    assert len(guards(host)["guarded"]) == 1


def test_macs_are_checked_with_64_adds_at_once(host):
    """The table is made once, and every pod has its elements."""
    conf = host.config("1.0.0", isGateway=True, ipam=ONE, macspoofchk=True, ipMasq=True)
    fine(host.run("ADD", {**conf, "macspoofchk": False, "ipMasq": False}, "first", host.pod()))
    pods = [host.pod() for _ in range(64)]
    started = time.monotonic()
    runs = [start(host, "ADD", conf, f"c{i}", pod) for i, pod in enumerate(pods)]
    assert [finish(run) for run in runs] == [0] * 64
    assert {name: len(e) for name, e in guards(host).items()} == {"guarded": 64, "senders": 64}
    runs = [start(host, "DEL", conf, f"c{i}", pod) for i, pod in enumerate(pods)]
    assert [finish(run) for run in runs] == [0] * 64
    assert guards(host) == {"guarded": [], "senders": []}
    assert time.monotonic() - started < 120


def start(host, command, conf, container, pod):
    """As host.run(), without waiting."""
    run = subprocess.Popen(
        ["/usr/bin/nsenter", f"--net={host.netns.path}", str(host.plugin)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0",
             "CNI_NETNS": pod.path, "CNI_PATH": str(DEBIAN)})
    run.stdin.write(json.dumps(conf))
    run.stdin.close()
    return run


def finish(run):
    text = run.stdout.read()
    return run.wait(timeout=60) or (text if "code" in text else 0)


# -- disableContainerInterface --------------------------------------------------------------

def test_the_pods_interface_is_left_down(host):
    pod = host.pod()
    conf = host.config("1.0.0", disableContainerInterface=True)
    result = fine(host.run("ADD", conf, "c0", pod))
    (inside,) = pod.ip("-json", "link", "show", "dev", "eth0")
    assert "UP" not in inside["flags"] and "ips" not in result
    fine(host.run("CHECK", {**conf, "prevResult": result}, "c0", pod))
    fine(host.run("DEL", conf, "c0", pod))
    answer = host.run("ADD", host.config("1.0.0", ipam=ONE, disableContainerInterface=True), "c1",
                      pod)
    assert answer.json["code"] == 7 and "'ipam'" in answer.json["msg"], answer


def test_the_first_packet_after_add_is_not_lost():
    """The kernel opens the host's end of a veth by work of its own, late where many are made. Whoever
    asks for an address (ARP) before that, and is not heard, asks again after a second."""
    add_and_ping = (f'"{PLUGIN}" >/dev/null && exec /usr/bin/nsenter --net="$CNI_NETNS" '
                    "/bin/ping -n -c 1 -W 5 10.2.1.1")
    with Node() as node:
        pods = [node.pod() for _ in range(32)]
        for turn in range(4):
            node.prefix = ["/bin/sh", "-c", add_and_ping]
            started = [node.start("ADD", node.config(), CONTAINERID=f"c{turn}-{i}", IFNAME="eth0",
                                  NETNS=pod.path) for i, pod in enumerate(pods)]
            for process in started:
                output = b"".join(process.communicate(timeout=60)).decode()
                took = re.search(r" time=([0-9.]+) ms", output)
                assert took and float(took[1]) < 900, output
            node.prefix = []
            for i in range(len(pods)):
                assert node.delete(f"c{turn}-{i}").code == 0


def test_a_bridge_with_stp_is_not_waited_for():
    """It has no carrier before a port of it went through listening and learning: 30 s by default."""
    with Node() as node:
        node.netns.ip("link", "set", node.bridge, "type", "bridge", "stp_state", "1")
        began = time.monotonic()
        assert node.add("c0", node.pod()).code == 0
        assert time.monotonic() - began < 4
        (bridge,) = node.netns.ip("-json", "link", "show", "dev", node.bridge)
        assert "NO-CARRIER" in bridge["flags"], bridge
