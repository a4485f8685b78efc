#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a log of tests/soak/recorder.py, from that log alone.

    tests/soak/checker.py LOG

The rules:

    recorded   the log is whole: begun and finished, nothing lost, no revision of etcd missing
    alive      no agent ended by itself
    holder     no subnet was usable for ADD by two nodes at one instant
    fence      a subnet was usable only while the node's record stood in etcd
    plugin     ADD succeeded, and STATUS said so, only by a state file that was not past its deadline
               (so too at the end of an ADD that took long), never in a subnet that another node could
               use all that time; else they were refused with "try again later" (11) and "not
               available" (50); DEL always succeeded
    kept       no route to a living node was removed while its record stood in etcd
    followed   no route was ever there that no record asked for, subnet and address alike, and none
               for long after its record went; each record that stood for so long was followed by
               every other node
    converged  after the last fault and a settling time every living node has a subnet of its own,
               exactly the routes to all the others, subnet and address as etcd lists them, and its
               plugin serves
    memory     agents that live through a long run do not grow

Usable means what the plugin means by it: the node state file names the subnet, and its deadline is
not past. A file counts from when the recorder had read it and until the next one was in its place by
the file's own times. Those are early by up to a tick of the kernel's clock, and by more on a busy
machine: a file's own time of writing may lie before the claim that it tells of.

When etcd did something is known within bounds: not before the last beat of an earlier revision was
sent, and not after the first of the recorder's watches told it. A rule is broken only when it is
broken for sure.

