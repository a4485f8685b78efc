# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes down what happens to a cluster, as JSON lines, for the checker to judge.

Every line has "t", nanoseconds of CLOCK_BOOTTIME, by which the agents' deadlines count too, and "k",
its kind:

    etcd	a change of any key at all, with its revision: who claims, who goes
    beat	a put of ours was sent. What etcd did in a later revision, it did later than that
    state	a node state file was put in place: until when ADD may hand out addresses
    route	the kernel's notification of a route of ours that came or went
    nexthop	the same of a nexthop that went, and took its routes along without a word
    table	a node's routes, as the kernel lists them: subnet and gateway
    listed	the nodes' records, as etcd lists them: key and value
    call	of the plugin, which began at "begin": its code (0: done), for ADD the address's subnet
    memory	of an agent
    lost	something was missed, so that nothing can be proved

Of etcd it has a watch at each member, from inside of the member's namespace, where no fault cuts
it off; they are put together by their revisions.
"""
import base64
import ctypes
import http.client
import json
import os
import re
import selectors
import socket
import struct
import threading
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
STATE_FILE = "node.json"
BEAT_KEY = "/soak/beat"
BEAT_S = 0.25
SILENCE_S = 3  # of a watch: beats come all the time, so its member is stopped

IN_MOVED_TO, IN_DELETE = 0x80, 0x200
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, SO_RCVBUFFORCE = 270, 1, 33
GROUP_IPV4_ROUTE, GROUP_NEXTHOP = 7, 32
NEWROUTE, DELROUTE, DELNEXTHOP = 24, 25, 105
RTA_DST, RTA_GATEWAY, RTA_NH_ID, NHA_ID = 1, 5, 30, 1


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_of_real_ns():
    """What to add to a time of the real clock; of some tries the one that nothing interrupted."""
    tries = []
    for _ in range(3):
        before, real, after = boot_ns(), time.time_ns(), boot_ns()
        tries.append((after - before, before - real))
    return min(tries)[1]


def b64(text):
    return base64.b64encode(text.encode()).decode()


def socket_in(namespace, *kind):
    """A socket keeps to the namespace that it was made in; the thread goes back to its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if LIBC.setns(there, 0):
            raise OSError(ctypes.get_errno(), "setns")
        return socket.socket(*kind)
    finally:
        LIBC.setns(home, 0)
        os.close(there)
        os.close(home)


class Log:
    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115: closed by close()
        self.lock = threading.Lock()

    def write(self, kind, t=None, **fields):
        line = json.dumps({"t": t or boot_ns(), "k": kind, **fields}, separators=(",", ":"))
        with self.lock:
            self.file.write(line + "\n")

    def close(self):
        with self.lock:
            self.file.close()


# -- etcd -----------------------------------------------------------------------

class Store:
    """Every change of etcd once, in order, and the beats."""

    def __init__(self, log, members):
        self.log, self.members = log, members
        self.lock = threading.Lock()
        self.revision = 0
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._watch, args=(m,), daemon=True)
                        for m in members]
        self.threads.append(threading.Thread(target=self._beat, daemon=True))
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _post(member, path, body, timeout):
        connection = http.client.HTTPConnection("127.0.0.1", 2379)
        connection.sock = socket_in(member.namespace, socket.AF_INET, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect(("127.0.0.1", 2379))
            connection.request("POST", path, json.dumps(body))
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _watch(self, member):
        while not self.stopped.is_set():
            try:
                self._watch_once(member)
            except (OSError, http.client.HTTPException, ValueError):
                self.stopped.wait(0.2)

    def _watch_once(self, member):
        everything = {"key": b64("\0"), "range_end": b64("\0"),
                      "start_revision": str(self.revision + 1)}
        connection, response = self._post(member, "/v3/watch", {"create_request": everything},
                                          SILENCE_S)
        try:
            while not self.stopped.is_set():
                line = response.readline()
                if not line:
                    return
                result = json.loads(line).get("result", {})
                if result.get("canceled"):
                    # Nothing lost yet: the others may have told it. The checker sees gaps.
                    with self.lock:
                        self.revision = max(self.revision,
                                            int(result.get("compact_revision", 0)) - 1)
                    return
                self._take(result.get("events", []))
        finally:
            connection.close()

    def _take(self, events):
        now = boot_ns()
        with self.lock:
            # One answer holds whole revisions.
            news = [e for e in events if int(e["kv"]["mod_revision"]) > self.revision]
            for event in news:
                kv = event["kv"]
                revision = int(kv["mod_revision"])
                self.revision = max(self.revision, revision)
                self.log.write("etcd", now, rev=revision,
                               op="delete" if event.get("type") == "DELETE" else "put",
                               key=base64.b64decode(kv["key"]).decode(errors="replace"),
                               value=base64.b64decode(kv.get("value", "")).decode(errors="replace"),
                               lease=kv.get("lease", "0"))

    def _beat(self):
        number = 0
        while not self.stopped.wait(BEAT_S):
            number += 1
            member = self.members[number % len(self.members)]
            sent = boot_ns()
            self.log.write("beat", sent, n=number)
            try:
                connection, _ = self._post(member, "/v3/kv/put", {
                    "key": b64(BEAT_KEY), "value": b64(str(number))}, 0.5)
                connection.close()
            except (OSError, http.client.HTTPException):
                pass  # it may arrive yet: it was sent, no more is concluded from it

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(2 * SILENCE_S)


# -- nodes -------------------------------------------------------------------------

def attributes(data):
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3fff] = data[4:size]
        data = data[(size + 3) & ~3:]
    return found


