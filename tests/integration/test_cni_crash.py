# SPDX-License-Identifier: GPL-2.0-or-later
"""The CNI plugin killed at each system call and at random, and each call of it failing in turn.

Whatever the moment, a DEL takes everything away, and the next ADD works. The long forms, which take
every call with every kind of configuration:

    POPLIN_KILLS=1000 POPLIN_CHURN=10000 pytest tests/integration/test_cni_crash.py
"""
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnilib import PLUGIN, Node, pod_links
from cluster import wait_for
from tracer import KILLS, UNSANITIZED, WHOLE, record, traced

pytestmark = UNSANITIZED
CHURN = int(os.environ.get("POPLIN_CHURN", "600"))
PARALLEL = 64

@pytest.fixture
def node():
    with Node() as made:
        yield made


def assert_cleared(node, pod):
    """What is left is found by a DEL, and then nothing is there."""
    answer = node.delete("victim")
    assert answer.code == 0, answer
    node.assert_empty()
    assert pod_links(pod) == []
    assert not node.keys or node.elements() == []


# "first": the one that makes the folders, the tables and, as a drop-in, the bridge; "guarded": with all
# that nftables does; "dual": IPv4 and IPv6; "drop-in": dual and masqueraded, without an agent.
KINDS = ["first ADD", "ADD", "DEL", "guarded first ADD", "guarded DEL"]
SAMPLED = ["dual first ADD", "drop-in first ADD", "drop-in DEL"]
if WHOLE:
    SAMPLED += ["dual ADD", "dual DEL", "drop-in ADD"]
ERRORS = [(3, "EIO"), (7, "ENOSPC")] + ([(5, "ENOMEM")] if WHOLE else [])
GATEWAY6 = "fd00:2:0:1::1/64"


def configure(node, kind):
    """What the node is like; once."""
    node.sets = 1
    if "guarded" in kind:
        node.keys = {"ipMasq": True, "macspoofchk": True}
    if "dual" in kind or "drop-in" in kind:
        node.sets = 2
        node.keys = {"ipam": {"type": "poplin", "dataDir": str(node.folder / "ipam"), "ranges": [
            [{"subnet": node.subnet}], [{"subnet": "fd00:2:0:1::/64"}]]}}
        node.netns.ip("address", "add", GATEWAY6, "dev", node.bridge, "nodad")
    if "drop-in" in kind:
        node.netns.ip("link", "delete", node.bridge)
        node.bridge = "made0"
        node.keys.update({"stateDir": None, "network": None, "bridge": node.bridge, "ipMasq": True})


def prepare(node, pod, kind):
    """What is there before the run in question; returns its command."""
    if "first" in kind:
        shutil.rmtree(node.folder / "ipam", ignore_errors=True)
        subprocess.run(["ip", "netns", "exec", node.netns.name, "nft", "flush", "ruleset"],
                       check=True)
        if "drop-in" in kind:
            node.netns.ip("link", "delete", node.bridge, check=False)  # there may be none yet
    if "DEL" in kind:
        assert node.add("victim", pod).code == 0
    return kind.split()[-1]


def each_moment(node, pod, kind, number=0):
    """The calls; of what is sampled some of them, others for another number."""
    configure(node, kind)
    assert node.add("victim", pod).code == 0 and node.delete("victim").code == 0
    calls = record(node, prepare(node, pod, kind), pod)
    node.delete("victim")
    assert len(calls) > 20, calls
    step = 1 if WHOLE or kind not in SAMPLED else len(calls) // 8
    return calls[number % step::step]


@pytest.mark.parametrize("kind", KINDS + SAMPLED)
def test_killed_at_each_system_call(node, kind):
    pod = node.pod()
    calls = each_moment(node, pod, kind)
    killed = 0
    for name, number in calls:
        command = prepare(node, pod, kind)
        code, _, _ = traced(node, ["-e", f"inject={name}:signal=KILL:when={number}"], command, pod)
        killed += code != 0
        assert_cleared(node, pod)
    assert killed >= len(calls) * 0.9, (killed, len(calls))
    assert node.add("victim", pod).code == 0