A lease that an administrator revokes is nobody's fault: what was usable by it counts as unusable
from then on, until the agent must know. That is as soon as its watch can tell where nothing is wrong
with the agent and with etcd. Otherwise a TTL after the record went: no renewal succeeds any more, and
every promise counts from before one. The same holds where etcd breaks its own word, which it does
after members were stopped (etcd#15247): a record went within ten seconds after that, although the
node had an answer to a renewal so short before that the lease cannot have run out. Those are counted.

A removed route counts as the effect of the record's absence if that ended within the time in which
a silent member is noticed, and etcd was disturbed then; or if the agent was stopped or cut off since
before then, and until so long after that. Those are counted as "late".
"""
import bisect
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field

from history import NEVER, RECORDS, History, S

BROKEN_WORD_NS = 10 * S  # after a member was stopped; etcd's requests live for 7 s
RENEWAL_NS = 3 * S // 2  # at most, from its sending to the state file
IN_FLIGHT_NS = 2 * S  # from a change in etcd to the kernel's notification, on a busy machine
BEHIND_NS = 35 * S  # after a fault: a silent member is noticed within 30 s
FOLLOW_NS = 45 * S  # the same, and the longest fault of those that are asked next
REVOKE_NS = 16 * S  # each of three members is asked for 2 s, and etcd's requests live for 7 s
LONG_NS = 20 * 60 * S  # runs that say something about memory
SETTLED_NS = 90 * S


@dataclass
class Violation:
    rule: str
    text: str
    lines: list = field(default_factory=list)


@dataclass
class Usable:
    node: str
    name: str
    subnet: str
    start: int
    end: int
    line: dict


class Checker(History):
    def __init__(self, lines):
        super().__init__(lines)
        self.violations = []
        self.figures = {}

    def fail(self, rule, text, *lines):
        self.violations.append(Violation(rule, text, list(lines)))

    def check(self):
        self.check_recorded()
        self.presences = self.find_presences()
        self.figures["claims"] = len(self.presences)
        self.figures["records that went"] = sum(p.gone[1] != NEVER for p in self.presences)
        self.usables = self.find_usables()
        self.check_alive()
        self.check_holder()
        self.check_fence()
        self.check_plugin()
        self.routes = list(self.find_routes())
        self.check_kept()
        self.check_followed()
        self.check_converged()
        self.check_memory()
        return self.violations

    # -- the log ---------------------------------------------------------------------

    def check_recorded(self):
        for kind in "begin", "finish":
            if len(self.kinds[kind]) != 1:
                self.fail("recorded", f"the log has {len(self.kinds[kind])} lines of kind {kind}")
        for kind in "etcd", "state", "route", "table", "listed", "beat", "call":
            if not self.kinds[kind]:
                self.fail("recorded", f"the log has no line of kind {kind}")
        for line in self.kinds["lost"]:
            self.fail("recorded", f"the recorder lost {line['what']}", line)
        before = None
        for line in self.kinds["etcd"]:
            if before and line["rev"] not in (before["rev"], before["rev"] + 1):
                self.fail("recorded", f"between the revisions {before['rev']} and {line['rev']} "
                          "of etcd something is missing", before, line)
            before = line

    def check_alive(self):
        for line in self.kinds["died"]:
            self.fail("alive", f"the agent of {line['node']} ended by itself with "
                      f"{line['status']}", line)

    # -- state files -------------------------------------------------------------------

    def find_usables(self):
        """A list of Usable for each state file that named a subnet, not past its deadline.

        Two of a file that was void in between. excused: these times.
        """
        void = self.revoked()
        found, self.excused = [], []
        for node, line, following in self.states():
            if not line["subnet"]:
                continue
            name = line.get("name", node)
            start, end = line["t"], min(line["deadline"],
                                        following["placed"] if following else NEVER)
            for presence, until in void[name]:
                if presence.subnet != line["subnet"] or line["written"] < presence.came[0]:
                    continue
                gone = presence.gone[0]
                if start < until and gone < end:
                    self.excused.append(Usable(node, name, line["subnet"], gone, until, line))
                    if start < gone:
                        found.append(Usable(node, name, line["subnet"], start, gone, line))
                    start = until
            if start < end:
                found.append(Usable(node, name, line["subnet"], start, end, line))
        return found

    def revoked(self):
        """{name: [(presence, excused until)]} of those that ended since their lease was revoked."""
        leases = {line["lease"]: line["t"] for line in self.kinds["revoke"]}
        ttl = self.kinds["begin"][0]["ttl_s"] * S if self.kinds["begin"] else 0
        written = defaultdict(list)
        for line in self.kinds["state"]:
            if line["subnet"]:
                written[line.get("name", line["node"])].append(line["written"])
        void = defaultdict(list)
        broken = 0
        for presence in self.presences:
            if presence.went.get("op") != "delete":
                continue
            released = any(abs(line["t"] - presence.went["t"]) < S and
                           line["node"] == presence.name.split("-")[0]
                           for line in self.kinds["release"])
            gone, asked = presence.gone, leases.get(presence.lease, NEVER)
            if gone[0] > asked + REVOKE_NS or gone[1] < asked:
                if released or not self.word_broken(gone[1], written[presence.name], ttl):
                    continue
                broken += 1
            calm = not any(b <= gone[1] + IN_FLIGHT_NS and gone[0] <= e + BEHIND_NS
                           for b, e in self.disturbances(presence.name.split("-")[0]))
            void[presence.name].append((presence, gone[1] + (IN_FLIGHT_NS if calm else ttl)))
        self.figures["leases that etcd revoked against its word"] = broken
        return void

    def disturbances(self, node):
        """Windows of faults for which the node may know late of what etcd did."""
        kinds = {line["what"] for line in self.kinds["fault"]}
        return (self.windows({k for k in kinds if "member" in k}) +
                self.windows(kinds - {"revoke lease"}, node))

    def word_broken(self, gone, written, ttl):
        """written: when each of the node's state files was, all after the answer to a renewal."""
        return any(gone - ttl + RENEWAL_NS < w < gone for w in written) and any(
            0 <= gone - end <= BROKEN_WORD_NS for _, end in self.windows({"stop member"}))

    def check_holder(self):
        by_subnet = defaultdict(list)
        for usable in self.usables:
            by_subnet[usable.subnet].append(usable)
        for subnet, uses in by_subnet.items():
            latest = None
            for use in sorted(uses, key=lambda u: u.start):
                if latest and use.node != latest.node and use.start < latest.end:
                    self.fail("holder", f"{subnet} was usable by {latest.node} and {use.node} for "
                              f"{(min(use.end, latest.end) - use.start) / S:.3f} s",
                              latest.line, use.line)
                if not latest or use.end >= latest.end:
                    latest = use

    def check_fence(self):
        stood = defaultdict(list)
        for presence in self.presences:
            stood[presence.name, presence.subnet].append(presence)
        for use in self.usables:
            at = use.start
            for presence in stood[use.name, use.subnet]:
                if presence.came[0] <= at < presence.gone[1]:
                    at = presence.gone[1]
                if at >= use.end:
                    break
            if at < use.end:
                near = [p.went for p in stood[use.name, use.subnet] if p.went]
                self.fail("fence", f"{use.subnet} was usable by {use.node} for "
                          f"{(use.end - at) / S:.3f} s without its record in etcd", use.line,
                          *near[-2:])

    # -- the plugin ----------------------------------------------------------------------

    def check_plugin(self):
        promises = defaultdict(list)
        for node, line, following in self.states():
            # When it may have been there: a file's own time is early, the reader is late.
            end = min(line["deadline"], following["t"] if following else NEVER)
            promises[node].append((line["written"], end, line))
        by_subnet = defaultdict(list)
        for use in self.usables:
            by_subnet[use.subnet].append(use)
        done = 0
        for call in self.kinds["call"]:
            code, verb, node = call["code"], call["verb"], call["node"]
            if code == 0 and verb != "DEL":
                done += verb == "ADD"
                self.check_promised(call, promises[node])
                self.check_alone(call, by_subnet[call["subnet"]])
            elif code not in {"ADD": (11,), "STATUS": (50,), "DEL": (0,)}[verb] and not any(
                    b <= call["t"] and call["begin"] <= e
                    for b, e in self.windows({"replace node"}, node)):
                self.fail("plugin", f"{verb} on {node} ended with code {code}", call)
        self.figures["pods added, refused"] = "{}, {}".format(
            done, sum(c["verb"] == "ADD" and c["code"] != 0 for c in self.kinds["call"]))

    def check_promised(self, call, promises):
        if not any(line["subnet"] and call["subnet"] in (None, line["subnet"])
                   and start <= call["t"] and call["begin"] <= end
                   for start, end, line in promises):
            before = [line for start, _, line in promises if start <= call["t"]]
            self.fail("plugin", f"{call['verb']} succeeded on {call['node']} "
                      f"({call['subnet'] or 'a subnet'}) though no state file allowed it",
                      *before[-2:], call)

    def check_alone(self, call, uses):
        for use in uses:
            if use.node == call["node"] or not use.start <= call["begin"] < call["t"] <= use.end:
                continue
            if any(e.node == call["node"] and e.subnet == call["subnet"]
                   and e.start <= call["t"] and call["begin"] <= e.end for e in self.excused):
                continue  # by a lease that was revoked
            self.fail("plugin", f"ADD on {call['node']} gave an address of {call['subnet']}, which "
                      f"{use.node} could use", use.line, call)

    # -- routes ------------------------------------------------------------------------

    def check_kept(self):
        addresses = {line["node"]: line["address"] for line in self.kinds["agent"]
                     if line["op"] == "start"}
        members = self.windows({line["what"] for line in self.kinds["fault"]
                                if "member" in line["what"]})
        by_subnet = defaultdict(list)
        for presence in self.presences:
            by_subnet[presence.subnet].append(presence)
        removed = late = 0
        for route in self.routes:
            if not route.went:
                continue
            node, subnet, added, line = route.node, route.subnet, route.added, route.went
            removed += 1
            if any(b <= line["t"] <= e for b, e in self.windows({"replace node"}, node)):
                continue  # by the test itself
            stands = next((p for p in by_subnet[subnet] if p.address != addresses.get(node)
                           and p.came[1] + IN_FLIGHT_NS <= line["t"] < p.gone[0]), None)
            if not stands:
                continue
            came = stands.came[1]
            behind = [(b, e, max(e, came) + BEHIND_NS)
                      for b, e in self.windows({"stop agent", "cut agent from etcd"}, node)]
            behind += [(b, e, came + BEHIND_NS) for b, e in members]
            if added <= came and any(
                    b <= came + IN_FLIGHT_NS and came <= e + BEHIND_NS and line["t"] <= until
                    for b, e, until in behind):
                late += 1
                continue
            self.fail("kept", f"{node} lost its route to {subnet}, though {stands.name}'s record "
                      f"stood there for {(line['t'] - stands.came[1]) / S:.3f} s already", line)
        self.figures["routes removed"] = removed
        self.figures["of these late"] = late

    def due(self, windows, t):
        """Until when at the latest a node with these faults of its own has followed what was at t."""
        limit = t + FOLLOW_NS
        for begin, end in windows:
            if begin > limit:
                break
            if end >= t:
                limit = max(limit, end + FOLLOW_NS)
        return limit

    def check_followed(self):
        kinds = {line["what"] for line in self.kinds["fault"]} - {"revoke lease"}
        nodes, faults, ended = {}, {}, {}
        for line in self.kinds["agent"]:
            node = line["node"]
            if line["op"] == "start":
                nodes.setdefault(node, line)
                faults.setdefault(node, self.windows(kinds, node))
                if node in ended:
                    faults[node].append((ended.pop(node), line["t"]))
            else:
                ended[node] = line["t"]
        for node in nodes:
            faults[node] += [(ended[node], NEVER)] if node in ended else []
            faults[node].sort()
        routes, records = defaultdict(list), defaultdict(list)
        for route in self.routes:
            routes[route.node, route.subnet, route.via].append(route)
        for presence in self.presences:
            records[presence.subnet, presence.address].append(presence)
        for route in self.routes:
            self.check_asked(route, records[route.subnet, route.via], faults[route.node])
        end, followed = self.lines[-1]["t"] if self.lines else 0, 0
        for presence in self.presences:
            for node, start in nodes.items():
                due = self.due(faults[node], max(presence.came[1], start["t"]))
                until = min(presence.gone[0], end)
                if start["address"] == presence.address or due >= until:
                    continue
                followed += 1
                missed = self.gap(routes[node, presence.subnet, presence.address], faults[node],
                                  due, until)
                if missed:
                    self.fail("followed", f"{node} lacks the route to {presence.subnet} by "
                              f"{presence.address} (t {missed}), though the record of "
                              f"{presence.name} stood for {(missed - presence.came[1]) / S:.3f} s "
                              "already")
        self.figures["records followed, by each other node"] = followed

    def gap(self, routes, faults, at, until):
        """The first moment between the two without one of the routes, but for the node's faults."""
        while at < until:
            end = max((r.end for r in routes if r.start <= at), default=at)
            if end <= at:
                if not any(begin <= at <= end for begin, end in faults):
                    return at
                end = self.due(faults, at)
            at = end
        return None

    def check_asked(self, route, records, faults):
        """records: those with the route's subnet and address."""
        at = route.start
        for presence in records:
            if presence.came[0] <= at:
                at = max(at, self.due(faults, presence.gone[1]))
        if at < min(route.end, self.lines[-1]["t"]) or not any(
                presence.came[0] <= route.start for presence in records):
            self.fail("followed", f"{route.node} had a route to {route.subnet} by {route.via} for "
                      f"{(route.end - at) / S:.3f} s that no record asked for", route.went)

    # -- the end -----------------------------------------------------------------------

    def check_converged(self):
        ends = [line["t"] for line in self.kinds["fault"] if line["op"] == "end"]
        last_fault = max(ends, default=0)  # 0: there was none
        living = {}
        for line in self.kinds["agent"]:
            if line["op"] == "start":
                living[line["node"]] = line
            else:
                living.pop(line["node"], None)
        tables = {line["node"]: line for line in self.kinds["table"] if line["t"] > last_fault}
        for line in self.kinds["fault"]:
            if line["op"] == "begin" and line["t"] > min((t["t"] for t in tables.values()),
                                                         default=NEVER):
                self.fail("converged", "a fault came after the routes were looked at", line)
        records = self.listed(last_fault, [line["t"] for line in tables.values()])
        if len(set(records.values())) != len(records) or set(records.values()) != {
                a["address"] for a in living.values()}:
            self.fail("converged", f"{len(living)} nodes live, etcd has the records {records}")
        for node, agent in sorted(living.items()):
            self.check_node(node, agent, tables.get(node), records, last_fault)

    def listed(self, last_fault, looked_at):
        """{subnet: address} of all records, as etcd listed them around the looks at the routes."""
        lists = [line for line in self.kinds["listed"] if line["t"] > last_fault]
        if not lists or not looked_at or lists[0]["t"] > min(looked_at) or \
                lists[-1]["t"] < max(looked_at):
            self.fail("converged", "the records were not listed before and after the routes were "
                      "looked at")
            return {}
        told = {}
        for line in self.kinds["etcd"]:
            if line["key"].startswith(RECORDS) and line["t"] <= lists[-1]["t"]:
                if line["op"] == "put":
                    told[line["key"]] = line["value"]
                else:
                    told.pop(line["key"], None)
        for line in lists:
            if line["records"] != told:
                self.fail("recorded", "what etcd's watches told does not add up to what it lists: "
                          f"{sorted(told.items() ^ line['records'].items())}", line)
        records = [json.loads(value) for value in lists[-1]["records"].values()]
        found = {record["subnets"][0]: record["address"] for record in records}
        if len(found) != len(records):
            self.fail("converged", "two records in etcd have one subnet", lists[-1])
        return found

    def check_node(self, node, agent, table, records, last_fault):
        if not table:
            self.fail("converged", f"{node}'s routes were not looked at after the last fault")
            return
        if last_fault and table["t"] > last_fault + SETTLED_NS:
            self.fail("converged", f"{node}'s routes were looked at too late", table)
        told = {r.subnet: r.via for r in self.routes
                if r.node == node and r.start <= table["t"] < r.end}
        if table["routes"] != told:
            self.fail("recorded", f"what the kernel told of {node}'s routes does not add up to its "
                      f"table: {sorted(told.items() ^ table['routes'].items())}", table)
        wanted = {s: a for s, a in records.items() if a != agent["address"]}
        if table["routes"] != wanted:
            missing = sorted(wanted.items() - table["routes"].items())
            extra = sorted(table["routes"].items() - wanted.items())
            self.fail("converged", f"{node}'s routes: missing {missing}, too many {extra}", table)
        states = [line for line in self.kinds["state"]
                  if line["node"] == node and line["placed"] <= table["t"]]
        if not any(c["node"] == node and c["verb"] == "ADD" and c["code"] == 0
                   and c["begin"] >= table["t"] for c in self.kinds["call"]):
            self.fail("converged", f"{node}'s plugin adds no pod in the end",
                      *[c for c in self.kinds["call"] if c["node"] == node][-2:])
        own = [s for s, a in records.items() if a == agent["address"]]
        if not states or states[-1]["deadline"] <= table["t"] or [states[-1]["subnet"]] != own:
            self.fail("converged", f"{node} cannot give out addresses of the subnet that etcd "
                      f"says is its own ({own or 'none'})", *states[-1:])

    def check_memory(self):
        if not self.lines:
            return
        start, end = self.lines[0]["t"], self.lines[-1]["t"]
        series = defaultdict(list)
        for line in self.kinds["memory"]:
            series[line["node"], line["pid"]].append(line)
        spans = []
        for (node, _), samples in sorted(series.items()):
            # Those that lived all the time; what is used at the start is no growth.
            if end - start < LONG_NS or samples[-1]["t"] - samples[0]["t"] < 0.9 * (end - start):
                continue
            times = [s["t"] for s in samples]
            cuts = [bisect.bisect(times, start + (end - start) * i // 4) for i in (1, 2, 3)]
            second = statistics.median(s["rss_kib"] for s in samples[cuts[0]:cuts[1]])
            last = statistics.median(s["rss_kib"] for s in samples[cuts[2]:])
            spans.append(f"{node} {second:.0f} -> {last:.0f} KiB")
            if last > second * 1.05 + 256:
                self.fail("memory", f"{node} grew from {second:.0f} KiB (median of the second "
                          f"quarter) to {last:.0f} KiB (of the last)", samples[0], samples[-1])
        if spans:
            self.figures["memory, second to last quarter"] = ", ".join(spans)


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def report(checker, out=sys.stdout, limit=20):
    """The figures, and each violation with its lines and the faults around it."""
    for name, value in checker.figures.items():
        print(f"{name}: {value}", file=out)
    for line in checker.kinds["settled"]:
        print(f"settled after: {line['seconds']:.1f} s", file=out)
    for violation in checker.violations[:limit]:
        print(f"BROKEN {violation.rule}: {violation.text}", file=out)
        for line in violation.lines:
            print(f"    {json.dumps(line)}", file=out)
    if len(checker.violations) > limit:
        print(f"... and {len(checker.violations) - limit} more", file=out)
    if checker.violations:
        print("faults:", file=out)
        start = checker.lines[0]["t"]
        for line in checker.kinds["fault"]:
            print(f"    {(line['t'] - start) / S:8.2f} s (t {line['t']}): {line['op']:5s} "
                  f"{line['what']} {line['target']} {line['way']}", file=out)
    print(f"{len(checker.lines)} lines: "
          f"{'nothing' if not checker.violations else len(checker.violations)} broken", file=out)
    return not checker.violations


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 2
    checker = Checker(read(sys.argv[1]))
    checker.check()
    return 0 if report(checker) else 1


if __name__ == "__main__":
    sys.exit(main())
