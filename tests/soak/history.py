# SPDX-License-Identifier: GPL-2.0-or-later
"""What a log of tests/soak/recorder.py tells: records, routes and faults, with their times."""
import json
from collections import defaultdict
from dataclasses import dataclass

S = 1_000_000_000
NEVER = 1 << 63
RECORDS = "/poplin/nodes/"


@dataclass
class Route:
    """One that was in a node's table, with one gateway."""
    node: str
    subnet: str
    via: str
    start: int
    end: int
    added: int  # when that was told last
    went: dict  # the line; none where another gateway took its place


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


class History:
    def __init__(self, lines):
        self.lines = sorted(lines, key=lambda line: line["t"])
        self.kinds = defaultdict(list)
        for line in self.lines:
            self.kinds[line["k"]].append(line)

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
        return found

    def states(self):
        """(node, line, the next line of that node or None) of each state file."""
        by_node = defaultdict(list)
        for line in self.kinds["state"]:
            by_node[line["node"]].append(line)
        for node, states in by_node.items():
            for line, following in zip(states, [*states[1:], None]):
                yield node, line, following

    def find_routes(self):
        """All of them, as the kernel told it."""
        tables = defaultdict(dict)  # node -> subnet -> Route

        def end(line, subnet, went):
            route = tables[line["node"]].pop(subnet, None) or Route(
                line["node"], subnet, line["via"], line["t"], 0, 0, {})
            route.end, route.went = line["t"], went
            return route
        for line in sorted(self.kinds["route"] + self.kinds["nexthop"], key=lambda line: line["t"]):
            table = tables[line["node"]]
            if line["k"] == "nexthop":
                for subnet in [s for s, route in table.items() if route.via == line["via"]]:
                    yield end(line, subnet, line)
            elif line["op"] == "del":
                yield end(line, line["dst"], line)
            else:
                subnet, via = line["dst"], line["via"]
                if subnet in table and table[subnet].via != via:
                    yield end(line, subnet, {})
                table.setdefault(subnet, Route(line["node"], subnet, via, line["t"], NEVER, 0, {}))
                table[subnet].added = line["t"]
        for table in tables.values():
            yield from table.values()

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
