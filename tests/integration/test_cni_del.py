# SPDX-License-Identifier: GPL-2.0-or-later
"""DEL's two processes, each killed at each of its calls: the parent tells the truth, and what is left
goes with the next DEL. The child asks the kernel to remove the link and outlives the parent.

With POPLIN_KILLS=1000 at every call; otherwise at a sample of the parent's.
"""
import contextlib
import json
import os
import signal

import pytest

from cnilib import Node, pod_links
from cluster import wait_for
from tracer import CALLS, UNSANITIZED, WHOLE, Traced, calls_of, stop_at, traced

pytestmark = UNSANITIZED
KEYS = {"plain": {}, "guarded": {"ipMasq": True, "macspoofchk": True}}


@pytest.fixture(params=KEYS)
def node(request):
    with Node() as made:
        made.keys = KEYS[request.param]
        yield made


def parent_of(trace):
    return trace.split(None, 1)[0]


def record_both(node, pod):
    """The calls of the parent from the fork on, and those of the child."""
    assert node.add("victim", pod).code == 0
    code, out, trace = traced(node, ["-e", "trace=" + ",".join(f"?{c}" for c in CALLS)], "DEL", pod)
    assert code == 0, (code, out)
    parent = parent_of(trace)
    child = "".join(line + "\n" for line in trace.splitlines() if line.split(None, 1)[0] != parent)
    calls = calls_of(trace)
    fork = next(i for i, (name, _) in enumerate(calls) if name in ("clone", "clone3", "fork"))
    calls_of_child = calls_of(child)
    assert len(calls[fork:]) > 10 and "sendto" in [name for name, _ in calls_of_child], trace
    return calls[fork:-1], calls_of_child[:-1]  # both end with exit_group


def has_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill(run, pid):
    with contextlib.suppress(ProcessLookupError):  # it came to its end
        os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: has_gone(pid), f"process {pid} to end: {run.trace}")


def stopped(run, call, who):
    """Waits until this process comes to the call; the other one goes on. None: it ended before."""
    def there():
        parent = parent_of(run.trace + " ?")
        for pid in run.stopped():
            if (pid == parent) == (who == "parent"):
                return pid
            run.go_on(pid)
        return run.has_ended() and "-"
    pid = wait_for(there, lambda: f"the {who} to come to {call}: {run.trace}")
    return None if pid == "-" else pid


def assert_never_two(node):
    """An address is free only when no link can carry it."""
    assert node.held() or not node.links(), (node.held(), node.links())


def assert_all_gone(node, pod):
    node.assert_empty()
    assert pod_links(pod) == []
    assert node.elements() == []


def test_the_child_is_killed(node):
    """The parent says that all is gone when it is, or an error; DEL comes again then."""
    pod = node.pod()
    _, calls = record_both(node, pod)
    for call in calls:
        assert node.add("victim", pod).code == 0
        run = Traced(node, stop_at(call), "DEL", pod)
        pid = stopped(run, call, "child")
        assert pid, (call, run.trace)
        kill(run, pid)
        code, out, trace = run.run_on()
        assert code in (0, 1), (call, code, out, trace)
        if code == 0:
            assert_all_gone(node, pod)
        else:
            assert json.loads(out)["code"] > 0
            assert_never_two(node)
            assert node.delete("victim").code == 0
            assert_all_gone(node, pod)


@pytest.mark.parametrize("also", ["alone", "and the child"])
def test_the_parent_is_killed(node, also):
    """The child does its part, or dies too; the address stays held until the next DEL."""
    pod = node.pod()
    calls, _ = record_both(node, pod)
    calls = calls if WHOLE else calls[::3]
    killed = 0
    for call in calls:
        assert node.add("victim", pod).code == 0
        run = Traced(node, stop_at(call), "DEL", pod)
        pid = stopped(run, call, "parent")
        if pid:
            for child in children(pid) if also != "alone" else []:
                kill(run, child)
            kill(run, pid)
            killed += 1
        code, out, _ = run.run_on()  # waits for the child
        # How often it looks before the kernel has told is not always the same.
        assert (code != 0) == bool(pid) and out == "", (call, code, out)
        assert_never_two(node)
        assert code or not node.held()
        assert node.delete("victim").code == 0, call
        assert_all_gone(node, pod)
    assert killed >= 0.8 * len(calls), (killed, calls)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return listed.read().split()


def test_a_child_that_is_late_removes_nothing_of_another_add():
    """Stopped before it asked: the parent gives up with an error, and the next DEL does the work."""
    with Node() as node:
        pod = node.pod()
        assert node.add("victim", pod).code == 0
        # Its third close, behind which its standard output is closed.
        run = Traced(node, stop_at(("close", 3)), "DEL", pod)
        assert stopped(run, "close", "child")
        parent = parent_of(run.trace)
        wait_for(lambda: run.go_on(*[p for p in run.stopped() if p == parent]) or has_gone(parent),
                 "the parent to give up", 30)
        assert node.held(), "the address is not free: the link is still there"
        assert node.delete("victim").code == 0
        node.assert_empty()
        assert node.add("victim", pod).code == 0
        code, out, _ = run.run_on()
        assert code == 1 and json.loads(out)["code"] == 101, out
        assert len(node.links()) == 1 and pod_links(pod) == ["eth0"]
        assert node.delete("victim").code == 0
        node.assert_empty()
