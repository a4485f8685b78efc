# SPDX-License-Identifier: GPL-2.0-or-later
"""The systemd unit, the SysV and the OpenRC script, on a throw-away machine with a real etcd."""
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from machine import SYSTEMD, Machine
from node import BUILD, READY, find_one, install, needs_root, prepare, run

LOG = "grep -r /var/log/poplind.log -e"


@pytest.fixture(scope="module", name="installed")
def installed_fixture(tmp_path_factory):
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture(name="machine")
def machine_fixture(installed, tmp_path):
    with Machine(tmp_path / "machine", installed) as machine:
        yield prepare(machine)


def check_running(machine, log):
    """The agent that an init script started works, and reloads."""
    machine.wait(READY)
    assert "poplin0" in machine.run("ip -brief link show poplin0").stdout
    assert machine.status("test -s /etc/cni/net.d/10-poplin.conflist") == 0
    machine.run("sed -i 's/^#LOG_LEVEL=.*/LOG_LEVEL=debug/' /etc/poplin/poplin.conf")
    machine.run(log["reload"])
    machine.wait(f"{log['find']} 'setting changed.*LOG_LEVEL'")


def check_refuses_wrong_configuration(machine, commands):
    machine.run("echo LEASE_TTL=never >>/etc/poplin/poplin.conf")
    for command in commands:
        result = machine.run(command, check=False)
        assert result.returncode != 0 and "LEASE_TTL" in result.stdout, (command, result.stdout)
    machine.run("sed -i /never/d /etc/poplin/poplin.conf")


@needs_root
def test_systemd_verifies_the_unit(machine, installed):
    unit = find_one(installed, "**/poplind.service").relative_to(installed)
    result = machine.run(f"systemd-analyze verify --man=no /{unit}", check=False)
    assert result.returncode == 0 and "poplind" not in result.stdout, result.stdout


@needs_root
def test_systemd_runs_the_unit(installed, tmp_path):
    if not Path(SYSTEMD).exists():
        pytest.skip(f"{SYSTEMD} is not installed")
    with Machine(tmp_path / "machine", installed, systemd=True) as machine:
        prepare(machine)
        # The unit's filter lets no sanitizer look for leaks (ptrace), which ends a program with 1.
        machine.run("mkdir -p /etc/systemd/system/poplind.service.d && "
                    "printf '[Service]\nEnvironment=ASAN_OPTIONS=detect_leaks=0\n' "
                    ">/etc/systemd/system/poplind.service.d/sanitizer.conf && "
                    "systemctl daemon-reload")
        check_refuses_wrong_configuration(
            machine, ["systemctl start poplind && sleep 1 && systemctl is-active poplind || "
                      "journalctl -u poplind && false"])
        # A wrong setting is not tried again and again.
        assert machine.run("systemctl show -P NRestarts poplind").stdout.strip() == "0"
        machine.run("systemctl start poplind")
        check_running(machine, {"reload": "systemctl reload poplind",
                                "find": "journalctl -u poplind | grep"})
        check_refuses_wrong_configuration(
            machine, ["systemctl reload poplind || { journalctl -u poplind -n 20; false; }"])
        machine.run(f"systemctl is-active poplind && {READY}")
        pid = machine.run("systemctl show -P MainPID poplind").stdout.strip()
        rights = machine.read(f"/proc/{pid}/status")
        assert re.search(r"CapEff:\s*0000000000001000\n", rights)
        assert re.search(r"NoNewPrivs:\s*1\n", rights)
        state = machine.read("/run/poplin/node.json")
        machine.run("systemctl stop poplind")
        assert json.loads(machine.read("/run/poplin/node.json"))["subnet"] == \
            json.loads(state)["subnet"]
        assert machine.status("ip link show poplin0") == 0
        machine.run("systemctl start poplind")
        machine.wait(READY)
        machine.run("systemctl kill -s KILL poplind")
        machine.wait(f"test $(systemctl show -P MainPID poplind) != {pid} && {READY}", 20)


