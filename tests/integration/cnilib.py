# SPDX-License-Identifier: GPL-2.0-or-later
"""A node for the CNI plugin: a network namespace with a bridge, a state folder, pods' namespaces.

No agent and no etcd: what the agent would leave for the plugin (bridge, node.json, configuration)
is written here. All names carry this process's id and go away with the node. Needs root.
"""
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PLUGIN = Path(os.environ.get("POPLIN_BUILD", TOP)).resolve() / "poplin"
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

_numbers = itertools.count()


def ip(*argv, netns=None, check=True):
    """Runs ip(8); with -json among the arguments the answer is decoded."""
    where = ["-n", netns] if netns else []
    done = subprocess.run(["ip", *where, *argv], check=False, text=True, capture_output=True,
                          timeout=60)
    assert not check or done.returncode == 0, f"ip {argv}: {done.stderr}"
    return json.loads(done.stdout or "[]") if "-json" in argv else done.stdout


class Namespace:
    """A network namespace of `ip netns`; .path is what CNI_NETNS gets."""

    def __init__(self, kind):
        self.name = f"poplin-cni-{os.getpid()}-{next(_numbers)}-{kind}"
        self.path = f"/run/netns/{self.name}"
        ip("netns", "add", self.name)

    def ip(self, *argv, **kwargs):
        return ip(*argv, netns=self.name, **kwargs)

    def remove(self):
        if os.path.exists(self.path):
            ip("netns", "delete", self.name)


class Answer:
    """What a run of the plugin gave; .json is None when standard output was empty."""

    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self.json = json.loads(stdout) if stdout.strip() else None

    def __repr__(self):
        return f"exit {self.code}, {self.stdout!r}, stderr {self.stderr!r}"


