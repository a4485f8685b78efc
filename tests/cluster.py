# SPDX-License-Identifier: GPL-2.0-or-later
"""A small cluster on one machine: a real etcd and nodes as network namespaces on a common L2.

The integration tests, the benchmark and the demo are built on it. Everything it makes carries a
prefix of its own, so several can run side by side, and is removed by close(), whatever happened.
"""
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("POPLIN_BUILD", TOP)).resolve()
# What stands before each program of ours: "setarch -R" for some builds with ThreadSanitizer.
WRAP = os.environ.get("POPLIN_WRAP", "").split()

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99",
    "LSAN_OPTIONS": "exitcode=99",
}
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")


class Failed(Exception):
    """A command failed, or what was waited for did not come."""


def run(*argv, check=True, timeout=60, **kwargs):
    """Runs a program and returns what it printed."""
    result = subprocess.run([str(a) for a in argv], check=False, text=True, timeout=timeout,
                            capture_output=True, **kwargs)
    if check and result.returncode:
        raise Failed(f"{' '.join(map(str, argv))}: exit {result.returncode}\n"
                     f"{result.stdout}{result.stderr}")
    return result.stdout


def wait_for(condition, what, timeout=20.0):
    """Waits until condition() is true and returns its value. what: text, or a function for it."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:g} s in vain for {what() if callable(what) else what}")
        time.sleep(0.02)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def peer(i):
    """(subnet, address) of the i-th made-up node; the addresses are on the switch's network."""
    address = 0xac1e4000 + i
    return (f"10.{(i + 256) >> 8 & 255}.{i & 255}.0/24",
            ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0)))


class Process:
    """A program in a namespace, its output in a file."""

    def __init__(self, argv, log, env=None, before_exec=None):
        self.log_path = log
        self.started = time.monotonic()
        self.ended = False  # by end(), not by itself
        with open(log, "ab") as output:
            self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                          stdout=output, stderr=output, start_new_session=True,
                                          preexec_fn=before_exec,
                                          env={**ENVIRONMENT, **(env or {})})

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def send(self, number):
        self.popen.send_signal(number)

    def end(self, number=signal.SIGTERM, timeout=10):
        """Ends it and returns (exit status, seconds that it took)."""
        start = time.monotonic()
        if self.alive():
            self.ended = True
            self.popen.send_signal(number)
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"{self.popen.args} did not end within {timeout} s") from None
        return status, time.monotonic() - start


class Pod:
    """A network namespace that was attached by the installed plugin."""

    def __init__(self, node, name):
        self.node, self.name = node, name
        self.namespace = f"{node.cluster.prefix}-{node.name}-{name}"
        self.path = f"/run/netns/{self.namespace}"
        self.result = None
        run("ip", "netns", "add", self.namespace)
        node.pods.append(self)

    def attach(self):
        self.result = self.node.cni("ADD", self)
        return self.result

    def detach(self):
        self.node.cni("DEL", self)

    @property
    def address(self):
        return self.result["ips"][0]["address"].split("/")[0]

    def ping(self, address, count=1):
        return subprocess.run(["ip", "netns", "exec", self.namespace, "ping", "-n", "-q", "-i",
                               "0.2", "-c", str(count), "-W", "2", address], check=False,
                              stdout=subprocess.DEVNULL).returncode == 0

    def close(self):
        run("ip", "netns", "del", self.namespace, check=False)


class CniError(Failed):
    """The error object that the plugin printed."""

    def __init__(self, error):
        super().__init__(str(error))
        self.error = error
        self.code = error["code"]