@pytest.mark.parametrize("kind", KINDS + SAMPLED)
@pytest.mark.parametrize("number, error", ERRORS, ids=[error for _, error in ERRORS])
def test_each_call_fails_in_turn(node, kind, number, error):
    """A failed ADD says so and leaves nothing, not even for DEL; a failed DEL can be repeated."""
    pod = node.pod()
    calls = [call for call in each_moment(node, pod, kind, number) if call[0] != "exit_group"]
    failed = 0
    for name, nth in calls:
        command = prepare(node, pod, kind)
        code, out, _ = traced(node, ["-e", f"inject={name}:error={error}:when={nth}"], command, pod)
        where = (name, nth, code, out)
        assert code in (0, 1), where
        if code:
            failed += 1
            # The one call that cannot tell of its own failure is the write of the telling.
            assert name == "write" or json.loads(out)["code"] > 0, where
        if command == "ADD" and code:
            wait_for(lambda: not node.links(), lambda: f"nothing to be left after {where}", 5)
            # Where the taking back itself met a failure the error says what is left, for DEL.
            if "could not be taken back" not in out:
                assert node.held() == {}, where
                assert pod_links(pod) == [], where
                assert not node.keys or node.elements() == [], where
        elif code == 0:
            assert len(node.held()) == node.sets * (command == "ADD"), where
            assert len(node.links()) == (command == "ADD"), where
        assert_cleared(node, pod)
    assert failed > (0 if kind in SAMPLED else 10), failed


def test_each_answer_of_the_kernel_is_a_refusal(node):
    """The kernel itself says no, to each kind of request: names taken, places gone, limits met."""
    def refused(word, **variables):
        answer = node.add("victim", pod, **variables)
        assert answer.code == 1 and word in answer.json["msg"], answer
        assert node.held() == {} and node.attachments() == {}
        assert [name for name in node.links() if name.startswith("pop")] == []
        answer = node.delete("victim")
        assert answer.code == 0, answer

    pod = node.pod()
    pod.ip("link", "add", "eth0", "type", "bridge")
    refused("eth0")
    assert pod_links(pod) == ["eth0"]
    pod.ip("link", "delete", "eth0")
    refused("route", conf=node.config(ipam={"routes": [{"dst": "10.9.0.0/16",
                                                        "gw": "10.77.0.1"}]}))
    node.netns.ip("link", "delete", node.bridge)
    refused(node.bridge)
    node.netns.ip("link", "add", node.bridge, "type", "veth", "peer", "name", "other")
    refused(node.bridge)
    node.netns.ip("link", "delete", node.bridge)


def test_an_address_is_freed_after_its_link(node):
    """The kernel's word that the link is unregistered comes first, whoever gets it."""
    pod = node.pod()
    for _ in range(5):
        assert node.add("victim", pod).code == 0
        code, out, trace = traced(node, ["-s", "99", "-e", "trace=?recvmsg,?unlinkat"], "DEL", pod)
        assert code == 0, (out, trace)
        lines = trace.splitlines()
        (freed,) = [i for i, line in enumerate(lines) if '"10.2.1.' in line and "unlinkat(" in line]
        # To the parent as a notification, or as the answer to the child's request.
        gone = [i for i, line in enumerate(lines) if "RTM_DELLINK" in line and "ifi_family=AF_UNSPEC" in line]
        assert gone and gone[0] < freed, trace
        assert_cleared(node, pod)


def test_del_returns_when_the_link_is_gone(node):
    """And holds the runtime up no longer: its standard output is closed by then."""
    pods = {f"c{i}": node.pod() for i in range(20)}
    for name, pod in pods.items():
        assert node.add(name, pod).code == 0
    for name, pod in pods.items():
        process = node.start("DEL", node.config(), CONTAINERID=name, IFNAME="eth0")
        out, _ = process.communicate(timeout=60)  # until the pipe is closed by all
        assert process.returncode == 0, out
        # No waiting here: the link is off the node, and out of the pod, before DEL returns.
        assert pod_links(pod) == []
    node.assert_empty()
    assert not children_left()


def children_left():
    """Processes of the plugin that still run."""
    left = []
    for path in Path("/proc").glob("[0-9]*/exe"):
        try:
            if os.readlink(path) == str(PLUGIN) and ppid(path.parent) == 1:
                left.append(path)
        except OSError:
            continue
    return left and not wait_for(lambda: not [p for p in left if p.exists()], "children to end", 5)


def ppid(path):
    return int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])


