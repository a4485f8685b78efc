# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator installs: init files, manifests, image, and what is written about settings.

Manifests are read by kubectl (Debian's kubernetes-client or any other) without a cluster; init files
are run on a throw-away machine with a real etcd; the image is run by podman with just the rights
that the DaemonSet grants.
"""
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from machine import SYSTEMD, Machine, is_root

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("POPLIN_BUILD", TOP)).resolve()
MANIFESTS = TOP / "deploy/kubernetes"

needs_root = pytest.mark.skipif(not is_root(), reason="needs root")


def run(*argv, **kwargs):
    return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **kwargs).stdout


def poplind(*argv, **environment):
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([BUILD / "poplind", *argv], text=True, capture_output=True, env=env,
                          check=False)


def load_manifests():
    documents = {}
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            documents[document["kind"]] = document
    return documents


@pytest.fixture(scope="module", name="manifests")
def manifests_fixture():
    return load_manifests()


# -- settings: the program, the file, the ConfigMap and the README say the same -------------------


def settings_of_help():
    """{name: (default, reloadable)} from `poplind --help`."""
    settings = {}
    for line in poplind("--help").stdout.splitlines():
        row = re.fullmatch(r"  ([A-Z][A-Z_]+)=(\S*?)( \(R\))?", line)
        if row:
            settings[row[1]] = (row[2], bool(row[3]))
    assert len(settings) > 20, "poplind --help lists no settings"
    return settings


def settings_of_file(text):
    """{name: (value, reloadable)} of a poplin.conf, whether lines are comments or not."""
    settings = {}
    reloadable = False
    for line in text.splitlines():
        row = re.fullmatch(r"#?([A-Z][A-Z_]+)=(.*)", line)
        if row:
            settings[row[1]] = (row[2], reloadable)
        elif line.startswith("#"):
            reloadable = line.rstrip().endswith("(R)")
        if row or not line:
            reloadable = False
    return settings


def test_poplin_conf_lists_every_setting():
    assert settings_of_file((TOP / "init/poplin.conf").read_text()) == settings_of_help()


def test_configmap_lists_every_setting(manifests):
    ours = settings_of_file(manifests["ConfigMap"]["data"]["poplin.conf"])
    expected = settings_of_help()
    assert ours.pop("ETCD_HOST")[1] == expected.pop("ETCD_HOST")[1]
    assert ours == expected


def test_readme_lists_every_setting():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (R?) ?\| ", (TOP / "README.md").read_text(), re.M)
    ours = {name: (default[1:-1] if default.startswith("`") else "", mark == "R")
            for name, default, mark in rows}
    assert ours == settings_of_help()


def test_poplin_conf_is_accepted(tmp_path):
    shipped = TOP / "init/poplin.conf"
    result = poplind("--config", shipped, "--check-config")
    assert result.returncode == 0, result.stderr
    # With every comment sign taken away it must mean the same as without a file.
    bare = tmp_path / "bare.conf"
    bare.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", shipped.read_text(), flags=re.M))
    result_bare = poplind("--config", bare, "--check-config")
    assert result_bare.returncode == 0, result_bare.stderr

    def values(text):
        return [line for line in text.splitlines() if not line.startswith("#")]
    assert values(result_bare.stdout) == values(result.stdout)


def test_configmap_is_accepted(manifests, tmp_path):
    path = tmp_path / "poplin.conf"
    path.write_text(manifests["ConfigMap"]["data"]["poplin.conf"])
    result = poplind("--config", path, "--check-config", NODE_NAME="n1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


# -- manifests -------------------------------------------------------------------------------------


class Discovery(http.server.BaseHTTPRequestHandler):
    """As much of an API server as `kubectl create --dry-run=client` asks: which kinds there are."""

    RESOURCES = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
             "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"}}]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "configmaps", "singularName": "configmap", "namespaced": True,
             "kind": "ConfigMap", "verbs": ["create", "get"]},
            {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret",
             "verbs": ["create", "get"]}]},
        "/apis/apps/v1": {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1",
                          "resources": [{"name": "daemonsets", "singularName": "daemonset",
                                         "namespaced": True, "kind": "DaemonSet",
                                         "verbs": ["create", "get"]}]},
    }

    def do_GET(self):  # pylint: disable=invalid-name
        answer = self.RESOURCES.get(self.path.split("?")[0])
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                     "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(name="kubectl")
def kubectl_fixture(tmp_path):
    program = shutil.which("kubectl")
    if not program:
        pytest.skip("kubectl is not installed (package kubernetes-client)")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": "/dev/null"}

    def kubectl(*argv):
        return subprocess.run([program, *argv], text=True, capture_output=True, env=environment,
                              timeout=60, check=False)
    return kubectl


def test_kubectl_accepts_the_manifests(kubectl):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Discovery)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        result = kubectl("--server", f"http://127.0.0.1:{server.server_port}", "create",
                         "--dry-run=client", "--validate=false", "-f", MANIFESTS)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert result.returncode == 0, result.stderr
    assert sorted(line.split()[0] for line in result.stdout.splitlines()) == [
        "configmap/poplin", "daemonset.apps/poplin", "secret/poplin-etcd"]


def missing(ours, theirs, path=""):
    """What of ours is not in theirs: fields that Kubernetes' own types do not know."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from missing(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        for index, value in enumerate(ours):
            yield from missing(value, theirs[index], f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def test_kubectl_knows_every_field_of_the_daemonset(kubectl, manifests):
    # --local decodes into the real types, which drop what they do not know.
    result = kubectl("set", "env", "--local", "-f", MANIFESTS / "daemonset.yaml", "ADDED=1", "-o",
                     "json")
    assert result.returncode == 0, result.stderr
    assert not list(missing(manifests["DaemonSet"], json.loads(result.stdout)))


def test_daemonset_hangs_together(manifests):
    daemonset, settings = manifests["DaemonSet"], settings_of_help()
    pod = daemonset["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert len({m["metadata"]["namespace"] for m in manifests.values()}) == 1

    volumes = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
    assert len(mounts) == len(volumes)
    assert mounts["/etc/poplin"]["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    assert mounts["/etc/ssl/certs"]["secret"]["secretName"] == \
        manifests["Secret"]["metadata"]["name"]
    # A file in a subPath would never follow a change of the ConfigMap.
    assert not any("subPath" in m for m in container["volumeMounts"])
    for setting in "CNI_CONFIG_LOCATION", "CNI_PLUGIN_LOCATION":
        folder = os.path.dirname(settings[setting][0])
        assert mounts[folder]["hostPath"]["path"] == folder
    state = settings["STATE_DIR"][0]
    assert mounts[state]["hostPath"]["path"] == state

    (port,) = container["ports"]
    host, number = settings["METRICS_ADDRESS"][0].rsplit(":", 1)
    assert port["containerPort"] == int(number)
    for probe, path in ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"):
        request = container[probe]["httpGet"]
        assert (request["host"], request["port"], request["path"]) == (host, port["name"], path)

    rights = container["securityContext"]
    assert rights["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert rights["privileged"] is False and rights["readOnlyRootFilesystem"] is True
    assert pod["hostNetwork"] is True and pod["tolerations"] == [{"operator": "Exists"}]
    assert [e["name"] for e in container["env"]] == ["NODE_NAME"]
    assert "lifecycle" not in container and "limits" not in container["resources"]


# -- installed files -------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="installed")
def installed_fixture(tmp_path_factory):
    """The build under test, installed into a folder."""
    if not (BUILD / "Makefile").exists():
        pytest.skip(f"{BUILD} was not configured")
    folder = tmp_path_factory.mktemp("installed")
    run("make", "-s", "install", f"DESTDIR={folder}", cwd=BUILD)
    return folder


def find_one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_install_puts_everything(installed):
    for pattern in ("**/sbin/poplind", "**/bin/poplinctl", "**/libexec/poplin/poplin",
                    "**/man8/poplind.8", "**/man8/poplin.8", "**/man1/poplinctl.1",
                    "**/man5/poplin.conf.5", "**/systemd/system/poplind.service",
                    "etc/init.d/poplind", "etc/poplin/poplin.conf"):
        find_one(installed, pattern)
    for pattern in "**/*.service", "etc/**/*":
        for path in installed.glob(pattern):
            assert not path.is_file() or not re.search(r"@\w+@", path.read_text()), path


def test_install_keeps_the_administrators_file(tmp_path):
    conf = tmp_path / "etc/poplin/poplin.conf"
    for text in "LOG_LEVEL=debug\n", None:
        if text:
            conf.parent.mkdir(parents=True)
            conf.write_text(text)
        else:
            conf.unlink()
        run("make", "-s", "install", f"DESTDIR={tmp_path}", cwd=BUILD)
        assert conf.read_text() == (text or (TOP / "init/poplin.conf").read_text())
        run("make", "-s", "uninstall", f"DESTDIR={tmp_path}", cwd=BUILD)
        assert conf.exists() == bool(text)
    assert [p for p in tmp_path.glob("**/*") if p.is_file()] == []


@pytest.mark.parametrize("script", ["poplind.sysv", "poplind.openrc"])
def test_init_scripts_parse(script):
    run("sh", "-n", BUILD / "init" / script)


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


@pytest.fixture(name="machine")
def machine_fixture(installed, tmp_path):
    with Machine(tmp_path / "machine", installed) as machine:
        yield prepare(machine)


READY = "curl -sSf http://127.0.0.1:9476/readyz"


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
        check_refuses_wrong_configuration(
            machine, ["systemctl start poplind && sleep 1 && systemctl is-active poplind || "
                      "journalctl -u poplind && false"])
        # A wrong setting is not tried again and again.
        assert machine.run("systemctl show -P NRestarts poplind").stdout.strip() == "0"
        machine.run("systemctl start poplind")
        check_running(machine, {"reload": "systemctl reload poplind",
                                "find": "journalctl -u poplind | grep"})
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
    check_running(machine, {"reload": f"{script} reload", "find": "grep -r /var/log/poplind.log -e"})
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
    for package in "openrc", "librc1", "libeinfo1":
        result = subprocess.run(["apt-get", "-qq", "download", package], cwd=tmp_path, check=False,
                                capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"apt-get download {package}: {result.stderr.strip()}")
    files = tmp_path / "openrc"
    for package in tmp_path.glob("*.deb"):
        run("dpkg", "-x", package, files)
    for name in "bin", "sbin", "lib":  # these are links into /usr by now
        shutil.copytree(files / name, files / "usr" / name, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(files / name)
    return files


@needs_root
def test_openrc_script(machine, openrc):
    copy = "/tmp/openrc.tar"
    archive = run("tar", "-C", openrc, "-cf", "-", ".", encoding="latin-1").encode("latin-1")
    subprocess.run(machine.command("sh", "-c", f"cat >{copy} && tar -C / -xf {copy}"),
                   input=archive, check=True)
    subprocess.run(machine.command("sh", "-c", "cat >/etc/init.d/poplind"), check=True,
                   input=(BUILD / "init/poplind.openrc").read_bytes())
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
    check_running(machine, {"reload": f"{service} reload", "find": "grep -r /var/log/poplind.log -e"})
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


# -- the image -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="plain")
def plain_fixture(tmp_path_factory):
    """A build as an image needs it: no sanitizers, the plugin linked statically."""
    log = BUILD / "config.log"
    if log.exists() and re.search(r"^PLUGIN_LDFLAGS='-static", log.read_text(), re.M):
        return BUILD
    if not (TOP / "configure").exists():
        pytest.skip("there is no configure script")
    if (TOP / "config.status").exists():
        pytest.skip("the source folder is configured with sanitizers, so it can't be built elsewhere")
    folder = tmp_path_factory.mktemp("plain")
    run(TOP / "configure", "-q", "--enable-static-plugin", cwd=folder)
    run("make", "-s", "-j2", "poplind", "poplin", "poplinctl", cwd=folder, timeout=600)
    return folder


def test_root_file_system_is_complete(plain, tmp_path):
    root = tmp_path / "rootfs"
    run(TOP / "deploy/image/rootfs", root, cwd=plain)
    (plugin,) = root.glob("**/libexec/poplin/poplin")
    assert "statically linked" in subprocess.run(
        ["ldd", plugin], capture_output=True, text=True, check=False).stdout \
        or subprocess.run(["ldd", plugin], capture_output=True, check=False).returncode != 0
    if is_root():
        assert "poplind" in run("chroot", root, "/bin/sh", "-c", "poplind --version",
                                env={"PATH": "/usr/local/sbin:/usr/sbin"})
        assert "poplinctl" in run("chroot", root, "/bin/sh", "-c", "poplinctl --version",
                                  env={"PATH": "/usr/local/bin:/usr/bin"})
    refused = subprocess.run([TOP / "deploy/image/rootfs", root], cwd=plain, capture_output=True,
                             text=True, check=False)
    assert refused.returncode == 1 and "exists" in refused.stderr


PODMAN = ["podman", "--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
# Limits that any machine's hard limits allow, and no cgroups, whose layout differs by machine.
RUN = ["run", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]


@pytest.fixture(scope="module", name="image")
def image_fixture(plain, tmp_path_factory):
    """An archive of the image that deploy/image/build makes."""
    if not shutil.which("podman") or not is_root():
        pytest.skip("needs podman, and root")
    folder = tmp_path_factory.mktemp("image")
    options = [f"--root={folder}/store", f"--runroot={folder}/run", *PODMAN[1:]]
    output = run(TOP / "deploy/image/build", "--builder", "podman", "--tag", "localhost/poplin:test",
                 cwd=plain, env={**os.environ, "POPLIN_BUILDER_OPTIONS": " ".join(options)})
    assert output.splitlines()[-1] == "localhost/poplin:test"
    run("podman", *options, "save", "--quiet", "--output", folder / "image.tar",
        "localhost/poplin:test")
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
    machine.write("/srv/config/poplin.conf", config.encode())
    (certificates,) = manifests["Secret"]["stringData"]
    machine.write(f"/srv/etcd/{certificates}", machine.read("/tmp/ca.crt").encode())
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
                              *podman_arguments(manifests), "localhost/poplin:test"]))
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
