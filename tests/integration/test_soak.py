# SPDX-License-Identifier: GPL-2.0-or-later
"""A minute of the fault soak, and its checker judged by logs that it must refuse."""
import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[1] / "soak"
sys.path.append(str(SOAK))

from checker import Checker  # noqa: E402
from faults import Execution, Fault  # noqa: E402

S = 1_000_000_000
NET = "10.2.{}.0/24"


class History:
    """A log of three nodes, n1 to n3 with the subnets 1 to 3, written as the recorder does."""

    def __init__(self):
        self.lines = []
        self.add("begin", 0, ttl_s=5)
        for n in 1, 2, 3:
            self.add("agent", 0.1, op="start", node=f"n{n}", name=f"n{n}", pid=n,
                     address=f"172.30.10.{n}")
            self.put(1, n)
            self.state(1.1, n, until=9)
        for n in 1, 2, 3:
            for other in {1, 2, 3} - {n}:
                self.route(1.5, n, "add", other)

    def add(self, kind, t, **fields):
        line = {"t": int(t * S), "k": kind, **fields}
        self.lines.append(line)
        return line

    def etcd(self, t, op, key, value="", lease="0"):
        """With a beat before it; number() fills in what counts them."""
        self.add("beat", t - 0.1)
        self.add("etcd", t - 0.05, op="put", key="/soak/beat", lease="0")
        return self.add("etcd", t, op=op, key=key, value=value, lease=lease)

    def number(self):
        self.lines.sort(key=lambda line: line["t"])
        revisions, sent, arrived = (itertools.count(1) for _ in range(3))
        for line in self.lines:
            if line["k"] == "beat":
                line["n"] = next(sent)
            elif line["k"] == "etcd":
                line["rev"] = next(revisions)
                if line["key"] == "/soak/beat":
                    line["value"] = str(next(arrived))

    def put(self, t, n, subnet=None, lease=None):
        return self.etcd(t, "put", f"/poplin/nodes/n{n}", json.dumps(
            {"subnets": [NET.format(subnet or n)], "address": f"172.30.10.{n}"}), lease or str(n))

    def delete(self, t, n):
        return self.etcd(t, "delete", f"/poplin/nodes/n{n}")

    def state(self, t, n, until, subnet=None):
        return self.add("state", t, node=f"n{n}", name=f"n{n}", subnet=NET.format(subnet or n),
                        deadline=int(until * S), written=int(t * S), placed=int(t * S))

    def route(self, t, n, op, subnet, via=None):
        return self.add("route", t, node=f"n{n}", op=op, dst=NET.format(subnet),
                        via=f"172.30.10.{via or subnet}")

    def fault(self, begin, end, what, target):
        for op, t in ("begin", begin), ("end", end):
            self.add("fault", t, op=op, what=what, target=target, way="both ways")

    def table(self, t, n, others):
        return self.add("table", t, node=f"n{n}",
                        routes={NET.format(s): f"172.30.10.{o}" for o, s in others.items()})

    def listed(self, t):
        """As etcd has them by the lines so far."""
        records = {}
        for line in sorted(self.lines, key=lambda line: line["t"]):
            if line.get("key", "").startswith("/poplin/nodes/") and line["t"] <= t * S:
                records[line["key"]] = line["value"]
        return self.add("listed", t, records={k: v for k, v in records.items() if v})

    def call(self, begin, end, n, verb, code=0, subnet=None):
        return self.add("call", end, node=f"n{n}", verb=verb, begin=int(begin * S), code=code,
                        said="", subnet=NET.format(subnet or n) if verb == "ADD" and code == 0
                        else None)

    def end(self, t=100, subnets=None, states=True):
        subnets = subnets or {1: 1, 2: 2, 3: 3}
        self.listed(t - 0.01)
        self.listed(t + 0.01)
        for n in subnets:
            if states:
                self.state(t - 1, n, until=t + 4, subnet=subnets[n])
            self.table(t, n, {o: s for o, s in subnets.items() if o != n})
            if states:
                self.call(t + 0.1, t + 0.2, n, "ADD", subnet=subnets[n])
        self.add("finish", t + 1)
        self.number()
        return self

    def violations(self):
        return Checker(copy.deepcopy(self.lines)).check()

    def broken(self):
        """The rules that the checker says were broken."""
        return sorted({v.rule for v in self.violations()})