def test_killed_at_random(node):
    """POPLIN_KILLS times: an ADD or a DEL that is killed at some moment of its life."""
    pod = node.pod()
    moments = random.Random(5)
    longest = {"ADD": 0, "DEL": 0}
    killed, turns = collections.Counter(ADD=0, DEL=0), 0
    # At least so many of each: on a quick machine a DEL is mostly over before the signal comes.
    while sum(killed.values()) < KILLS or min(killed.values()) <= KILLS / 5:
        command = moments.choice(["ADD", "DEL"])
        if command == "DEL":
            assert node.add("victim", pod).code == 0
        process = node.start(command, node.config(), CONTAINERID="victim", IFNAME="eth0",
                             NETNS=pod.path)
        started = time.monotonic()
        if turns >= 6:  # the first ones show how long it takes
            time.sleep(moments.uniform(0, longest[command]))
            process.kill()
        process.communicate(timeout=60)
        if turns < 6:
            longest[command] = max(longest[command], time.monotonic() - started)
        killed[command] += process.returncode == -signal.SIGKILL
        turns += 1
        assert turns < 20 * KILLS + 100, killed
        assert_cleared(node, pod)


def test_64_at_once(node):
    """ADDs, then DELs, then DELs and ADDs together: no address twice, none lost."""
    pods = {f"c{i}": node.pod() for i in range(PARALLEL)}
    config = node.config()

    def all_at_once(command, names):
        started = [(name, node.start(command, config, CONTAINERID=name, IFNAME="eth0",
                                     NETNS=pods[name].path)) for name in names]
        results = {}
        for name, process in started:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, (command, name, out, err)
            results[name] = json.loads(out)["ips"][0]["address"] if out else None
        return results

    added = all_at_once("ADD", pods)
    assert len(set(added.values())) == PARALLEL
    assert len(node.held()) == len(node.links()) == PARALLEL
    all_at_once("DEL", pods)
    node.assert_empty()
    half = list(pods)[:PARALLEL // 2]
    rest = list(pods)[PARALLEL // 2:]
    all_at_once("ADD", half)
    with ThreadPoolExecutor(2) as pool:
        gone, came = (pool.submit(all_at_once, *what) for what in (("DEL", half), ("ADD", rest)))
        gone.result()
        assert len(set(came.result().values())) == len(rest)
    assert len(node.held()) == len(node.links()) == len(rest)
    # The same one again and again, all at once: each of them is fine, and one is enough.
    again = [node.start("DEL", config, CONTAINERID=rest[0], IFNAME="eth0") for _ in range(8)]
    for process in again:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
    all_at_once("DEL", rest)
    node.assert_empty()


def test_churn(node):
    """POPLIN_CHURN pods through a /24, 200 of them there at a time: never one address for two."""
    moments = random.Random(24)
    spare = [node.pod() for _ in range(208)]
    there, made = {}, 0
    config = node.config()

    def add(name, pod):
        return name, pod, node.add(name, pod, conf=config)

    def remove(name):
        return name, node.delete(name, conf=config)

    with ThreadPoolExecutor(8) as pool:
        while made < CHURN:
            batch = [(f"c{made + i}", spare.pop()) for i in range(8)]
            made += len(batch)
            for name, pod, answer in pool.map(lambda b: add(*b), batch):
                assert answer.code == 0, (name, answer)
                address = answer.json["ips"][0]["address"]
                assert address not in {a for a, _ in there.values()}, (name, address)
                there[name] = address, pod
            if len(spare) < 8:
                leaving = moments.sample(list(there), 8 if made < CHURN else len(there))
                for name, answer in pool.map(remove, leaving):
                    assert answer.code == 0, (name, answer)
                    spare.append(there.pop(name)[1])
        assert set(node.held()) == {a.split("/")[0] for a, _ in there.values()}
        for name, answer in pool.map(remove, list(there)):
            assert answer.code == 0, (name, answer)
    node.assert_empty()


def test_the_child_holds_the_socket_of_nftables(node):
    """Or closing it would make DEL wait for what the kernel has left to do: 20 ms."""
    node.keys = {"ipMasq": True, "macspoofchk": True}
    pod = node.pod()
    assert node.add("victim", pod).code == 0
    code, out, trace = traced(node, ["-e", "trace=socket,clone,clone3,fork,vfork"], "DEL", pod)
    assert code == 0, out
    calls = [("nftables" if "NETLINK_NETFILTER" in line else "child" if "socket(" not in line else "")
             for line in trace.splitlines()]
    assert calls.count("nftables") == 1 and calls.index("nftables") < calls.index("child"), trace
    assert node.elements() == []