def messages(data):
    while len(data) >= 16:
        size, kind, _flags = struct.unpack_from("=IHH", data)
        yield kind, data[16:size]
        data = data[(size + 3) & ~3:]


class Nodes:
    """State files and notifications of all nodes, read by one thread."""

    def __init__(self, log, nodes, protocol=84):
        self.log, self.nodes, self.protocol = log, nodes, protocol
        self.stopped = threading.Event()
        self.selector = selectors.DefaultSelector()
        self.inotify = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.inotify, selectors.EVENT_READ, None)
        self.watched = {}
        self.sockets = []
        for node in nodes:
            folder = Path(node.settings["STATE_DIR"])
            folder.mkdir(parents=True, exist_ok=True)
            number = LIBC.inotify_add_watch(self.inotify, os.fsencode(folder),
                                            IN_MOVED_TO | IN_DELETE)
            self.watched[number] = (node.name, folder / STATE_FILE)
            self._listen(node)
        self.threads = [threading.Thread(target=run, daemon=True)
                        for run in (self._run, self._sample)]
        for thread in self.threads:
            thread.start()

    def _listen(self, node):
        sock = socket_in(node.namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        sock.bind((0, 0))
        for group in GROUP_IPV4_ROUTE, GROUP_NEXTHOP:
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        sock.setblocking(False)
        self.sockets.append(sock)
        self.selector.register(sock, selectors.EVENT_READ, (node.name, sock))

    def _run(self):
        while not self.stopped.is_set():
            for key, _ in self.selector.select(0.5):
                if key.data is None:
                    self._read_inotify()
                else:
                    self._read_netlink(*key.data)

    def _read_netlink(self, name, sock):
        while True:
            try:
                data = sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS
                self.log.write("lost", what=f"notifications of {name}: {error}")
                return
            now = boot_ns()
            for kind, body in messages(data):
                self._notified(name, now, kind, body)

    def _notified(self, name, now, kind, body):
        if kind in (NEWROUTE, DELROUTE) and body[5] == self.protocol:
            found = attributes(body[12:])
            via = found.get(RTA_GATEWAY) or found.get(RTA_NH_ID, b"\0\0\0\0")[::-1]
            self.log.write("route", now, node=name, op="add" if kind == NEWROUTE else "del",
                           dst=f"{socket.inet_ntoa(found[RTA_DST])}/{body[1]}",
                           via=socket.inet_ntoa(via))
        elif kind == DELNEXTHOP:
            # The nexthop's number is the gateway's address.
            via = attributes(body[8:])[NHA_ID][::-1]
            self.log.write("nexthop", now, node=name, op="del", via=socket.inet_ntoa(via))

    def _read_inotify(self):
        data = os.read(self.inotify, 1 << 16)
        while data:
            number, mask, _, size = struct.unpack_from("iIII", data)
            file = data[16:16 + size].rstrip(b"\0").decode()
            data = data[16 + size:]
            if number == -1:
                self.log.write("lost", what="changes of state files")
            elif file == STATE_FILE:
                self._read_state(*self.watched[number], mask)

    def _read_state(self, name, path, mask):
        try:
            with open(path, encoding="utf-8") as file:
                state, stat = json.load(file), os.fstat(file.fileno())
        except FileNotFoundError:
            if mask & IN_DELETE:
                # A file that is gone has no times; its folder's is late if more happened there.
                gone = os.stat(os.path.dirname(path)).st_mtime_ns + boot_of_real_ns()
                now = boot_ns()
                self.log.write("state", now, node=name, subnet=None, deadline=0, written=gone,
                               placed=min(gone, now))
            return
        now, boot_of = boot_ns(), boot_of_real_ns()
        # A file that was replaced meanwhile has the time of that.
        placed = stat.st_ctime_ns if stat.st_nlink else stat.st_mtime_ns
        self.log.write("state", now, node=name, name=state["node"], subnet=state["subnet"],
                       deadline=state["leaseDeadlineBootNs"], written=stat.st_mtime_ns + boot_of,
                       placed=placed + boot_of)

    def _sample(self):
        """Memory, and agents that ended by themselves."""
        ended = set()
        while not self.stopped.wait(5):
            for node in self.nodes:
                process = node.process
                if not process:
                    continue
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                    rss = re.search(r"VmRSS:\s+(\d+)", status)
                    if rss:
                        self.log.write("memory", node=node.name, pid=process.pid,
                                       rss_kib=int(rss[1]))
                except OSError:
                    pass
                if process.pid not in ended and not process.alive() and not process.ended:
                    ended.add(process.pid)
                    self.log.write("died", node=node.name, pid=process.pid,
                                   status=process.popen.returncode)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(10)
        for sock in self.sockets:
            sock.close()
        os.close(self.inotify)


class Recorder:
    def __init__(self, path, cluster):
        self.log = Log(path)
        self.store = Store(self.log, cluster.members)
        self.nodes = Nodes(self.log, list(cluster.nodes.values()))

    def write(self, kind, **fields):
        self.log.write(kind, **fields)

    def close(self):
        self.nodes.stop()
        self.store.stop()
        self.log.close()
