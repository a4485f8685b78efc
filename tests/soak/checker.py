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
    converged  after the last fault and a settling time every living node has a subnet of its own,
               exactly the routes to all the others, and its plugin serves
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

S = 1_000_000_000
RECORDS = "/poplin/nodes/"
BROKEN_WORD_NS = 10 * S  # after a member was stopped; etcd's requests live for 7 s
RENEWAL_NS = 3 * S // 2  # at most, from its sending to the state file
IN_FLIGHT_NS = 2 * S  # from a change in etcd to the kernel's notification, on a busy machine
BEHIND_NS = 35 * S  # after a fault: a silent member is noticed within 30 s
REVOKE_NS = 16 * S  # each of three members is asked for 2 s, and etcd's requests live for 7 s
NEVER = 1 << 63
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


@dataclass
class Presence:
    """A record with one subnet. Bounds of when it came and went."""
    name: str
    subnet: str
    address: str
    lease: str
    came: tuple
    gone: tuple
    went: dict  # the line


class Checker:
    def __init__(self, lines):
        self.lines = sorted(lines, key=lambda line: line["t"])
        self.kinds = defaultdict(list)
        for line in self.lines:
            self.kinds[line["k"]].append(line)
        self.violations = []
        self.figures = {}

    def fail(self, rule, text, *lines):
        self.violations.append(Violation(rule, text, list(lines)))

    def check(self):
        self.check_recorded()
        self.presences = self.find_presences()
        self.usables = self.find_usables()
        self.check_alive()
        self.check_holder()
        self.check_fence()
        self.check_plugin()
        self.check_kept()
        self.check_converged()
        self.check_memory()
        return self.violations

    # -- the log ---------------------------------------------------------------------

    def check_recorded(self):
        for kind in "begin", "finish":
            if len(self.kinds[kind]) != 1:
                self.fail("recorded", f"the log has {len(self.kinds[kind])} lines of kind {kind}")
        for kind in "etcd", "state", "route", "table", "beat", "call":
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

    # -- etcd ------------------------------------------------------------------------

    def find_presences(self):
        """All of them, in order; also when each revision was, at the earliest."""
        sent = {str(line["n"]): line["t"] for line in self.kinds["beat"]}
        earliest, standing, found = 0, {}, []

        def end(name, line):
            if name in standing:
                presence = standing.pop(name)
                presence.gone, presence.went = (earliest, line["t"]), line
        for line in self.kinds["etcd"]:
            if line["key"] == "/soak/beat":
                # From one number to the next, so the last one is the latest.
                earliest = max(earliest, sent.get(line["value"], 0))
            if not line["key"].startswith(RECORDS):
                continue
            name = line["key"][len(RECORDS):]
            if line["op"] == "delete":
                end(name, line)
                continue
            record = json.loads(line["value"])
            subnet, address = record["subnets"][0], record["address"]
            before = standing.get(name)
            if before and (before.subnet, before.address) == (subnet, address):
                before.lease = line["lease"]
                continue
            end(name, line)
            standing[name] = Presence(name, subnet, address, line["lease"],
                                      (earliest, line["t"]), (NEVER, NEVER), {})
            found.append(standing[name])
        self.figures["claims"] = len(found)
        self.figures["records that went"] = sum(p.gone[1] != NEVER for p in found)
        self.standing = standing
        return found

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

    def states(self):
        """(node, line, the next line of that node or None) of each state file."""
        by_node = defaultdict(list)
        for line in self.kinds["state"]:
            by_node[line["node"]].append(line)
        for node, states in by_node.items():
            for line, following in zip(states, [*states[1:], None]):
                yield node, line, following

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

    def removals(self):
        """(line, node, subnet, when the route had been added) of each route that went."""
        tables = defaultdict(dict)  # node -> destination -> (gateway, time)
        for line in self.lines:
            if line["k"] == "route" and line["op"] == "add":
                tables[line["node"]][line["dst"]] = (line["via"], line["t"])
            elif line["k"] == "route":
                _, added = tables[line["node"]].pop(line["dst"], (None, 0))
                yield line, line["node"], line["dst"], added
            elif line["k"] == "nexthop":
                table = tables[line["node"]]
                for dst in [d for d, (via, _) in table.items() if via == line["via"]]:
                    yield line, line["node"], dst, table.pop(dst)[1]

    def windows(self, kinds, node=None):
        """[(begin, end)] of faults."""
        open_, found = {}, []
        for line in self.kinds["fault"]:
            if line["what"] not in kinds or (node and line["target"] != node):
                continue
            key = line["what"], line["target"]
            if line["op"] == "begin":
                open_[key] = line["t"]
            elif key in open_:
                found.append((open_.pop(key), line["t"]))
        return found + [(begin, NEVER) for begin in open_.values()]

    def check_kept(self):
        addresses = {line["node"]: line["address"] for line in self.kinds["agent"]
                     if line["op"] == "start"}
        members = self.windows({line["what"] for line in self.kinds["fault"]
                                if "member" in line["what"]})
        by_subnet = defaultdict(list)
        for presence in self.presences:
            by_subnet[presence.subnet].append(presence)
        removed = late = 0
        for line, node, subnet, added in self.removals():
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
        records = {p.address: p for p in self.standing.values()}
        if len(records) != len(self.standing) or set(records) != {
                a["address"] for a in living.values()}:
            self.fail("converged", f"{len(living)} nodes live, etcd has the records of "
                      f"{sorted(p.name for p in self.standing.values())}")
        subnets = {p.subnet for p in self.standing.values()}
        if len(subnets) != len(self.standing):
            self.fail("converged", "two records in etcd have one subnet")
        for node, agent in sorted(living.items()):
            self.check_node(node, agent, tables.get(node), records, last_fault)

    def check_node(self, node, agent, table, records, last_fault):
        if not table:
            self.fail("converged", f"{node}'s routes were not looked at after the last fault")
            return
        if last_fault and table["t"] > last_fault + SETTLED_NS:
            self.fail("converged", f"{node}'s routes were looked at too late", table)
        wanted = {p.subnet: p.address for address, p in records.items()
                  if address != agent["address"]}
        if table["routes"] != wanted:
            missing = sorted(set(wanted.items()) - set(table["routes"].items()))
            extra = sorted(set(table["routes"].items()) - set(wanted.items()))
            self.fail("converged", f"{node}'s routes: missing {missing}, too many {extra}", table)
        states = [line for line in self.kinds["state"]
                  if line["node"] == node and line["placed"] <= table["t"]]
        if not any(c["node"] == node and c["verb"] == "ADD" and c["code"] == 0
                   and c["begin"] >= table["t"] for c in self.kinds["call"]):
            self.fail("converged", f"{node}'s plugin adds no pod in the end",
                      *[c for c in self.kinds["call"] if c["node"] == node][-2:])
        own = records.get(agent["address"])
        if not states or states[-1]["deadline"] <= table["t"] or not own or \
                states[-1]["subnet"] != own.subnet:
            self.fail("converged", f"{node} cannot give out addresses of the subnet that etcd "
                      f"says is its own ({own.subnet if own else 'none'})", *states[-1:])

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