@needs_root
def test_sysv_script(machine):
    script = "/etc/init.d/poplind"
    assert machine.status(f"{script} status") == 3
    assert machine.status(f"{script} reload") == 7
    assert machine.status(f"{script} no-such-thing") == 2
    check_refuses_wrong_configuration(machine, [f"{script} start"])
    machine.run(f"{script} start")
    pid = machine.read("/run/poplind.pid")
    machine.run(f"{script} start")
    assert machine.read("/run/poplind.pid") == pid
    assert machine.status(f"{script} status") == 0
    check_running(machine, {"reload": f"{script} reload", "find": LOG})
    # It must go on with the old settings, rather than stop and not start.
    check_refuses_wrong_configuration(machine, [f"{script} reload", f"{script} restart"])
    assert machine.status(f"{script} status") == 0
    subnet = machine.run("ip -brief address show poplin0").stdout
    machine.run(f"{script} restart")
    machine.wait(READY)
    machine.run(f"kill -KILL {machine.read('/run/poplind.pid')}")
    machine.wait(f"{script} status; test $? = 1")
    machine.run(f"{script} start")
    machine.wait(READY)
    machine.run(f"{script} stop")
    assert machine.status(f"{script} status") == 3
    machine.run(f"{script} stop")
    assert machine.run("ip -brief address show poplin0").stdout == subnet


@pytest.fixture(name="openrc")
def openrc_fixture(tmp_path):
    """OpenRC's files as a folder to lay over /: from Debian's packages, which are not installed."""
    if not shutil.which("apt-get"):
        pytest.skip("OpenRC is only tried with Debian's packages")
    # Debian 13 knows the libraries by another name.
    for package in ["openrc"], ["librc1", "librc1t64"], ["libeinfo1", "libeinfo1t64"]:
        results = [subprocess.run(["apt-get", "-qq", "download", name], cwd=tmp_path, check=False,
                                  capture_output=True, text=True) for name in package]
        if all(result.returncode for result in results):
            pytest.skip(f"apt-get download {package[0]}: {results[0].stderr.strip()}")
    files = tmp_path / "openrc"
    for package in tmp_path.glob("*.deb"):
        run("dpkg", "-x", package, files)
    for name in "bin", "sbin", "lib":  # these are links into /usr by now
        shutil.copytree(files / name, files / "usr" / name, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(files / name)
    return files


@needs_root
def test_openrc_script(machine, openrc):
    archive = subprocess.run(["tar", "-C", openrc, "-cf", "-", "."], check=True,
                             stdout=subprocess.PIPE).stdout
    machine.write("/tmp/openrc.tar", archive)
    machine.run("tar -C / -xf /tmp/openrc.tar --no-overwrite-dir")
    machine.write("/etc/init.d/poplind", (BUILD / "init/poplind.openrc").read_bytes())
    # What OpenRC makes at boot.
    machine.run("""
        cd /etc/init.d && for other in *; do test $other = poplind || rm -rf $other; done
        mkdir -p /etc/runlevels/default /etc/insserv.conf.d /etc/insserv/overrides
        touch /etc/insserv.conf
        cd /run && mkdir openrc && cd openrc && mkdir starting started stopping inactive \
            wasinactive failed hotplugged daemons options exclusive scheduled init.d tmp
        echo default >softlevel
        """)
    service = "rc-service poplind"
    assert machine.status(f"{service} status") == 3
    check_refuses_wrong_configuration(machine, [f"{service} start"])
    machine.run(f"{service} start")
    check_running(machine, {"reload": f"{service} reload", "find": LOG})
    check_refuses_wrong_configuration(machine, [f"{service} reload", f"{service} restart"])
    assert machine.status(f"{service} status") == 0
    machine.run("kill -KILL $(head -n 1 /run/poplin/poplind.lock)")
    machine.wait("! curl -s http://127.0.0.1:9476/readyz", 5)
    machine.wait(READY)
    machine.run(f"{service} restart")
    machine.wait(READY)
    machine.run(f"{service} stop")
    assert machine.status(f"{service} status") == 3
    assert machine.status("ip link show poplin0") == 0
