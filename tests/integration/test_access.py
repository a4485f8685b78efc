# SPDX-License-Identifier: GPL-2.0-or-later
"""How the agent reaches etcd: TLS, logins, and what it says of what is not as it should be."""
import json
import shutil
import subprocess

import pytest

from cluster import ENVIRONMENT, Process, run, wait_for

PASSWORD = "a secret"


class Authority:
    """A CA, and what it signed, in a folder."""

    def __init__(self, folder, address):
        self.folder = folder
        folder.mkdir()
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-days", "2", "-subj", "/O=test authority", "-keyout", "ca.key",
                     "-out", "ca.crt")
        self.sign("server", f"subjectAltName=IP:{address},IP:127.0.0.1")
        self.sign("client", "extendedKeyUsage=clientAuth")

    def openssl(self, *args):
        run("openssl", *args, cwd=self.folder)

    def sign(self, name, extension, subject="/O=test"):
        (self.folder / "extensions").write_text(extension)
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                     "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out",
                     f"{name}.crt")

    def serve(self, member, demand=True):
        """The member speaks TLS to nodes, and demands a certificate of them."""
        member.url = f"https://{member.address}:2379"
        member.options = ["--cert-file", self.folder / "server.crt",
                          "--key-file", self.folder / "server.key"]
        if demand:
            member.options += ["--client-cert-auth", "--trusted-ca-file", self.folder / "ca.crt"]


def settings_of(folder, client=True):
    settings = {"ETCD_CA_FILE": folder / "ca.crt"}
    if client:
        settings |= {"ETCD_CERT_FILE": folder / "client.crt",
                     "ETCD_KEY_FILE": folder / "client.key"}
    return settings


def take(authority, folder):
    """Puts an authority's files in the place of those that a node uses."""
    folder.mkdir(exist_ok=True)
    for name in "ca.crt", "client.crt", "client.key":
        shutil.copy(authority.folder / name, folder / f".{name}")
        (folder / f".{name}").rename(folder / name)


def new_record(cluster, number):
    cluster.put(f"/poplin/nodes/new{number}", json.dumps({
        "version": 1, "subnets": [f"10.2.{number}.0/24"], "address": f"{cluster.net}.0.50",
        "backend": {"type": "host-gw"}, "machine": "m"}))
    return f"10.2.{number}.0/24"


def wait_follows(cluster, node, number, timeout=30):
    subnet = new_record(cluster, number)
    wait_for(lambda: subnet in node.routes(), f"the route to {subnet}", timeout)


# -- TLS ------------------------------------------------------------------------------------------


def test_tls_with_a_client_certificate_and_replaced_files(make_cluster):
    cluster = make_cluster(start=False, LEASE_TTL=30)
    old = Authority(cluster.dir / "old", cluster.etcd_address)
    old.serve(cluster.members[0])
    cluster.start_etcd()
    files = cluster.dir / "files"
    take(old, files)
    # Without a scheme: https, since there are TLS files.
    node = cluster.node(**settings_of(files)).start(ready=True)
    assert node.status()["store"]["endpoint"] == f"https://{cluster.etcd_address}:2379"
    wait_follows(cluster, node, 150)
    # Everything is new, the authority as well. Connections that stand go on; the next use the new.
    new = Authority(cluster.dir / "new", cluster.etcd_address)
    take(new, files)
    wait_follows(cluster, node, 151)
    cluster.stop_etcd()
    new.serve(cluster.members[0])
    cluster.start_etcd()
    wait_follows(cluster, node, 152)
    assert node.status()["lease"]["held"]
    # Files that do not fit together are not taken over, and what runs is not touched.
    log = node.hangup()
    assert "configuration loaded" in log
    shutil.copy(old.folder / "client.key", files / "client.key")
    log = node.hangup()
    assert "configuration refused" in log and "client.key" in log
    wait_follows(cluster, node, 153)
    shutil.copy(new.folder / "client.key", files / "client.key")
    node.stop()
    assert "subnet given back" in node.poplind("--release").stderr
    assert not [key for key in cluster.get() if key.endswith("/n1")]