@pytest.fixture(name="h")
def history():
    return History()


# -- logs that must pass --------------------------------------------------------------

def test_a_quiet_run_passes(h):
    assert h.end().broken() == []


def expire_and_inherit(h, heir_at=12.0):
    """n3 dies, its lease runs out, n1 loses its own too and gets the subnet."""
    h.add("agent", 5, op="end", node="n3", status=-9)
    h.delete(11, 3)
    h.route(11.1, 1, "del", 3)
    h.route(11.1, 2, "del", 3)
    h.delete(11.5, 1)
    h.route(11.6, 2, "del", 1)
    h.put(heir_at, 1, subnet=3)
    h.state(heir_at + 0.1, 1, until=99.5, subnet=3)
    h.route(heir_at + 0.2, 2, "add", 3, via=1)


def test_a_subnet_that_is_handed_on_after_its_lease_passes(h):
    expire_and_inherit(h)
    assert h.end(subnets={1: 3, 2: 2}).broken() == []


def test_a_removal_right_after_the_record_came_back_passes(h):
    h.delete(20, 3)
    h.put(20.5, 3)
    h.route(20.7, 1, "del", 3)
    h.route(20.8, 1, "add", 3)
    assert h.end().broken() == []


def test_an_agent_that_was_behind_may_follow_late(h):
    h.fault(19, 40, "cut agent from etcd", "n1")
    h.delete(20, 3)
    h.put(21, 3)
    h.route(45, 1, "del", 3)
    h.route(45.1, 1, "add", 3)
    assert h.end().broken() == []


def revoke(h, until, withdrawn_at):
    """n3's lease is revoked, n2 gets its subnet at once, and n3 that of n2 when it has noticed."""
    h.state(10, 3, until=until)
    h.add("revoke", 11.9, node="n3", lease="3")
    h.delete(12, 3)
    h.put(12.5, 2, subnet=3)
    h.state(12.6, 2, until=99.5, subnet=3)
    h.state(withdrawn_at, 3, until=0)
    h.put(withdrawn_at + 0.3, 3, subnet=2, lease="33")
    h.state(withdrawn_at + 0.4, 3, until=99.5, subnet=2)
    for n, subnet in (1, 2), (1, 3), (2, 2), (3, 3):
        h.route(withdrawn_at + 0.5, n, "add", subnet, via=5 - subnet)
    for n, subnet in (2, 3), (3, 2):
        h.route(withdrawn_at + 0.5, n, "del", subnet)
    return h.end(t=90, subnets={1: 1, 2: 3, 3: 2}).broken()


def test_a_revoked_lease_is_nobodys_fault(h):
    h.call(13, 13.1, 3, "ADD")  # while the agent has not noticed
    assert revoke(h, until=15, withdrawn_at=13.2) == []


def test_a_node_that_leaves_a_revoked_promise_standing_is_found(h):
    assert revoke(h, until=15, withdrawn_at=14.1) == ["fence", "holder"]


def test_a_node_that_cannot_know_has_its_promise_for_a_ttl_at_most(h):
    h.fault(11, 20, "stop agent", "n3")
    h.call(16.8, 16.9, 3, "ADD")
    assert revoke(h, until=16.95, withdrawn_at=20) == []


def test_a_revoked_promise_that_is_longer_than_a_ttl_is_found(h):
    h.fault(11, 20, "stop agent", "n3")
    assert revoke(h, until=17.2, withdrawn_at=20) == ["fence", "holder"]


