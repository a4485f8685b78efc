# SPDX-License-Identifier: GPL-2.0-or-later
"""Container runtimes that attach, check and remove real containers: containerd and podman.

The network is a running agent's, with the configuration and plugin that it wrote; the image is made
on the spot of busybox. Everything of the runtimes' own lies in the node's folder, and they run in
the node's network namespace and a mount namespace of their own.
"""
import contextlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import ENVIRONMENT, Process, run, wait_for
from machine import is_root

BUSYBOX = Path("/bin/busybox")
DEBIAN = Path("/usr/lib/cni")

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
]


class Runtime:
    """What both have in common: a place to run in, and a root file system."""

    program = None

    def __init__(self, node):
        if not shutil.which(self.program):
            pytest.skip(f"{self.program} is not installed")
        self.node = node
        self.dir = node.dir / self.program
        # Not ip netns exec, which mounts a /sys without the control groups.
        self.enter = ["nsenter", f"--net=/run/netns/{node.namespace}"]
        self.rootfs = self.dir / "rootfs"
        for folder in "bin", "proc", "sys", "dev", "etc", "tmp":
            (self.rootfs / folder).mkdir(parents=True)
        shutil.copy(BUSYBOX, self.rootfs / "bin/busybox")
        for name in "sh", "cat", "httpd", "ip", "ping", "sleep":
            (self.rootfs / "bin" / name).symlink_to("busybox")

    def inside(self, *argv, **kwargs):
        return run(*self.enter, *argv, env=ENVIRONMENT, **kwargs)


class Podman(Runtime):
    program = "podman"

    @contextlib.contextmanager
    def running(self):
        conf = self.dir / "containers.conf"
        settings = self.node.settings
        conf.write_text(
            '[network]\nnetwork_backend = "cni"\n'
            f'network_config_dir = "{Path(settings["CNI_CONFIG_LOCATION"]).parent}"\n'
            f'cni_plugin_dirs = ["{Path(settings["CNI_PLUGIN_LOCATION"]).parent}", "{DEBIAN}"]\n')
        try:
            yield self
        finally:
            self.podman("rm", "-fa", "-t", "0", check=False)

    def podman(self, *argv, **kwargs):
        # crun does not know every layout of control groups, runc knows more.
        return self.inside("env", f"CONTAINERS_CONF={self.dir}/containers.conf", "podman",
                           "--runtime=runc", "--cgroup-manager=cgroupfs",
                           f"--root={self.dir}/root", f"--runroot={self.dir}/run",
                           f"--tmpdir={self.dir}/tmp", *argv, **kwargs)

    def start(self, name, *options, command=("/bin/sleep", "600")):
        # Of its own file system: containers of one --rootfs would share it.
        return self.podman("run", "-d", "--name", name, "--network", "poplin",
                           "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", *options,
                           "--rootfs", f"{self.rootfs}:O", *command).strip()

    def execute(self, name, *argv):
        return self.podman("exec", name, *argv)

    def stop(self, name):
        self.podman("rm", "-f", "-t", "0", name)


