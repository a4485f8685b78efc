# SPDX-License-Identifier: GPL-2.0-or-later
"""The container image, run by podman with just the rights that the DaemonSet grants."""
import json
import os
import re
import shutil
import subprocess

import pytest

from machine import Machine, is_root
from node import BUILD, READY, TOP, install, load_manifests, needs_root, prepare, run


@pytest.fixture(scope="module", name="manifests")
def manifests_fixture():
    return load_manifests()


@pytest.fixture(scope="module", name="installed")
def installed_fixture(tmp_path_factory):
    return install(tmp_path_factory.mktemp("installed"))


def libraries(program):
    """The shared libraries that a program needs, one a line; "" for none."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return "".join(line for line in listed.splitlines(True) if "(0x" in line)


def what_was_built(_, names):
    built = re.compile(r"\.git|.*\.[oa]|\.deps|config\.(status|h)|Makefile|build(-(?!aux$).*)?")
    return [name for name in names if built.fullmatch(name)]


@pytest.fixture(scope="module", name="plain")
def plain_fixture(tmp_path_factory):
    """A build as an image needs it: no sanitizers, the plugin linked statically."""
    sanitizers = re.search("lib[at]san", libraries(BUILD / "poplind"))
    if (BUILD / "poplin").exists() and not libraries(BUILD / "poplin") and not sanitizers:
        return BUILD
    if not (TOP / "configure").exists():
        pytest.skip("there is no configure script")
    # A copy: a source folder that is itself configured cannot be built elsewhere.
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(TOP, folder / "source", symlinks=True, ignore=what_was_built)
    (folder / "build").mkdir()
    run(folder / "source/configure", "-q", "--enable-static-plugin", cwd=folder / "build")
    run("make", "-s", "-j2", "poplind", "poplin", "poplinctl", cwd=folder / "build", timeout=600)
    return folder / "build"


def test_root_file_system_is_complete(plain, tmp_path):
    root = tmp_path / "rootfs"
    run(TOP / "deploy/image/rootfs", root, cwd=plain)
    (plugin,) = root.glob("**/libexec/poplin/poplin")
    assert libraries(plugin) == "", "the plugin would need libraries of the host"
    if is_root():
        for program in "poplind", "poplinctl":
            assert program in run("chroot", root, "/bin/sh", "-c", f"{program} --version", env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    refused = subprocess.run([TOP / "deploy/image/rootfs", root], cwd=plain, capture_output=True,
                             text=True, check=False)
    assert refused.returncode == 1 and "exists" in refused.stderr


TAG = "localhost/poplin:test"
OPTIONS = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
# A store of the throw-away machine's own: below /var it would see the real one's.
PODMAN = ["podman", "--root=/tmp/podman/store", "--runroot=/tmp/podman/run", *OPTIONS]
# Limits that any machine's hard limits allow, and no cgroups, whose layout differs by machine.
RUN = ["run", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]


@pytest.fixture(scope="module", name="image")
def image_fixture(plain, tmp_path_factory):
    """An archive of the image that deploy/image/build makes."""
    if not shutil.which("podman") or not is_root():
        pytest.skip("needs podman, and root")
    folder = tmp_path_factory.mktemp("image")
    options = [f"--root={folder}/store", f"--runroot={folder}/r", *OPTIONS]
    output = run(TOP / "deploy/image/build", "--builder", "podman", "--tag", TAG, cwd=plain,
                 env={**os.environ, "POPLIN_BUILDER_OPTIONS": " ".join(options)})
    assert output.splitlines()[-1] == TAG
    run("podman", *options, "save", "--quiet", "--output", folder / "image.tar", TAG)
    run("podman", *options, "rmi", "--all", "--force")
    return folder / "image.tar"


def podman_arguments(manifests):
    """What kubelet would make of the DaemonSet, as far as podman can say it."""
    pod = manifests["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    rights = container["securityContext"]
    arguments = ["--network=host", f"--user={rights['runAsUser']}:{rights['runAsGroup']}"]
    arguments += [f"--cap-drop={name}" for name in rights["capabilities"]["drop"]]
    arguments += [f"--cap-add={name}" for name in rights["capabilities"]["add"]]
    if rights["readOnlyRootFilesystem"]:
        arguments += ["--read-only", "--read-only-tmpfs=false"]
    if not rights["allowPrivilegeEscalation"]:
        arguments += ["--security-opt=no-new-privileges"]
    arguments += ["--env=NODE_NAME=node-1"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        source = volume["hostPath"]["path"] if "hostPath" in volume else f"/srv/{mount['name']}"
        suffix = ":ro" if mount.get("readOnly") else ""
        arguments.append(f"--volume={source}:{mount['mountPath']}{suffix}")
    return arguments


# An authority and a certificate for 127.0.0.1, and an etcd that has it.
TLS_ETCD = """
    cd /tmp
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
    openssl req -newkey rsa:2048 -nodes -keyout etcd.key -out etcd.csr -subj /CN=etcd
    echo subjectAltName=IP:127.0.0.1 >etcd.ext
    openssl x509 -req -in etcd.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out etcd.crt -days 2 \
        -extfile etcd.ext
    setsid etcd --data-dir /tmp/etcd-tls --cert-file etcd.crt --key-file etcd.key \
        --listen-client-urls https://127.0.0.1:4379 --advertise-client-urls https://127.0.0.1:4379 \
        --listen-peer-urls http://127.0.0.1:4380 >/tmp/etcd-tls.log 2>&1 </dev/null &
    """


def prepare_node(machine, manifests, image):
    """What kubelet and an administrator would have put there."""
    prepare(machine)
    machine.run(TLS_ETCD)
    machine.wait("curl -sSf --cacert /tmp/ca.crt https://127.0.0.1:4379/version")
    config = re.sub(r"(?m)^ETCD_HOST=.*", "ETCD_HOST=https://127.0.0.1:4379",
                    manifests["ConfigMap"]["data"]["poplin.conf"])
    config = re.sub(r"(?m)^#ETCD_CA_FILE=.*", "ETCD_CA_FILE=/etc/poplin-etcd/ca.crt", config)
    assert "\nETCD_CA_FILE=" in config
    machine.write("/srv/config/poplin.conf", config.encode())
    machine.write("/srv/etcd/ca.crt", machine.read("/tmp/ca.crt").encode())
    machine.run("""
        chmod 0400 /srv/etcd/*
        echo 1 >/proc/sys/net/ipv4/ip_forward
        mkdir -p /etc/cni/net.d /opt/cni/bin /run/poplin
        """)
    machine.write("/tmp/image.tar", image.read_bytes())
    machine.run(" ".join([*PODMAN, "load", "--quiet", "--input", "/tmp/image.tar"]))


def add_pod(machine, name):
    """What a container runtime does with the agent's plugin and configuration."""
    configuration = json.loads(machine.read("/etc/cni/net.d/10-poplin.conflist"))
    (plugin,) = configuration["plugins"]
    machine.write("/tmp/plugin.json", json.dumps({
        **plugin, "name": configuration["name"], "cniVersion": configuration["cniVersion"],
    }).encode())
    machine.run(f"ip netns add {name}")
    return json.loads(machine.run(f"""
        CNI_COMMAND=ADD CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 \
            CNI_PATH=/opt/cni/bin /opt/cni/bin/{plugin['type']} </tmp/plugin.json""").stdout)


@needs_root
def test_image_runs_with_the_daemonsets_rights(installed, image, manifests, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    with Machine(tmp_path / "machine", installed) as machine:
        prepare_node(machine, manifests, image)
        machine.run(" ".join([*PODMAN, *RUN, "--detach", "--name=poplind",
                              *podman_arguments(manifests), TAG]))
        podman = " ".join(PODMAN)
        try:
            machine.wait(READY, 30)
        except AssertionError as error:
            raise AssertionError(machine.run(f"{podman} logs poplind").stdout) from error

        # It is the container's: its rights, and no program of the machine.
        rights = machine.run(f"{podman} exec poplind sh -c "
                             "'while read -r line; do echo \"$line\"; done </proc/1/status'").stdout
        assert re.search(r"CapBnd:\s*0000000000001000\n", rights), rights
        assert '"https://127.0.0.1:4379"' in \
            machine.run(f"{podman} exec poplind poplinctl --json status").stdout

        # The plugin it left on the machine works there.
        address = add_pod(machine, "pod1")["ips"][0]["address"].split("/")[0]
        machine.run(f"ping -c 1 -W 2 {address}")

        # A changed ConfigMap, and what README.md says to do then.
        machine.run("sed -i 's/^ *#LOG_LEVEL=.*/LOG_LEVEL=debug/' /srv/config/poplin.conf")
        machine.run(f"{podman} exec poplind sh -c 'kill -HUP 1'")
        machine.wait(f"{podman} logs poplind 2>&1 | grep 'setting changed.*LOG_LEVEL'")

        machine.run(f"{podman} stop --time 5 poplind")
        assert machine.run(f"{podman} inspect --format '{{{{.State.ExitCode}}}}' poplind"
                           ).stdout.strip() == "0"
        machine.run(f"ping -c 1 -W 2 {address}")