def test_an_address_by_a_promise_that_was_revoked_long_ago_is_found(h):
    h.call(14.5, 14.6, 3, "ADD")
    assert revoke(h, until=30, withdrawn_at=15) == ["fence", "holder", "plugin"]


def test_a_revocation_long_ago_excuses_nothing(h):
    h.add("revoke", 11.9, node="n3", lease="3")
    h.state(27, 3, until=32)
    h.delete(30, 3)
    h.route(30.1, 1, "del", 3)
    h.route(30.1, 2, "del", 3)
    h.state(30.2, 3, until=0)
    h.put(33, 3)
    h.route(33.1, 1, "add", 3)
    h.route(33.1, 2, "add", 3)
    assert h.end().broken() == ["fence"]


def early_end(h, stopped_at):
    """A member sleeps, and a record goes though its lease was renewed a second before."""
    h.fault(stopped_at, stopped_at + 4, "stop member", "m1")
    h.state(20, 3, until=24.9)
    h.delete(21, 3)
    h.route(21.1, 1, "del", 3)
    h.route(21.1, 2, "del", 3)
    h.state(21.5, 3, until=0)
    h.put(22, 3)
    h.route(22.1, 1, "add", 3)
    h.route(22.1, 2, "add", 3)
    return h.end(t=90)


def test_a_word_that_etcd_breaks_after_a_sleep_is_not_the_nodes_fault(h):
    assert early_end(h, stopped_at=10).broken() == []


def test_without_a_sleep_it_is(h):
    assert early_end(h, stopped_at=2).broken() == ["fence"]


def test_a_sleep_excuses_no_deadline_that_is_too_late(h):
    # The lease ran out in its time: the file is from 4 s before that, its deadline is wrong.
    h.fault(10, 14, "stop member", "m1")
    h.state(11, 3, until=20)
    h.delete(15.5, 3)
    h.route(15.6, 1, "del", 3)
    h.route(15.6, 2, "del", 3)
    h.put(22, 3)
    h.route(22.1, 1, "add", 3)
    h.route(22.1, 2, "add", 3)
    assert h.end().broken() == ["fence"]


# -- one holder, and the fence ----------------------------------------------------------

def test_two_holders_are_found(h):
    h.state(10, 3, until=20)
    expire_and_inherit(h)
    assert "holder" in h.end(subnets={1: 3, 2: 2}).broken()


def test_two_holders_for_a_thousandth_of_a_second_are_found(h):
    h.state(10, 3, until=12.101)
    expire_and_inherit(h)
    assert "holder" in h.end(subnets={1: 3, 2: 2}).broken()


def test_a_long_hold_behind_a_short_one_is_found(h):
    # n1's short one lies within n3's; n2's begins after it, but within n3's yet.
    h.state(30, 3, until=60)
    h.state(35, 1, until=36, subnet=3)
    h.state(40, 2, until=41, subnet=3)
    found = [v for v in h.end().violations() if v.rule == "holder"]
    assert len(found) >= 2


def test_an_unrevoked_lease_excuses_nothing(h):
    h.state(10, 3, until=15)
    h.add("revoke", 11.9, node="n2", lease="2")
    h.delete(12, 3)
    h.put(12.5, 1, subnet=3)
    h.state(12.6, 1, until=99.5, subnet=3)
    assert {"fence", "holder"} <= set(h.end(subnets={1: 3, 2: 2}).broken())


def test_a_deadline_past_the_leases_end_is_found(h):
    h.state(10, 3, until=20)
    h.delete(15, 3)
    h.put(21, 3)
    h.route(15.1, 1, "del", 3)
    h.route(15.1, 2, "del", 3)
    h.route(21.1, 1, "add", 3)
    h.route(21.1, 2, "add", 3)
    assert h.end().broken() == ["fence"]


def test_a_state_file_without_a_claim_is_found(h):
    h.state(10, 3, until=14, subnet=77)
    assert h.end().broken() == ["fence"]