class Node:
    """with Node() as node: node.add("c1", pod)"""

    def __init__(self, family=4, subnet=None):
        self.network = "10.2.0.0/16" if family == 4 else "fd00:2::/48"
        self.subnet = subnet or ("10.2.1.0/24" if family == 4 else "fd00:2:0:1::/64")
        self.bridge = "poplin0"
        self.mtu = 1400
        self.keys = {}  # more for each configuration
        self.prefix = []  # what starts the plugin
        self.pods = []
        self.folder = None
        self.netns = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="poplin-cni-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.netns = Namespace("node")
            stack.callback(self.netns.remove)
            stack.callback(self._remove_pods)
            # As the agent does: a MAC that is given stays, whatever ports come and go.
            self.netns.ip("link", "add", self.bridge, "address", "02:70:00:00:00:01", "mtu", str(self.mtu), "type", "bridge")
            self.netns.ip("address", "add", self._gateway(), "dev", self.bridge, "nodad")
            self.netns.ip("link", "set", self.bridge, "up")
            self.write_state()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _remove_pods(self):
        for pod in self.pods:
            pod.remove()

    def _gateway(self):
        base, length = self.subnet.split("/")
        if ":" in base:
            return f"{base}1/{length}"
        head, last = base.rsplit(".", 1)
        return f"{head}.{int(last) + 1}/{length}"

    @property
    def gateway(self):
        return self._gateway().split("/", 1)[0]

    @property
    def ipam(self):
        return self.folder / "ipam" / "poplin"

    def pod(self):
        pod = Namespace("pod")
        self.pods.append(pod)
        return pod

    def write_state(self, seconds=3600, subnet=None):
        """The lease's end is so many seconds away; None: there is no lease."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        (self.folder / "node.json").write_text(json.dumps({
            "node": "n1", "subnet": subnet or self.subnet,
            "leaseDeadlineBootNs": 0 if seconds is None else now + int(seconds * 1e9)}))

    def config(self, version="1.0.0", ipam=None, **changes):
        """The agent's configuration, as a runtime hands it on. A change to None leaves the key
        out; those of ipam are changes of its own."""
        inner = {"type": "poplin", "ranges": [[{"subnet": self.subnet}]],
                 "dataDir": str(self.folder / "ipam"), **(ipam or {})}
        conf = {"cniVersion": version, "name": "poplin", "type": "poplin",
                "network": self.network, "bridge": self.bridge, "mtu": self.mtu,
                "isDefaultGateway": True, "hairpinMode": True, "stateDir": str(self.folder),
                "ipam": {key: value for key, value in inner.items() if value is not None},
                **self.keys, **changes}
        return {key: value for key, value in conf.items() if value is not None}

    def old_config(self, version="1.0.0"):
        """What the agent wrote before "ipam": a runtime may have kept it for the DEL of a pod."""
        return {"cniVersion": version, "name": "poplin", "type": "poplin",
                "network": self.network, "subnet": self.subnet, "bridge": self.bridge,
                "mtu": self.mtu, "stateDir": str(self.folder)}

    # -- runs -----------------------------------------------------------------------

    def start(self, command, conf, stdout=subprocess.PIPE, **variables):
        """Starts the plugin on the node. conf: a dict, text or bytes."""
        if isinstance(conf, dict):
            conf = json.dumps(conf)
        if isinstance(conf, str):
            conf = conf.encode()
        env = {key: value for key, value in os.environ.items()
               if not key.startswith("CNI_") and key.endswith("SAN_OPTIONS")}
        env.update({f"CNI_{key}": value for key, value in variables.items() if value is not None})
        if command is not None:
            env["CNI_COMMAND"] = command
        stdin = tempfile.TemporaryFile()
        stdin.write(conf)
        stdin.seek(0)
        with stdin:
            # No PATH: the plugin must not need another program.
            return subprocess.Popen(
                ["/usr/bin/nsenter", f"--net={self.netns.path}", *self.prefix, str(PLUGIN)], env=env,
                stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)

    def run(self, command, conf, **variables):
        process = self.start(command, conf, **variables)
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 1), f"{process.returncode}: {stderr.decode()}"
        return Answer(process.returncode, (stdout or b"").decode(), stderr.decode())

    def add(self, container, pod, version="1.0.0", ifname="eth0", conf=None, **variables):
        variables.setdefault("NETNS", pod if pod is None or isinstance(pod, str) else pod.path)
        return self.run("ADD", conf or self.config(version), CONTAINERID=container,
                        IFNAME=ifname, **variables)

    def delete(self, container, version="1.0.0", ifname="eth0", conf=None, **variables):
        return self.run("DEL", conf or self.config(version), CONTAINERID=container,
                        IFNAME=ifname, **variables)

    # -- what is there -----------------------------------------------------------------

    def links(self):
        """{name: link} of everything on the node but lo and the bridge."""
        return {link["ifname"]: link
                for link in self.netns.ip("-json", "-details", "link", "show")
                if link["ifname"] not in ("lo", self.bridge)}

    def held(self):
        """{address: owner}"""
        folder = self.ipam / "addresses"
        names = os.listdir(folder) if folder.exists() else []
        return {name: os.readlink(folder / name) for name in names}

    def attachments(self):
        folder = self.ipam / "attachments"
        names = os.listdir(folder) if folder.exists() else []
        return {name: os.readlink(folder / name) for name in names}

    def elements(self):
        """Of all sets and maps of nftables; [] without any table."""
        done = subprocess.run(["ip", "netns", "exec", self.netns.name, "nft", "-j", "list",
                               "ruleset"], text=True, capture_output=True, check=True)
        sets = [item.get("set") or item.get("map") or {}
                for item in json.loads(done.stdout)["nftables"]]
        return [element for found in sets for element in found.get("elem", [])]

    def assert_empty(self):
        assert self.links() == {}
        assert self.held() == {}
        assert self.attachments() == {}


def pod_links(pod):
    return [link["ifname"] for link in pod.ip("-json", "link", "show") if link["ifname"] != "lo"]


def mac_of(netns, name):
    (link,) = netns.ip("-json", "link", "show", "dev", name)
    return link["address"]