class Containerd(Runtime):
    program = "containerd"

    @contextlib.contextmanager
    def running(self):
        config = self.dir / "config.toml"
        config.write_text(f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
                          'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                          f'[grpc]\naddress = "{self.dir}/socket"\n')
        settings = self.node.settings
        # ctr looks where containerd does by default.
        places = {"/etc/cni/net.d": Path(settings["CNI_CONFIG_LOCATION"]).parent,
                  "/opt/cni/bin": Path(settings["CNI_PLUGIN_LOCATION"]).parent}
        mounts = "mount -t tmpfs none /opt; mkdir -p /etc/cni/net.d /opt/cni/bin; " + "".join(
            f"mount --bind {there} {here}; " for here, there in places.items())
        self.daemon = Process(
            [*self.enter, "unshare", "-m", "sh", "-ec",
             f"{mounts} exec containerd --config {config}"], self.dir / "containerd.log")
        try:
            wait_for(lambda: self.ctr("version", check=False).count("Version:") == 2, "containerd")
            yield self
        finally:
            for name in self.ctr("containers", "list", "-q", check=False).split():
                self.stop(name)
            self.daemon.end()

    def ctr(self, *argv, **kwargs):
        return run("nsenter", "-t", self.daemon.pid, "-m", "-n", "ctr", "-a", f"{self.dir}/socket",
                   *argv, env=ENVIRONMENT, **kwargs)

    def start(self, name):
        self.ctr("run", "-d", "--cni", "--rootfs", self.rootfs, name, "/bin/sleep", "600")
        # As libcni is told by ctr: the id with its namespace.
        return f"default-{name}"

    def execute(self, name, *argv):
        return self.ctr("task", "exec", "--exec-id", f"x{os.getpid()}", name, *argv)

    def stop(self, name):
        # ctr detaches only what it ran in the foreground; a runtime's own call is libcni's.
        self.ctr("task", "kill", "-s", "KILL", name, check=False)
        wait_for(lambda: not re.search(rf"^{name} .*RUNNING", self.ctr("task", "list"), re.M),
                 f"the end of {name}")
        self.ctr("task", "delete", name, check=False)
        self.ctr("containers", "delete", name, check=False)


def links(node):
    return [link["ifname"] for link in node.ip_json("link", "show", "master", "poplin0")]


def held(node):
    return {pod["container"]: pod["address"] for pod in node.status("/status/pods")["pods"]}


def check_container(runtime, name, address, gateway):
    out = runtime.execute(name, "/bin/ip", "-o", "address", "show", "dev", "eth0")
    assert f"{address}/" in out, out
    assert "LOOPBACK,UP" in runtime.execute(name, "/bin/ip", "link", "show", "lo")
    runtime.execute(name, "/bin/ping", "-c1", "-W3", gateway)


def gateway_of(node):
    subnet = node.subnet.split("/")[0]
    return subnet.rsplit(".", 1)[0] + "." + str(int(subnet.rsplit(".", 1)[1]) + 1)


def test_podman(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node, = cluster.start_nodes(1)
    with Podman(node).running() as podman:
        names = [f"p{i}" for i in range(3)]
        with ThreadPoolExecutor(3) as pool:
            ids = list(pool.map(podman.start, names))
        assert set(held(node)) == set(ids) and len(links(node)) == 3
        for name, container in zip(names, ids):
            check_container(podman, name, held(node)[container], gateway_of(node))
        podman.execute("p0", "/bin/ping", "-c1", "-W3", held(node)[ids[1]])
        told = json.loads(podman.podman("inspect", "p0"))[0]["NetworkSettings"]["Networks"]
        told = told["poplin"]
        assert told["IPAddress"] == held(node)[ids[0]] and told["Gateway"] == gateway_of(node)
        podman.stop("p1")
        assert set(held(node)) == {ids[0], ids[2]} and len(links(node)) == 2
        for name in "p0", "p2":
            podman.stop(name)
        assert held(node) == {} and links(node) == []


@pytest.mark.skipif(not (DEBIAN / "portmap").exists(), reason=f"no plugins in {DEBIAN}")
def test_podman_with_plugins_that_follow(make_cluster):
    """CNI_CHAIN: a port of the node is the container's."""
    cluster = make_cluster(LEASE_TTL=60)
    node, other = cluster.start_nodes(2)
    chain = node.dir / "chain.json"
    chain.write_text(json.dumps([
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 10_000_000},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        {"type": "firewall", "backend": "iptables"}]))
    node.write_config(CNI_CHAIN=chain)
    node.hangup()
    config = Path(node.settings["CNI_CONFIG_LOCATION"])
    wait_for(lambda: len(json.loads(config.read_text())["plugins"]) == 5, "the five plugins")

    def get():
        return run("ip", "netns", "exec", other.namespace, "curl", "-s", "-m", "5",
                   f"http://{node.address}:8080/", check=False)

    def rules():
        return run("ip", "netns", "exec", node.namespace, "nft", "list", "ruleset")

    with Podman(node).running() as podman:
        (podman.rootfs / "index.html").write_text("hello")
        container = podman.start("web", "-p", "8080:80",
                                 command=("/bin/httpd", "-f", "-p", "80", "-h", "/"))
        address = held(node)[container]
        assert wait_for(get, "the web server to answer") == "hello"
        assert address in rules()
        assert podman.execute("web", "/bin/cat", "/proc/sys/net/core/somaxconn").strip() == "500"
        podman.stop("web")
        assert get() == "" and address not in rules()
        assert held(node) == {} and links(node) == []


def test_containerd(make_cluster):
    cluster = make_cluster(LEASE_TTL=60)
    node, = cluster.start_nodes(1)
    with Containerd(node).running() as containerd:
        # In the foreground ctr attaches, and detaches at the end.
        out = containerd.ctr(
            "run", "--rm", "--cni", "--rootfs", containerd.rootfs, "once", "/bin/sh", "-c",
            f"ip -o address show dev eth0; ping -c1 -W3 {gateway_of(node)}")
        assert "inet " in out and "1 packets received" in out, out
        assert held(node) == {} and links(node) == []
        names = [f"c{i}" for i in range(3)]
        ids = [containerd.start(name) for name in names]
        assert set(held(node)) == set(ids) and len(links(node)) == 3
        for name, container in zip(names, ids):
            check_container(containerd, name, held(node)[container], gateway_of(node))
        # libcni keeps the result of ADD; CHECK and DEL get it back as a runtime gives it.
        for name, container in zip(names, ids):
            cached = cached_result(container)
            config = {**node.plugin_config(), "prevResult": cached}
            pid = containerd.ctr("task", "list").partition(name)[2].split()[0]
            environment = {"CNI_CONTAINERID": container, "CNI_IFNAME": "eth0",
                           "CNI_NETNS": f"/proc/{pid}/ns/net"}
            assert node.cni("CHECK", config=config, **environment) is None
            containerd.stop(name)
            # The namespace is gone by now, as after a crash of the runtime.
            assert node.cni("DEL", config=config, **environment) is None
            assert container not in held(node)
        assert held(node) == {} and links(node) == []


def cached_result(container):
    (path,) = Path("/var/lib/cni/results").glob(f"*{container}-eth0")
    result = json.loads(path.read_text())["result"]
    path.unlink()
    return result