def test_tls_files_that_are_no_good_stop_the_agent_before_anything_is_sent(make_cluster):
    cluster = make_cluster(start=False)
    authority = Authority(cluster.dir / "pki", cluster.etcd_address)
    good = settings_of(authority.folder)
    (cluster.dir / "nonsense").write_text("nonsense\n")
    (cluster.dir / "empty").touch()
    url = f"https://{cluster.etcd_address}:2379"
    node = cluster.node(ETCD_HOST=url)
    for changes, complaint in (
            ({"ETCD_CA_FILE": "/nonexistent"}, "/nonexistent"),
            ({"ETCD_CA_FILE": cluster.dir / "nonsense"}, "nonsense"),
            ({"ETCD_CA_FILE": cluster.dir / "empty"}, "empty"),
            ({"ETCD_CERT_FILE": "/nonexistent"}, "/nonexistent"),
            ({"ETCD_CERT_FILE": cluster.dir / "nonsense"}, "nonsense"),
            ({"ETCD_KEY_FILE": authority.folder / "server.key"}, "server.key"),
            ({"ETCD_KEY_FILE": cluster.dir}, str(cluster.dir)),
            ({"ETCD_KEY_FILE": ""}, "ETCD_CERT_FILE needs ETCD_KEY_FILE"),
            ({"ETCD_HOST": f"http://{cluster.etcd_address}:2379"}, "plain text"),
            ({"ETCD_HOST": f"{url},http://{cluster.etcd_address}:1"}, "plain text"),
            ({"ETCD_USER": "u"}, "ETCD_USER needs ETCD_PASSWORD_FILE"),
            ({"ETCD_USER": "u", "ETCD_PASSWORD_FILE": "/nonexistent"}, "/nonexistent"),
            ({"ETCD_USER": "u", "ETCD_PASSWORD_FILE": cluster.dir / "empty"}, "no password")):
        node.settings |= {**good, "ETCD_HOST": url, "ETCD_USER": "", "ETCD_PASSWORD_FILE": "",
                          **changes}
        for argument in "--check-config", "--release":
            result = node.poplind(argument, check=False)
            assert result.returncode == 2, (changes, result.stderr)
            assert complaint in result.stderr
    node.settings |= {**good, "ETCD_HOST": url, "ETCD_USER": "", "ETCD_PASSWORD_FILE": ""}
    node.poplind("--check-config")


def test_an_etcd_that_is_not_trusted_or_does_not_trust_us_is_told(make_cluster):
    cluster = make_cluster(start=False, LEASE_TTL=30)
    authority = Authority(cluster.dir / "pki", cluster.etcd_address)
    other = Authority(cluster.dir / "other", cluster.etcd_address)
    authority.serve(cluster.members[0])
    cluster.start_etcd()
    url = f"https://{cluster.etcd_address}:2379"
    node = cluster.node(ETCD_HOST=url, **settings_of(other.folder)).start()
    node.wait_log("cannot claim a subnet.*certificate")
    node.stop()
    node.settings |= {"ETCD_CERT_FILE": "", "ETCD_KEY_FILE": ""}
    since = len(node.log())
    node.start(**settings_of(authority.folder, client=False))
    node.wait_log("cannot claim a subnet.*certificate", since=since)
    # A reload that puts it right is all it takes.
    node.write_config(**settings_of(authority.folder))
    assert "configuration loaded" in node.hangup()
    node.wait_ready(40)
    # TLS where plain text is spoken, and the other way round.
    node.stop()
    since = len(node.log())
    node.settings |= {"ETCD_CA_FILE": "", "ETCD_CERT_FILE": "", "ETCD_KEY_FILE": ""}
    node.start(ETCD_HOST=f"http://{cluster.etcd_address}:2379")
    node.wait_log("is TLS spoken there[?] then write https://", since=since)
    cluster.stop_etcd()
    cluster.members[0].options = []
    cluster.members[0].url = f"http://{cluster.etcd_address}:2379"
    cluster.start_etcd()
    node.wait_ready(40)
    since = len(node.log())
    node.write_config(ETCD_HOST=url)
    node.hangup()
    node.wait_log("cannot be followed.*is TLS spoken there[?]", since=since)


# -- users ----------------------------------------------------------------------------------------