def test_a_state_file_whose_own_time_is_before_its_claim_is_right(h):
    """A beat that was sent in time for the claim's revision proves that the claim came after it."""
    h.state(1.1, 3, until=9)["written"] = int(0.85 * S)
    assert h.end().broken() == []


def test_a_state_file_that_was_read_before_its_claim_is_found(h):
    h.state(0.85, 3, until=9)
    assert h.end().broken() == ["fence"]


# -- the plugin -------------------------------------------------------------------------

def test_calls_within_the_deadline_or_refused_pass(h):
    h.call(8.5, 8.9, 3, "ADD")
    h.call(8.9, 9.3, 3, "ADD")  # it looked in time, and printed late
    h.call(9.4, 9.5, 3, "ADD", code=11)
    h.call(9.6, 9.7, 3, "STATUS", code=50)
    h.call(9.8, 9.9, 3, "DEL")
    assert h.end().broken() == []


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_a_success_past_the_deadline_is_found(h, verb):
    h.call(9.1, 9.2, 3, verb)
    assert h.end().broken() == ["plugin"]


def test_an_address_of_a_subnet_that_was_left_is_found(h):
    h.state(5, 3, until=20, subnet=3)
    h.state(6, 3, until=0)
    h.call(6.5, 6.6, 3, "ADD")
    assert h.end().broken() == ["plugin"]


def test_an_address_of_another_nodes_subnet_is_found(h):
    # By a promise that the recorder could not see to be void.
    h.call(8, 8.1, 1, "ADD", subnet=3)
    found = h.end().violations()
    assert {v.rule for v in found} == {"plugin"} and len(found) == 2


@pytest.mark.parametrize("verb, code", [("ADD", 5), ("STATUS", 11), ("DEL", 11)])
def test_another_refusal_is_found(h, verb, code):
    h.call(8, 8.1, 1, verb, code=code)
    assert h.end().broken() == ["plugin"]


def test_what_a_machine_that_is_set_up_anew_answers_is_nobodys_fault(h):
    h.fault(7, 8.05, "replace node", "n1")
    h.call(8, 8.1, 1, "DEL", code=5)
    assert h.end(t=90).broken() == []


# -- routes -------------------------------------------------------------------------------

def test_a_route_lost_without_a_cause_is_found(h):
    h.route(30, 1, "del", 2)
    h.route(30.001, 1, "add", 2)
    assert h.end().broken() == ["kept"]


def test_a_route_lost_while_etcd_was_away_is_found(h):
    h.fault(20, 40, "kill member", "m1")
    h.route(30, 1, "del", 2)
    h.route(41, 1, "add", 2)
    assert h.end().broken() == ["kept"]


def test_a_route_lost_in_a_restart_is_found(h):
    h.fault(20, 21, "kill agent", "n1")
    h.add("agent", 20, op="end", node="n1", status=-9)
    h.add("agent", 21, op="start", node="n1", name="n1", pid=9, address="172.30.10.1")
    h.route(21.5, 1, "del", 2)
    h.route(21.6, 1, "add", 2)
    assert h.end().broken() == ["kept"]


def test_routes_lost_with_their_nexthop_are_found(h):
    h.add("nexthop", 30, node="n1", op="del", via="172.30.10.2")
    h.route(31, 1, "add", 2)
    assert h.end().broken() == ["kept"]


@pytest.mark.parametrize("what, target, removed_at", [
    ("slow member", "m1", 57), ("stop agent", "n1", 96), ("cut agent from etcd", "n1", 96)])
def test_a_fault_excuses_no_removal_that_comes_too_late(h, what, target, removed_at):
    h.fault(19, 60, what, target)
    h.delete(20, 3)
    h.put(21, 3)
    h.route(removed_at, 1, "del", 3)
    h.route(removed_at + 0.1, 1, "add", 3)
    assert h.end().broken() == ["kept"]


