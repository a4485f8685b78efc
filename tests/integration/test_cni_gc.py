# SPDX-License-Identifier: GPL-2.0-or-later
"""GC beside a running ADD, which the specification forbids a runtime: each is stopped at its system
calls in turn while the other one runs. No ADD that said yes loses anything.

With POPLIN_KILLS=1000 at every call; otherwise at a sample of them.
"""
import json
import os
import subprocess
from pathlib import Path

import pytest

from cnilib import Node, pod_links
from cluster import wait_for
from tracer import UNSANITIZED, WHOLE, Traced, record, stop_at, traced

pytestmark = UNSANITIZED
KEYS = {"ipMasq": True, "macspoofchk": True}
ELEMENTS = 3  # of a pod: its address, its link, its MAC
FLOCK = {"x86_64": "73", "aarch64": "32"}.get(os.uname().machine)  # its number


@pytest.fixture
def node():
    with Node() as made:
        made.keys = KEYS
        yield made


def gc_config(node):
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    return {**node.config("1.1.0"), "cni.dev/valid-attachments": valid}


def sample(calls, number):
    return calls if WHOLE else calls[::max(len(calls) // number, 1)]


def has_ended_or_is_locked_out(process):
    """In flock(2), as the one that is stopped has the lock."""
    try:
        call = Path(f"/proc/{process.pid}/syscall").read_text().split()[0]
    except (OSError, IndexError):
        call = ""
    return process.poll() is not None or call == FLOCK


def start_beside(node, command, conf, **variables):
    """Runs while another one is stopped, as far as that lets it."""
    process = node.start(command, conf, **variables)
    wait_for(lambda: has_ended_or_is_locked_out(process), f"{command} to end, or to wait", 60)
    return process


def end(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def assert_whole(node, pod, result):
    """The pod has what its ADD told of."""
    address = result["ips"][0]["address"].split("/")[0]
    assert node.held()[address] == "victim:eth0"
    assert pod_links(pod) == ["eth0"]
    answer = node.run("CHECK", node.config(prevResult=result), CONTAINERID="victim", IFNAME="eth0",
                      NETNS=pod.path)
    assert answer.code == 0, answer
    assert len(node.elements()) == 2 * ELEMENTS, node.elements()


def assert_only_kept(node, pod):
    assert set(node.held().values()) == set(node.attachments()) == {"kept:eth0"}
    assert len(node.links()) == 1 and pod_links(pod) == []
    assert len(node.elements()) == ELEMENTS, node.elements()


def before_its_end(calls):
    """Up to the look that ends an ADD: a GC that begins later knows of the pod, or takes it."""
    return calls[:max(i for i, call in enumerate(calls) if call[0] == "utimensat")]


def test_gc_while_an_add_is_stopped(node):
    """An ADD that began before the GC and ends after it either says no, or its pod is whole."""
    pod = node.pod()
    assert node.add("kept", node.pod()).code == 0
    calls = before_its_end(record(node, "ADD", pod))
    assert node.delete("victim").code == 0
    results = {0: 0, 1: 0}
    for call in sample(calls, 14):
        add = Traced(node, stop_at(call), "ADD", pod)
        wait_for(lambda: add.stopped() or add.has_ended(), f"{call} to come")
        if add.has_ended():  # without it: how often it polls is not always the same
            assert add.finish()[0] == 0 and node.delete("victim").code == 0
            continue
        gc = start_beside(node, "GC", gc_config(node))
        code, out, _ = add.run_on()
        assert code in (0, 1), (call, code, out)
        assert end(gc) == (0, "", ""), call
        results[code] += 1
        if code == 0:
            assert_whole(node, pod, json.loads(out))
        else:
            assert json.loads(out)["code"] in (11, 101), (call, out)
            assert_only_kept(node, pod)
        assert node.delete("victim").code == 0
        assert_only_kept(node, pod)
    assert min(results.values()) > 0, results


def test_a_pod_is_not_given_what_a_gc_took_before_its_link_was_there(node):
    """Another pod may have the address by then."""
    pod = node.pod()
    assert node.add("kept", node.pod()).code == 0
    ask = next(c for c in record(node, "ADD", pod) if c[0] in ("sendto", "sendmsg"))
    assert node.delete("victim").code == 0
    arguments = stop_at(ask)  # behind the address, and before the link
    arguments[1] += ",setns"
    add = Traced(node, arguments, "ADD", pod)
    wait_for(lambda: add.stopped(), f"{ask} to come")
    assert "victim:eth0" in node.held().values() and len(node.links()) == 1
    assert node.run("GC", gc_config(node)).code == 0
    assert set(node.held().values()) == {"kept:eth0"}
    code, out, trace = add.run_on()
    assert code == 1 and json.loads(out)["code"] == 11, (code, out)
    assert trace.count("setns(") == 1, trace  # back to the node: it never was in the pod
    assert_only_kept(node, pod)


def test_add_while_a_gc_is_stopped(node):
    """An ADD of that time says yes, and its pod stays; what was stale goes."""
    pod, gone = node.pod(), node.pod()
    assert node.add("kept", node.pod()).code == 0
    assert node.add("gone", gone).code == 0
    # From its first read on: by then it knows the time.
    calls = record(node, "GC", conf=gc_config(node))[1:]
    assert len(calls) > 50 and len(node.links()) == 1, calls
    for call in sample(calls, 14):
        assert node.add("gone", gone).code == 0
        gc = Traced(node, stop_at(call), "GC", conf=gc_config(node))
        wait_for(lambda: gc.stopped() or gc.has_ended(), f"{call} to come")
        add = start_beside(node, "ADD", node.config(), CONTAINERID="victim", IFNAME="eth0",
                           NETNS=pod.path)
        code, out, _ = gc.run_on()
        assert code == 0 and out == "", (call, out)
        code, out, err = end(add)
        assert code == 0, (call, out, err)
        assert_whole(node, pod, json.loads(out))
        assert node.delete("victim").code == 0
        assert_only_kept(node, pod)


def test_what_an_add_left_that_was_killed_goes_at_once(node):
    """The GC of a runtime that was started again, a moment later."""
    pod = node.pod()
    assert node.add("kept", node.pod()).code == 0
    add = Traced(node, stop_at(("utimensat", 2)), "ADD", pod)
    wait_for(lambda: add.stopped(), "the ADD to come to its end")
    subprocess.run(["kill", "-KILL", *add.stopped()], check=True)
    assert add.finish()[0] != 0 and len(node.links()) == 2
    answer = node.run("GC", gc_config(node))
    assert answer.code == 0, answer
    assert_only_kept(node, pod)


def test_gc_is_killed(node):
    """At each of its calls: what it was about to remove is found by a DEL, and by the next GC."""
    gone = node.pod()
    assert node.add("kept", node.pod()).code == 0
    assert node.add("gone", gone).code == 0
    calls = record(node, "GC", conf=gc_config(node))
    killed = 0
    for i, call in enumerate(sample(calls, 16)):
        assert node.add("gone", gone).code == 0
        code, _, _ = traced(node, ["-e", f"inject={call[0]}:signal=KILL:when={call[1]}"], "GC",
                            conf=gc_config(node))
        killed += code != 0
        answer = node.run("GC", gc_config(node)) if i % 2 else node.delete("gone")
        assert answer.code == 0, (call, answer)
        assert_only_kept(node, gone)
    assert killed >= 0.8 * len(sample(calls, 16)), killed


@pytest.mark.parametrize("error", ["EIO", "ENOMEM"])
def test_each_call_of_a_gc_fails_in_turn(node, error):
    """It says so, or has done all; never does it touch what is valid, and it can be repeated."""
    gone = node.pod()
    assert node.add("kept", node.pod()).code == 0
    assert node.add("gone", gone).code == 0
    calls = [call for call in record(node, "GC", conf=gc_config(node)) if call[0] != "exit_group"]
    failed = 0
    # The last one asks whether the address that is valid has an attachment.
    (*_, last) = [call for call in calls if call[0] == "readlinkat"]
    for name, number in [*sample(calls, 12), last]:
        assert node.add("gone", gone).code == 0
        code, out, _ = traced(node, ["-e", f"inject={name}:error={error}:when={number}"], "GC",
                              conf=gc_config(node))
        where = (name, number, code, out)
        assert code in (0, 1), where
        failed += code
        if code:
            assert name == "write" or json.loads(out)["code"] > 0, where
            assert node.run("GC", gc_config(node)).code == 0, where
        assert "kept:eth0" in node.attachments(), where
        assert_only_kept(node, gone)
    assert failed > 0
