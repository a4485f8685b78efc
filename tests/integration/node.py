# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of deploy/ and init/ share: the build, what it installs, a node to put it on."""
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from machine import is_root

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("POPLIN_BUILD", TOP)).resolve()
MANIFESTS = TOP / "deploy/kubernetes"
READY = "curl -sSf http://127.0.0.1:9476/readyz"

needs_root = pytest.mark.skipif(not is_root(), reason="needs root")


def run(*argv, **kwargs):
    result = subprocess.run(argv, check=False, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **kwargs)
    assert result.returncode == 0, f"{argv} exits {result.returncode}:\n{result.stdout}"
    return result.stdout


def load_manifests():
    """{kind: document}"""
    documents = {}
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            documents[document["kind"]] = document
    return documents


def install(folder):
    """Installs the build under test into a folder."""
    if not (BUILD / "Makefile").exists():
        pytest.skip(f"{BUILD} was not configured")
    run("make", "-s", "install", f"DESTDIR={folder}", cwd=BUILD)
    return folder


def find_one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def prepare(machine):
    """A link to the other nodes, and etcd where the defaults look for it."""
    machine.run("""
        hostname node-1
        rm -rf /etc/cni /opt/cni
        ip link add uplink type veth peer name others
        ip link set others up
        ip link set uplink up
        ip address add 192.0.2.1/24 dev uplink
        ip route add default via 192.0.2.254
        setsid etcd --data-dir /tmp/etcd >/tmp/etcd.log 2>&1 </dev/null &
        """)
    machine.wait("ETCDCTL_API=3 etcdctl endpoint health")
    return machine