def test_an_absence_long_ago_excuses_no_removal(h):
    h.delete(20, 3)
    h.route(20.1, 1, "del", 3)
    h.route(20.1, 2, "del", 3)
    h.put(21, 3)
    h.route(21.1, 1, "add", 3)
    h.route(21.1, 2, "add", 3)
    h.route(30, 1, "del", 3)
    h.route(30.1, 1, "add", 3)
    assert h.end().broken() == ["kept"]


# -- values: which subnet by which address ---------------------------------------------------

@pytest.mark.parametrize("subnet, via", [(2, 3), (9, 3), (9, 9)])
def test_a_route_that_no_record_ever_asked_for_is_found(h, subnet, via):
    h.route(30, 1, "add", subnet, via=via)
    if subnet == 2:
        h.route(30.001, 1, "add", 2)
    else:
        h.route(30.001, 1, "del", subnet, via=via)
    assert h.end().broken() == ["followed"]


def move(h, followed_at, left_at):
    """n3 gets subnet 4; n1 adds the route and removes the old one at these times."""
    h.put(20, 3, subnet=4)
    h.route(20.2, 2, "add", 4, via=3)
    h.route(21.2, 2, "del", 3)
    h.route(followed_at, 1, "add", 4, via=3)
    h.route(left_at, 1, "del", 3)
    return h.end(t=110, subnets={1: 1, 2: 2, 3: 4}).broken()


def test_a_record_that_is_followed_in_time_passes(h):
    assert move(h, followed_at=50, left_at=64) == []


def test_a_record_that_is_followed_too_late_is_found(h):
    assert move(h, followed_at=66, left_at=21) == ["followed"]


def test_a_route_that_outlives_its_record_is_found(h):
    assert move(h, followed_at=21, left_at=66) == ["followed"]


def test_a_route_to_the_right_subnet_by_the_wrong_address_is_no_route(h):
    h.put(20, 3, subnet=4)
    for n, via in (1, 2), (2, 3):
        h.route(20.2, n, "add", 4, via=via)
        h.route(21.2, n, "del", 3)
    h.route(90, 1, "add", 4, via=3)
    found = h.end(t=100, subnets={1: 1, 2: 2, 3: 4}).violations()
    assert [v.rule for v in found] == ["followed", "followed"]
    assert "that no record asked for" in found[0].text and "lacks the route" in found[1].text


@pytest.mark.parametrize("what", ["cut agent from etcd", "stop agent", "kill agent"])
def test_an_agent_that_was_away_follows_after_that(h, what):
    h.fault(19, 40, what, "n1")
    assert move(h, followed_at=84, left_at=84) == []


@pytest.mark.parametrize("what, target", [
    ("stop agent", "n1"), ("stop agent", "n2"), ("slow member", "m1"), ("revoke lease", "n1")])
def test_a_fault_excuses_nobody_for_ever(h, what, target):
    h.fault(19, 40, what, target)
    assert move(h, followed_at=86, left_at=86) == ["followed"]


def test_a_dead_node_need_not_follow(h):
    h.add("agent", 10, op="end", node="n1", status=-9)
    h.add("agent", 70, op="start", node="n1", name="n1", pid=9, address="172.30.10.1")
    assert move(h, followed_at=71, left_at=71) == []


# -- the end ---------------------------------------------------------------------------------

@pytest.mark.parametrize("others", [{2: 2}, {2: 2, 3: 3, 4: 4}, {2: 2, 3: 4}, {2: 3, 3: 2}, {}])
def test_a_wrong_table_is_found(h, others):
    for n in 1, 2, 3:
        h.state(99, n, until=104)
    for t in 99.9, 100.1:
        h.listed(t)
    h.table(100, 1, others)
    h.table(100, 2, {1: 1, 3: 3})
    h.table(100, 3, {1: 1, 2: 2})
    for n in 1, 2, 3:
        h.call(100.1, 100.2, n, "ADD")
    h.add("finish", 101)
    h.number()
    # The kernel told of other routes, too.
    assert h.broken() == ["converged", "recorded"]


