# SPDX-License-Identifier: GPL-2.0-or-later
"""State on a disk outlives a boot, pods do not: what another boot left holds no address.

A boot is another id of the kernel's, put over the real one in a mount namespace of the plugin's."""
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cnilib import PLUGIN, Node
from machine import is_root

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(not PLUGIN.exists(), reason=f"{PLUGIN} is not built"),
]

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FEW = {"ipam": {"ranges": [[{"subnet": "10.2.1.0/24", "rangeEnd": "10.2.1.3"}]]}}  # two pods


def kind_of(folder):
    return subprocess.run(["stat", "-f", "-c", "%T", folder], text=True, capture_output=True,
                          check=True).stdout.strip()


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    with Node() as made:
        yield made


@pytest.fixture
def disk(node):
    if kind_of(node.folder) in ("tmpfs", "ramfs"):
        pytest.skip("/var/tmp is on no disk")
    return node


def boot(node, number):
    """From now on it is that boot; its pods' links are gone with the one before."""
    for link in node.links():
        node.netns.ip("link", "delete", link)
    path = node.folder / f"boot-{number}"
    path.write_text(f"00000000-0000-4000-8000-{number:012}\n")
    node.prefix = ["/usr/bin/unshare", "-m", "/bin/sh", "-c",
                   f'mount --bind {path} {BOOT_ID} && exec "$@"', "sh"]
    node.write_state()


def status(node, conf):
    return node.run("STATUS", {**conf, "cniVersion": "1.1.0"})


def test_addresses_of_another_boot_are_free(disk):
    conf = disk.config(**FEW)
    boot(disk, 1)
    for name in "a", "b":
        assert disk.add(name, disk.pod(), conf=conf).code == 0
    full = disk.add("c", disk.pod(), conf=conf)
    assert full.code == 1 and full.json["code"] == 100, full
    assert status(disk, conf).json["code"] == 50
    boot(disk, 2)
    # Whoever only reads changes nothing, and is not told of addresses that nobody holds.
    assert status(disk, conf).code == 0
    assert set(disk.held().values()) == {"a:eth0", "b:eth0"}
    assert disk.add("a", disk.pod(), conf=conf).code == 0
    assert list(disk.held().values()) == ["a:eth0"] and list(disk.attachments()) == ["a:eth0"]
    assert disk.add("d", disk.pod(), conf=conf).code == 0
    assert disk.add("e", disk.pod(), conf=conf).json["code"] == 100
    assert disk.delete("b", conf=conf).code == 0  # of the first boot: there is nothing
    assert len(disk.held()) == 2


def test_del_and_gc_begin_a_boot_as_well(disk):
    conf = disk.config(**FEW)
    for number, command in enumerate(("DEL", "GC"), 1):
        boot(disk, 2 * number)
        for name in "a", "b":
            assert disk.add(name, disk.pod(), conf=conf).code == 0
        boot(disk, 2 * number + 1)
        if command == "DEL":
            answer = disk.delete("a", conf=conf)
        else:
            answer = disk.run("GC", {**conf, "cniVersion": "1.1.0",
                                     "cni.dev/valid-attachments": []})
        assert answer.code == 0, answer
        disk.assert_empty()


def test_state_without_a_boot_is_kept(disk):
    """An older version wrote none."""
    conf = disk.config(**FEW)
    boot(disk, 1)
    assert disk.add("a", disk.pod(), conf=conf).code == 0
    (disk.ipam / "boot").unlink()
    disk.prefix = []
    assert disk.add("b", disk.pod(), conf=conf).code == 0
    assert set(disk.held().values()) == {"a:eth0", "b:eth0"}
    assert os.readlink(disk.ipam / "boot") == Path(BOOT_ID).read_text().strip()


def test_a_boot_is_not_noted_on_a_tmpfs(node):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", node.folder], check=True)
    try:
        node.write_state()
        assert node.add("a", node.pod()).code == 0
        assert not (node.ipam / "boot").is_symlink()
        assert node.delete("a").code == 0
    finally:
        subprocess.run(["umount", node.folder], check=True)