def turn_on_users(cluster):
    def etcdctl(*args, **kwargs):
        cluster.etcdctl(*args, **kwargs)
    etcdctl("user", "add", "root:root")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("role", "add", "poplin")
    etcdctl("role", "grant-permission", "poplin", "--prefix=true", "readwrite", "/poplin/nodes")
    etcdctl("role", "grant-permission", "poplin", "readwrite", "/poplin/counter")
    etcdctl("user", "add", f"poplin:{PASSWORD}")
    etcdctl("user", "grant-role", "poplin", "poplin")
    etcdctl("auth", "enable")
    plain = cluster.etcdctl
    cluster.etcdctl = lambda *args, **kwargs: plain("--user", "root:root", *args, **kwargs)


def login(cluster, password=PASSWORD):
    path = cluster.dir / "password"
    path.write_text(password + "\n")
    return {"ETCD_USER": "poplin", "ETCD_PASSWORD_FILE": path}


@pytest.mark.parametrize("tokens", ["simple", "jwt"])
def test_a_token_is_replaced_when_it_is_refused(make_cluster, tokens):
    cluster = make_cluster(start=False, LEASE_TTL=9)
    member = cluster.members[0]
    if tokens == "jwt":
        run("openssl", "genrsa", "-out", cluster.dir / "jwt.key", "2048")
        run("openssl", "rsa", "-in", cluster.dir / "jwt.key", "-pubout", "-out",
            cluster.dir / "jwt.pub")
        member.options = ["--auth-token", f"jwt,pub-key={cluster.dir}/jwt.pub,"
                          f"priv-key={cluster.dir}/jwt.key,sign-method=RS256,ttl=2s"]
    else:
        member.options = ["--auth-token-ttl", "2"]
    cluster.start_etcd()
    # Users that come to be known while the agent runs.
    node = cluster.node(RESYNC_INTERVAL=4, **login(cluster)).start(ready=True)
    turn_on_users(cluster)
    wait_follows(cluster, node, 150)
    # Each comparison with etcd needs a token; renewals do not, in some versions.
    logins = 'poplin_etcd_requests_total{op="login",result="ok"}'
    before = node.metric(logins)
    wait_for(lambda: node.metric(logins) >= before + 3, "new logins", 60)
    assert not node.metric('poplin_lease_renewals_total{result="lost"}')
    assert node.status()["store"]["connected"] or node.log().count("cannot be followed") == 0
    # The tokens are gone with the member, and the password is another one by now.
    login(cluster, "another-secret")
    cluster.etcdctl("user", "passwd", "poplin", "--interactive=false", input="another-secret\n")
    cluster.stop_etcd()
    cluster.start_etcd()
    wait_follows(cluster, node, 151)
    assert node.status()["lease"]["held"]
    node.stop()
    assert "subnet given back" in node.poplind("--release").stderr


def test_a_login_that_is_missing_or_wrong_is_told(make_cluster):
    cluster = make_cluster(LEASE_TTL=30)
    turn_on_users(cluster)
    node = cluster.node().start()
    node.wait_log("etcd asks for a login: set ETCD_USER")
    node.wait_log("the store cannot be followed.*etcd asks for a login")
    since = len(node.log())
    node.write_config(**login(cluster, "wrong"))
    node.hangup()
    node.wait_log("authentication failed", since=since, timeout=40)
    since = len(node.log())
    node.write_config(**login(cluster), ETCD_PREFIX="/elsewhere")
    node.stop()
    node.start()
    node.wait_log("permission denied", since=since)
    node.stop()
    node.start(ETCD_PREFIX="/poplin/nodes", ready=True)


# -- what is no gateway of etcd's -------------------------------------------------------------------


def test_a_gateway_that_is_off_or_refuses_the_name_is_told(make_cluster):
    cluster = make_cluster(start=False)
    cluster.members[0].options = ["--enable-grpc-gateway=false"]
    cluster.start_etcd()
    node = cluster.node().start()
    node.wait_log("etcd 3[.].* is there, but not its JSON gateway.*--enable-grpc-gateway=true")
    cluster.stop_etcd()
    cluster.members[0].options = ["--host-whitelist", "etcd.example.net,127.0.0.1"]
    cluster.start_etcd()
    node.wait_log("HTTP status 421.*--host-whitelist", timeout=40)
    cluster.stop_etcd()
    server = Process(["ip", "netns", "exec", cluster.store, "python3", "-m", "http.server",
                      "2379"], cluster.dir / "http.log")
    try:
        node.wait_log("HTTP status 501 and no answer of etcd", timeout=40)
    finally:
        server.end()
    cluster.members[0].options = []
    cluster.start_etcd()
    node.wait_ready(60)