def test_records_that_etcd_lists_with_another_value_are_found(h):
    h.end()
    for line in h.lines:
        if line["k"] == "listed":
            line["records"]["/poplin/nodes/n3"] = line["records"]["/poplin/nodes/n3"].replace(
                "172.30.10.3", "172.30.10.4")
    assert h.broken() == ["converged", "recorded"]


def test_a_record_that_no_watch_told_of_is_found(h):
    h.end()
    for line in h.lines:
        if line["k"] == "listed":
            line["records"]["/poplin/nodes/n4"] = json.dumps(
                {"subnets": [NET.format(4)], "address": "172.30.10.4"})
    assert h.broken() == ["converged", "recorded"]


@pytest.mark.parametrize("which", [0, 1])
def test_tables_without_a_list_of_the_records_on_either_side_prove_nothing(h, which):
    h.end()
    h.lines.remove([line for line in h.lines if line["k"] == "listed"][which])
    assert h.broken() == ["converged"]


def test_a_node_that_is_left_without_a_lease_is_found(h):
    h.call(2, 2.1, 1, "ADD")
    assert h.end(states=False).broken() == ["converged"]


def test_a_plugin_that_serves_no_more_is_found(h):
    h.end()
    for line in h.lines:
        if line["k"] == "call" and line["node"] == "n2":
            line.update(code=11, subnet=None)
    assert h.broken() == ["converged"]


def test_a_dead_nodes_record_that_stays_is_found(h):
    h.add("agent", 50, op="end", node="n3", status=0)
    assert h.end().broken() == ["converged"]


def test_tables_from_before_the_last_fault_do_not_count(h):
    h.end()
    h.fault(100.5, 100.6, "compact", "")
    assert h.broken() == ["converged"]


def test_a_settling_time_that_is_too_long_is_found(h):
    h.fault(20, 21, "compact", "")
    assert h.end(t=200).broken() == ["converged"]


# -- the log -----------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["begin", "finish", "etcd", "state", "route", "table", "listed",
                                  "beat", "call"])
def test_a_log_with_a_part_missing_proves_nothing(h, kind):
    h.end()
    h.lines = [line for line in h.lines if line["k"] != kind]
    assert "recorded" in h.broken()


def test_a_missing_revision_proves_nothing(h):
    h.end()
    h.lines.remove(next(line for line in h.lines if line.get("rev") == 4))
    assert "recorded" in h.broken()


def test_what_the_recorder_lost_proves_nothing(h):
    h.add("lost", 30, what="notifications")
    assert h.end().broken() == ["recorded"]


def test_an_agent_that_ends_by_itself_is_found(h):
    h.add("died", 30, node="n1", pid=1, status=-6)
    assert h.end().broken() == ["alive"]


def test_growing_memory_is_found_in_a_long_run(h):
    for t in range(0, 3600, 10):
        h.add("memory", t, node="n1", pid=1, rss_kib=5000)
        h.add("memory", t, node="n2", pid=2, rss_kib=5000 + t // 2)
    assert h.end(t=3600).broken() == ["memory"]


def test_compaction_leaves_the_recorder_what_it_has_not_heard():
    """Or the log has a hole that nothing can be proved across."""
    asked = []

    class Cluster:
        members, nodes = [type("", (), {"namespace": "m1"})], {}

        @staticmethod
        def etcdctl(*args, **_):
            asked.append(args)
            return ""

    class Recorder:
        store = type("", (), {"revision": 77})

        @staticmethod
        def write(*_, **__):
            pass

    Execution(Cluster, Recorder).run([Fault(0, 0, "compact", 0)])
    assert asked == [("--command-timeout", "2s", "compact", "77")]


# -- the soak itself ------------------------------------------------------------------------------

def test_a_minute_of_faults():
    """The seed is fixed, so that the same faults come each time."""
    result = subprocess.run([SOAK / "store", "--seed", "3", "--minutes", "1"], check=False,
                            text=True, capture_output=True, timeout=400, env=os.environ)
    print(result.stdout, result.stderr)
    assert result.returncode == 0
