# SPDX-License-Identifier: GPL-2.0-or-later
"""A node of the cluster: the agent, the plugin and the pods in a namespace."""
import contextlib
import json
import re
import signal
import subprocess
from pathlib import Path

from .base import BUILD, ENVIRONMENT, SANITIZER, WRAP, Failed, Process, run, wait_for
from .etcd import Firewall


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
        self.programs = BUILD
        self.firewall = Firewall(self.namespace)
        self.settings = {
            "NODE_NAME": name,
            "ETCD_HOST": cluster.etcd_hosts,
            "STATE_DIR": self.dir / "run",
            "CNI_CONFIG_LOCATION": self.dir / "cni/net.d/10-poplin.conflist",
            "CNI_PLUGIN_LOCATION": self.dir / "cni/bin/poplin",
            "LOG_LEVEL": "debug",
            "ROUTE_GRACE": 0,
            **cluster.settings,
            **settings,
        }
        cluster.join(self.namespace, self.address)
        run("ip", "-n", self.namespace, "route", "add", "default", "via", f"{cluster.net}.0.1")
        self.family = "-6" if ":" in str(self.settings.get("IP_SUBNET")) else "-4"  # ip's option
        if self.family == "-6":  # beside the other, by which it reaches etcd
            self.address = f"{cluster.net6}:{number + 0x10:x}"
            self.ip("address", "add", f"{self.address}/64", "dev", "eth0", "nodad")
            self.ip("-6", "route", "add", "default", "via", f"{cluster.net6}:1")

    # -- the agent ---------------------------------------------------------------

    @property
    def config(self):
        return self.dir / "poplin.conf"

    def write_config(self, **changes):
        self.settings.update(changes)
        self.config.write_text("".join(f'{k}="{v}"\n' for k, v in self.settings.items()))

    def argv(self, program, *args):
        return ["ip", "netns", "exec", self.namespace, *self.wrap, *WRAP, self.programs / program,
                *args]

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

    def cut_off(self, **directions):
        """From etcd, not from the other nodes; firewall.clear() ends it."""
        self.firewall.drop([m.address for m in self.cluster.members], **directions)

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

    def ip(self, *args, check=True, **kwargs):
        return run("ip", "-n", self.namespace, *args, check=check, **kwargs)

    def ip_json(self, *args):
        text = run("ip", "-j", "-n", self.namespace, *args, check=False)
        return json.loads(text) if text.strip() else []

    def routes(self):
        """{destination: gateway} of our protocol."""
        return {r["dst"]: r.get("gateway") for r in
                self.ip_json(self.family, "route", "show", "proto",
                             str(self.settings.get("ROUTE_PROTOCOL", 84)))}

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