class Node:
    """A node: a namespace with an interface to the others, and folders of its own."""

    def __init__(self, cluster, name, number, settings):
        self.cluster, self.name = cluster, name
        self.namespace = f"{cluster.prefix}-{name}"
        self.address = f"{cluster.net}.{10 + number // 250}.{1 + number % 250}"
        self.dir = cluster.dir / name
        self.dir.mkdir()
        self.log_path = self.dir / "poplind.log"
        self.log_path.touch()
        self.process = None
        self.pods = []
        self.wrap = []
        self.settings = {
            "NODE_NAME": name,
            "ETCD_HOST": f"{cluster.etcd_address}:2379",
            "STATE_DIR": self.dir / "run",
            "CNI_CONFIG_LOCATION": self.dir / "cni/net.d/10-poplin.conflist",
            "CNI_PLUGIN_LOCATION": self.dir / "cni/bin/poplin",
            "LOG_LEVEL": "debug",
            **cluster.settings,
            **settings,
        }
        cluster.join(self.namespace, self.address)
        run("ip", "-n", self.namespace, "route", "add", "default", "via", f"{cluster.net}.0.1")

    # -- the agent ---------------------------------------------------------------

    @property
    def config(self):
        return self.dir / "poplin.conf"

    def write_config(self, **changes):
        self.settings.update(changes)
        self.config.write_text("".join(f'{k}="{v}"\n' for k, v in self.settings.items()))

    def argv(self, program, *args):
        return ["ip", "netns", "exec", self.namespace, *self.wrap, *WRAP, BUILD / program, *args]

    def start(self, ready=False, **changes):
        self.write_config(**changes)
        self.process = Process(self.argv("poplind", "--config", self.config), self.log_path)
        if ready:
            self.wait_ready()
        return self

    def poplind(self, *args, check=True):
        """Runs poplind for --release and the like; its output."""
        self.write_config()
        result = subprocess.run([str(a) for a in self.argv("poplind", "--config", self.config,
                                                           *args)],
                                check=False, text=True, capture_output=True, timeout=60,
                                env=ENVIRONMENT)
        if check and result.returncode:
            raise Failed(f"poplind {args}: exit {result.returncode}\n{result.stderr}")
        return result

    def poplinctl(self, *args):
        return run(*self.argv("poplinctl", *args), env=ENVIRONMENT)

    def stop(self):
        status, seconds = self.process.end()
        if status:
            raise Failed(f"{self.name}: poplind ended with {status}\n{self.log()[-4000:]}")
        return seconds

    def kill(self):
        self.process.end(signal.SIGKILL)

    def hangup(self):
        before = len(self.log())
        self.process.send(signal.SIGHUP)
        wait_for(lambda: re.search(r"configuration (loaded|refused)", self.log()[before:]),
                 "the reload")
        return self.log()[before:]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, pattern, timeout=20.0, since=0):
        return wait_for(lambda: re.search(pattern, self.log()[since:]),
                        f"{self.name}'s log to say {pattern!r}", timeout)

    # -- what it shows -------------------------------------------------------------

    def http(self, path):
        """(status, body) of a path of METRICS_ADDRESS."""
        out = run("ip", "netns", "exec", self.namespace, "curl", "-s", "-m", "5", "-w",
                  "\n%{http_code}", f"http://127.0.0.1:9476{path}", check=False)
        body, _, status = out.rpartition("\n")
        return int(status or 0), body

    def status(self, path="/status"):
        code, body = self.http(path)
        return json.loads(body) if code == 200 else {}

    def metric(self, name):
        """The value of a series, named with its labels as in the text format."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.http("/metrics")[1], re.M)
        return float(found[1]) if found else None

    def ready(self):
        return self.http("/readyz")[0] == 200

    def wait_ready(self, timeout=20.0):
        def look():
            if not self.process.alive():
                raise Failed(f"{self.name}: poplind ended\n{self.log()[-4000:]}")
            return self.ready()
        wait_for(look, f"{self.name} to be ready", timeout)
        return self

    @property
    def subnet(self):
        return self.status().get("subnet")

    # -- the kernel ----------------------------------------------------------------

    def ip(self, *args, check=True):
        return run("ip", "-n", self.namespace, *args, check=check)

    def ip_json(self, *args):
        text = run("ip", "-j", "-n", self.namespace, *args, check=False)
        return json.loads(text) if text.strip() else []

    def routes(self):
        """{destination: gateway} of our protocol."""
        return {r["dst"]: r.get("gateway") for r in
                self.ip_json("route", "show", "proto", str(self.settings.get("ROUTE_PROTOCOL",
                                                                            84)))}

    def wait_routes(self, routes, timeout=20.0):
        wait_for(lambda: self.routes() == routes, lambda: f"{self.name} to have the routes "
                 f"{routes}; it has {self.routes()}", timeout)

    # -- pods ------------------------------------------------------------------------

    def plugin_config(self):
        """What a runtime hands to the plugin: the list's one plugin with the list's name."""
        path = Path(self.settings["CNI_CONFIG_LOCATION"])
        config = json.loads(path.read_text())
        if "plugins" in config:
            config = {**config["plugins"][0], "name": config["name"],
                      "cniVersion": config["cniVersion"]}
        return config

    def cni_popen(self, verb, pod=None, config=None, **environment):
        env = {**ENVIRONMENT, "CNI_COMMAND": verb, "CNI_PATH": "/nonexistent"}
        if pod:
            env.update(CNI_CONTAINERID=pod.name, CNI_NETNS=pod.path, CNI_IFNAME="eth0")
        env.update({k: str(v) for k, v in environment.items()})
        env = {k: v for k, v in env.items() if v != ""}
        config = self.plugin_config() if config is None else config
        text = config if isinstance(config, str) else json.dumps(config)
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *WRAP, str(self.settings["CNI_PLUGIN_LOCATION"])],
            env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(text)
            process.stdin.close()
        process.stdin = None
        return process

    def cni(self, verb, pod=None, config=None, **environment):
        """Runs the installed plugin as a runtime would; its result, or CniError."""
        process = self.cni_popen(verb, pod, config, **environment)
        out, err = process.communicate(timeout=60)
        if SANITIZER.search(err):
            raise Failed(err)
        if process.returncode == 0:
            return json.loads(out) if out.strip() else None
        try:
            raise CniError(json.loads(out))
        except json.JSONDecodeError:
            raise Failed(f"{verb}: exit {process.returncode}: {out}{err}") from None

    def pod(self, name, attach=True):
        pod = Pod(self, name)
        if attach:
            pod.attach()
        return pod

    def bad_end(self):
        """Ends the agent. What was wrong with how it ended, by itself or now; "" if nothing."""
        process = self.process
        if not process:
            return ""
        if not process.alive() and not process.ended:
            return f"poplind ended by itself with {process.popen.returncode}"
        if process.ended:
            return ""
        try:
            status, _ = process.end()
        except Failed as error:
            return str(error)
        return f"poplind ended with {status}" if status else ""

    def close(self):
        with contextlib.ExitStack() as stack:
            stack.callback(run, "ip", "netns", "del", self.namespace, check=False)
            for pod in self.pods:
                stack.callback(pod.close)
            if self.process and self.process.alive():
                self.process.send(signal.SIGCONT)
                with contextlib.suppress(Failed):
                    self.process.end()


def sweep(name):
    """Removes what earlier clusters of this name left whose own process was killed outright."""
    def dead(prefix):
        found = re.match(rf"{re.escape(name)}(\d+)-", prefix)
        return found and not Path(f"/proc/{found[1]}").exists()
    namespaces = [line.split()[0] for line in run("ip", "netns", "list").splitlines()]
    for namespace in filter(dead, namespaces):
        for pid in run("ip", "netns", "pids", namespace, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", namespace, check=False)
    for path in Path(tempfile.gettempdir()).iterdir():
        if dead(path.name):
            shutil.rmtree(path, ignore_errors=True)


class Cluster:
    """etcd, a switch and the nodes. Use it in a with statement, or call close()."""

    def __init__(self, settings=None, name="pop"):
        sweep(name)
        self.prefix = f"{name}{os.getpid()}"
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self.net = "172.30"
        self.etcd_address = f"{self.net}.0.2"
        self.settings = settings or {}
        self.nodes = {}
        self.switch = f"{self.prefix}-switch"
        self.store = f"{self.prefix}-etcd"
        self.etcd = None
        self.helpers = []
        try:
            for namespace in (self.switch, self.store):
                run("ip", "netns", "add", namespace)
                run("ip", "-n", namespace, "link", "set", "lo", "up")
                if namespace == self.switch:
                    run("ip", "-n", self.switch, "link", "add", "sw", "type", "bridge")
                    run("ip", "-n", self.switch, "link", "set", "sw", "up")
            self.ports = 0
            self.join(self.store, self.etcd_address, create=False)
        except BaseException:
            self.close()
            raise

    def join(self, namespace, address, create=True):
        """Plugs a namespace into the switch."""
        if create:
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        port = f"port{self.ports}"
        self.ports += 1
        run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0",
            "netns", namespace)
        run("ip", "-n", self.switch, "link", "set", port, "master", "sw", "up")
        run("ip", "-n", namespace, "address", "add", f"{address}/16", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return port

    def node(self, name=None, **settings):
        name = name or f"n{len(self.nodes) + 1}"
        self.nodes[name] = Node(self, name, len(self.nodes), settings)
        return self.nodes[name]

    def start_nodes(self, count, **settings):
        nodes = [self.node(**settings) for _ in range(count)]
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        # Ready is a node with routes to all that had joined when it did; now to those after it.
        subnets = {node.name: node.subnet for node in nodes}
        for node in nodes:
            others = {subnets[n.name] for n in nodes if n is not node}
            wait_for(lambda n=node, o=others: o <= set(n.routes()), f"{node.name}'s routes to the "
                     "others")
        return nodes

    # -- etcd ------------------------------------------------------------------------

    def start_etcd(self, wipe=False, more_urls=()):
        data = self.dir / "etcd"
        if wipe:
            shutil.rmtree(data, ignore_errors=True)
        urls = ",".join([f"http://{self.etcd_address}:2379", "http://127.0.0.1:2379", *more_urls])
        self.etcd = Process(["ip", "netns", "exec", self.store, "etcd", "--data-dir", data,
                             "--listen-client-urls", urls, "--advertise-client-urls", urls,
                             "--initial-cluster-token", f"{self.prefix}-{time.monotonic_ns()}"],
                            self.dir / "etcd.log")
        wait_for(lambda: subprocess.run(
            ["ip", "netns", "exec", self.store, "curl", "-fs", "-m", "2",
             "http://127.0.0.1:2379/health"], check=False,
            stdout=subprocess.DEVNULL).returncode == 0, "etcd to answer", 30)
        return self

    def stop_etcd(self):
        self.etcd.end(signal.SIGKILL)

    def cut_etcd(self, down=True):
        """Takes etcd off the switch; itself it goes on."""
        run("ip", "-n", self.store, "link", "set", "eth0", "down" if down else "up")

    def etcdctl(self, *args, **kwargs):
        return run("ip", "netns", "exec", self.store, "etcdctl", "--endpoints",
                   "http://127.0.0.1:2379", *args, env={**ENVIRONMENT, "ETCDCTL_API": "3"},
                   **kwargs)

    def get(self, prefix="/poplin/"):
        """{key: value} of all keys that begin so."""
        answer = json.loads(self.etcdctl("get", "--prefix", prefix, "-w", "json"))
        decode = lambda text: base64.b64decode(text).decode(errors="replace")  # noqa: E731
        return {decode(kv["key"]): decode(kv.get("value", "")) for kv in answer.get("kvs", [])}

    def put(self, key, value):
        self.etcdctl("put", key, value)

    def delete(self, key):
        self.etcdctl("del", key)

    def post(self, path, body):
        """To etcd's JSON gateway; the seconds that it took."""
        file = self.dir / "request.json"
        file.write_text(json.dumps(body))
        return float(run("ip", "netns", "exec", self.store, "curl", "-sf", "-o", "/dev/null", "-d",
                         f"@{file}", "-w", "%{time_total}", f"http://127.0.0.1:2379{path}"))

    def put_peers(self, start, count, batch=60):
        """Records as agents write them, each with its subnet's key, of nodes that are made up."""
        for first in range(start, start + count, batch):
            puts = []
            for i in range(first, min(first + batch, start + count)):
                subnet, address = peer(i)
                record = {"version": 1, "subnets": [subnet], "address": address,
                          "backend": {"type": "host-gw"}, "machine": f"{i:032x}"}
                name = f"node-{i:05d}"
                for key, value in ((f"/poplin/nodes/{name}", json.dumps(record)),
                                   ("/poplin/nodes-subnets/" + subnet.replace("/", "-"), name)):
                    puts.append({"request_put": {"key": b64(key), "value": b64(value)}})
            self.post("/v3/kv/txn", {"success": puts})

    def watch_deletes(self):
        """A watch of all of our keys; deletes() of it tells the keys that were deleted."""
        return Watch(self)

    # -- the end -----------------------------------------------------------------------

    def complaints(self):
        """Ends the agents; {node: log} of those with a sanitizer's finding or a bad end."""
        found = {}
        for name, node in self.nodes.items():
            why = node.bad_end()
            if why or SANITIZER.search(node.log()):
                found[name] = f"{node.log()}\n{why}"
        return found

    def etcd_log(self):
        return "".join(p.read_text(errors="replace") for p in sorted(self.dir.glob("etcd*.log")))

    def close(self):
        """Goes on whatever fails, and then tells it."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            for namespace in (self.store, self.switch):
                stack.callback(run, "ip", "netns", "del", namespace, check=False)
            for process in self.helpers:
                stack.callback(process.end, signal.SIGKILL)
            if self.etcd:
                stack.callback(self.etcd.end, signal.SIGKILL)
            for node in self.nodes.values():
                stack.callback(node.close)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Watch:
    """etcdctl watch, from now on."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = cluster.dir / f"watch{time.monotonic_ns()}.log"
        self.process = Process(["ip", "netns", "exec", cluster.store, "etcdctl", "--endpoints",
                                "http://127.0.0.1:2379", "watch", "--prefix", "/"],
                               self.path, {"ETCDCTL_API": "3"})
        cluster.helpers.append(self.process)
        self.mark()

    def mark(self):
        """Waits until everything before this call was seen."""
        token = f"/mark/{time.monotonic_ns()}"
        def seen():
            self.cluster.put(token, "x")
            return token in self.path.read_text()
        wait_for(seen, "the watch")

    def deletes(self):
        self.mark()
        lines = self.path.read_text().splitlines()
        return [lines[i + 1] for i, line in enumerate(lines[:-1]) if line == "DELETE"]

    def close(self):
        self.process.end(signal.SIGKILL)
