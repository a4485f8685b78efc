# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator installs and reads: files, manifests, and what is said about settings.

The manifests are read by kubectl (Debian's kubernetes-client or any other) without a cluster.
"""
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import pytest

from node import BUILD, MANIFESTS, TOP, find_one, install, load_manifests, run


def poplind(*argv, **environment):
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([BUILD / "poplind", *argv], text=True, capture_output=True, env=env,
                          check=False)


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
    text = (TOP / "README.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (R?) ?\| ", text, re.M)
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
             "kind": "ConfigMap", "verbs": ["create", "get"]}]},
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
        "configmap/poplin", "daemonset.apps/poplin"]


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
    # Applying the manifests again must not blank the keys: the Secret is none of them.
    assert "Secret" not in manifests
    secret = mounts["/etc/poplin-etcd"]["secret"]
    assert secret["optional"] is True
    assert f"create secret generic {secret['secretName']} " in (TOP / "README.md").read_text()
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
    return install(tmp_path_factory.mktemp("installed"))


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


def test_install_without_systemd_puts_no_drop_in_anywhere(tmp_path):
    for target in "install-data-local", "uninstall-local":
        run("make", "-s", target, f"DESTDIR={tmp_path}/root/", "systemdunitdir=no", cwd=BUILD)
        assert not list(tmp_path.glob("**/50-poplin.conf"))
        assert not list(tmp_path.glob("**/networkd.conf.d"))


@pytest.mark.parametrize("script", ["poplind.sysv", "poplind.openrc"])
def test_init_scripts_parse(script):
    run("sh", "-n", BUILD / "init" / script)
