"""One class a peer. To add one: subclass Adapter, fill in the methods, put it in PEERS.

boot()      what a user has running beforehand (a daemon without services); not timed
up()        brings all configured services up; timed by the start test
recover()   what a user types after the supervisor was killed
"""
import glob
import json
import os
import shlex
import shutil
import signal
import subprocess
import time

import proc

ROT, KEEP = 10_000_000, 30          # log rotation: 10 MB a file, enough files to keep all


class Adapter:
    name = title = ""
    needs = ()                      # programs that must be found
    respawns = True
    rotation = "10 MB files"
    note = ""
    max_services = None
    start_reps = 3
    skip = ()                       # tests that mean nothing here
    capture = "pipe"                # how the child's stdout gets to the log

    def __init__(self, run, tools, child):
        self.run, self.tools, self.child = run, tools, child
        self.root = None
        self.env = dict(os.environ, BENCH_RUN=run)
        self.services = {}

    # -- helpers for subclasses
    def p(self, *a):
        return os.path.join(self.run, *a)

    def write(self, rel, text, mode=0o644):
        path = self.p(rel)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def spawn(self, argv, out="supervisor.out", **kw):
        with open(self.p(out), "ab") as f:
            return subprocess.Popen(argv, env=self.env, cwd=self.run, stdin=subprocess.DEVNULL,
                                    stdout=f, stderr=subprocess.STDOUT, start_new_session=True, **kw)

    def sh(self, argv, check=True, timeout=300):
        r = subprocess.run(argv, env=self.env, cwd=self.run, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        if check and r.returncode:
            raise RuntimeError(f"{argv[:4]}: rc {r.returncode}: {r.stdout[-600:]!r}")
        return r.stdout.decode(errors="replace")

    def wait_for(self, test, what, timeout=30):
        end = time.monotonic() + timeout
        while not test():
            if time.monotonic() > end:
                raise RuntimeError(f"timeout: {what}")
            time.sleep(0.02)

    # -- the contract
    def version(self):
        return ""

    def configure(self, services):
        """services: {name: argv}; write the configuration."""
        raise NotImplementedError

    def boot(self):
        pass

    def up(self):
        raise NotImplementedError

    def recover(self):
        self.up()

    def main_pid(self):
        return self.root.pid

    def helper_pid(self, name):
        """The pid of a per-service helper process, or None where there is none."""
        return None

    def status_argv(self):
        return None

    def stop_service(self, name):
        """False where there is no such command (the caller then shuts all down)."""
        raise NotImplementedError

    def shutdown(self):
        if self.root and self.root.poll() is None:
            self.root.terminate()
            try:
                self.root.wait(20)
            except subprocess.TimeoutExpired:
                pass

    def logs(self, name):
        return glob.glob(self.p("logs", name + ".log*"))

    def whole_log(self, name):
        """Files that together have every line, once all is written."""
        return self.logs(name)


class Floor(Adapter):
    name, title, needs = "floor", "floor (C: posix_spawn, pidfd, epoll)", ("floor",)
    rotation, capture = "none: the child writes the file itself", "file"
    pump, skip = False, ("orphan",)

    def version(self):
        return "-"

    def configure(self, services):
        os.makedirs(self.p("logs"), exist_ok=True)
        self.one = next(iter(services))
        self.write("list", "".join(f"{n} {' '.join(a)}\n" for n, a in services.items()))

    def up(self):
        argv = [self.tools["floor"], self.p("list")] + ([self.p("logs")] if self.pump else [])
        self.root = self.spawn(argv, out="supervisor.out" if self.pump else f"logs/{self.one}.log")

    def stop_service(self, name):
        return False


class FloorPump(Floor):
    name, title, pump, capture = "floor-pump", "floor + log pump (C: 64 KiB read/write)", True, "pipe"
    rotation = Adapter.rotation


class Supervisord(Adapter):
    name, title, needs = "supervisord", "supervisord", ("supervisord", "supervisorctl")
    note = "startsecs=0, stopasgroup and killasgroup on"

    def version(self):
        return self.sh([self.tools["supervisord"], "--version"]).strip()

    def configure(self, services):
        os.makedirs(self.p("logs"), exist_ok=True)
        c = f"""[unix_http_server]
file={self.p('s')}
[supervisord]
nodaemon=true
minfds=19000
logfile={self.p('supervisord.log')}
pidfile={self.p('supervisord.pid')}
childlogdir={self.p('logs')}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self.p('s')}
"""
        for n, a in services.items():
            c += f"""[program:{n}]
command={shlex.join(a)}
autorestart=true
startsecs=0
startretries=1000000
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={self.p('logs', n + '.log')}
stdout_logfile_maxbytes={ROT}
stdout_logfile_backups={KEEP}
"""
        self.write("sup.conf", c)

    def up(self):
        self.root = self.spawn([self.tools["supervisord"], "-c", self.p("sup.conf")])

    def ctl(self, *a):
        return [self.tools["supervisorctl"], "-c", self.p("sup.conf"), *a]

    def status_argv(self):
        return self.ctl("status")

    def stop_service(self, name):
        self.sh(self.ctl("stop", name))


class S6(Adapter):
    name, title, needs = "s6", "s6", ("s6-svscan", "s6-svc", "s6-svstat", "s6-log", "s6-svscanctl")
    note = ("a logger (s6-log) for each service; the run script announces readiness by itself, as "
            "s6-supervise always waits 1 s after the death of a service that never became ready")

    def version(self):
        v = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "s6"], capture_output=True, text=True)
        return v.stdout

    def configure(self, services):
        for n, a in services.items():
            os.makedirs(self.p("logs", n), exist_ok=True)
            self.write(f"sv/{n}/run", f"#!/bin/sh\necho >&3\nexec {shlex.join(a)} 3>&-\n", 0o755)
            self.write(f"sv/{n}/notification-fd", "3\n")
            self.write(f"sv/{n}/log/run", f"#!/bin/sh\nexec s6-log n{KEEP} s{ROT} {self.p('logs', n)}\n", 0o755)

    def up(self):
        self.root = self.spawn([self.tools["s6-svscan"], "-c", "4096", self.p("sv")])

    def helper_pid(self, name):
        for p in proc.overhead(self.run):
            if proc.comm(p) == "s6-supervise" and proc.argv(p)[1:] == [name]:
                return p

    def status_argv(self):
        return ["sh", "-c", f"for d in {self.p('sv')}/*; do {self.tools['s6-svstat']} $d; done"]

    def stop_service(self, name):
        self.sh([self.tools["s6-svc"], "-wD", "-T", "15000", "-d", self.p("sv", name)], check=False)

    def shutdown(self):
        self.sh([self.tools["s6-svscanctl"], "-t", self.p("sv")], check=False)
        try:
            self.root.wait(20)
        except subprocess.TimeoutExpired:
            pass

    def logs(self, name):
        return [f for f in glob.glob(self.p("logs", name, "*")) if os.path.basename(f)[0] in "@c"]


class Runit(Adapter):
    name, title, needs = "runit", "runit", ("runsvdir", "runsv", "sv", "svlogd")
    note = "a logger (svlogd) for each service; runsv waits 1 s when a service ran for less"
    max_services = 999

    def version(self):
        v = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "runit"], capture_output=True, text=True)
        return v.stdout

    def configure(self, services):
        for n, a in services.items():
            self.write(f"logs/{n}/config", f"s{ROT}\nn{KEEP}\n")
            self.write(f"sv/{n}/run", f"#!/bin/sh\nexec {shlex.join(a)}\n", 0o755)
            self.write(f"sv/{n}/log/run", f"#!/bin/sh\nexec svlogd {self.p('logs', n)}\n", 0o755)

    def up(self):
        self.root = self.spawn([self.tools["runsvdir"], self.p("sv")])

    def helper_pid(self, name):
        for p in proc.overhead(self.run):
            if proc.comm(p) == "runsv" and proc.argv(p)[1:] == [name]:
                return p

    def status_argv(self):
        return ["sh", "-c", f"{self.tools['sv']} status {self.p('sv')}/*"]

    def stop_service(self, name):
        self.sh([self.tools["sv"], "-w", "15", "stop", self.p("sv", name)], check=False)

    def shutdown(self):
        if self.root.poll() is None:
            self.root.send_signal(signal.SIGHUP)
            try:
                self.root.wait(20)
            except subprocess.TimeoutExpired:
                pass
        self.wait_end()

    def wait_end(self):
        try:
            self.wait_for(lambda: not proc.children(self.run), "children end", 10)
        except RuntimeError:
            pass

    def logs(self, name):
        return [f for f in glob.glob(self.p("logs", name, "*")) if os.path.basename(f)[0] in "@c"
                and not f.endswith("config")]


class Pueue(Adapter):
    name, title, needs = "pueue", "pueue", ("pueued", "pueue")
    respawns, rotation, capture = False, "none: the child writes the file itself", "file"
    note = "has no restart on crash; services are added one by one by its client"
    start_reps = 2

    def version(self):
        return self.sh([self.tools["pueue"], "--version"]).split()[-1]

    def configure(self, services):
        self.services = services
        self.ids = {n: i for i, n in enumerate(services)}
        os.makedirs(self.p("pq"), exist_ok=True)
        self.write("pueue.yml", f"""shared:
  pueue_directory: {self.p('pq')}
  runtime_directory: {self.p('pq')}
  use_unix_socket: true
  unix_socket_path: {self.p('q.sock')}
daemon: {{}}
client: {{}}
""")

    def cli(self, *a):
        return [self.tools["pueue"], "-c", self.p("pueue.yml"), *a]

    def boot(self):
        self.root = self.spawn([self.tools["pueued"], "-c", self.p("pueue.yml")])
        self.wait_for(lambda: os.path.exists(self.p("q.sock")), "pueued socket")
        self.wait_for(lambda: subprocess.run(self.cli("status"), env=self.env, cwd=self.run,
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0, "pueued")
        self.sh(self.cli("parallel", "5000"))

    def up(self):
        for n, a in self.services.items():
            self.sh(self.cli("add", "--label", n, "--", "exec " + shlex.join(a)))

    def recover(self):
        self.boot()
        self.sh(self.cli("start"), check=False)

    def status_argv(self):
        return self.cli("status")

    def stop_service(self, name):
        self.sh(self.cli("kill", str(self.ids[name])))

    def shutdown(self):
        self.sh(self.cli("kill", "--all"), check=False)
        self.sh(self.cli("shutdown"), check=False)
        try:
            self.root.wait(20)
        except subprocess.TimeoutExpired:
            pass

    def logs(self, name):
        return [self.p("pq", "task_logs", f"{self.ids[name]}.log")]


class Pm2(Adapter):
    name, title, needs = "pm2", "pm2", ("pm2",)
    rotation = "none built in (pm2-logrotate is a module of its own)"
    note = "fork mode, interpreter none, restart_delay 0, vizion off"

    def __init__(self, *a):
        super().__init__(*a)
        self.env["PM2_HOME"] = self.p("pm2")

    def version(self):
        v = self.sh(self.cli("--version")).strip().splitlines()[-1]
        self.sh(self.cli("kill"), check=False)      # even --version starts its daemon
        return v

    def configure(self, services):
        os.makedirs(self.p("logs"), exist_ok=True)
        apps = [dict(name=n, script=a[0], args=a[1:], interpreter="none", exec_mode="fork",
                     autorestart=True, max_restarts=10_000_000, min_uptime=100, restart_delay=0,
                     vizion=False, merge_logs=True, out_file=self.p("logs", n + ".log"),
                     error_file=self.p("logs", n + ".err")) for n, a in services.items()]
        self.write("eco.json", json.dumps(dict(apps=apps)))

    def cli(self, *a):
        return [self.tools["pm2"], *a]

    def up(self):
        self.sh(self.cli("start", self.p("eco.json"), "--silent"), timeout=600)

    def settled(self):
        self.sh(self.cli("save", "--silent"))

    def recover(self):
        self.sh(self.cli("resurrect"), check=False)

    def main_pid(self):
        with open(self.p("pm2", "pm2.pid")) as f:
            return int(f.read())

    def status_argv(self):
        return self.cli("jlist")

    def stop_service(self, name):
        self.sh(self.cli("stop", name))

    def shutdown(self):
        self.sh(self.cli("kill"), check=False, timeout=120)

    def logs(self, name):
        return [self.p("logs", name + ".log")]


class Circus(Adapter):
    name, title, needs = "circus", "circus", ("circusd", "circusctl")
    check_delay = 0.1
    note = "check_delay 0.1 s (default 5 s): it finds deaths by polling alone; stop_children on"

    def version(self):
        return self.sh([self.tools["circusd"], "--version"]).strip().split()[-1]

    def configure(self, services):
        os.makedirs(self.p("logs"), exist_ok=True)
        c = f"""[circus]
endpoint = ipc://{self.p('c')}
pubsub_endpoint = ipc://{self.p('b')}
statsd = False
check_delay = {self.check_delay}
warmup_delay = 0
"""
        for n, a in services.items():
            c += f"""[watcher:{n}]
cmd = {a[0]}
args = {shlex.join(a[1:])}
numprocesses = 1
warmup_delay = 0
max_retry = -1
copy_env = True
stop_children = True
graceful_timeout = 5
stdout_stream.class = FileStream
stdout_stream.filename = {self.p('logs', n + '.log')}
stdout_stream.max_bytes = {ROT}
stdout_stream.backup_count = {KEEP}
"""
        self.write("circus.ini", c)

    def up(self):
        self.root = self.spawn([self.tools["circusd"], "--log-level", "info", self.p("circus.ini")])

    def ctl(self, *a):
        return [self.tools["circusctl"], "--timeout", "60", "--endpoint", f"ipc://{self.p('c')}", *a]

    def status_argv(self):
        return self.ctl("status")

    def stop_service(self, name):
        self.sh(self.ctl("stop", name, "--waiting"), check=False)


class Horust(Adapter):
    name, title, needs = "horust", "horust", ("horust",)
    note = "backoff 0 s; has no command that stops one service"

    def version(self):
        try:                        # it has no --version; cargo's own list beside the program knows
            with open(os.path.join(os.path.dirname(self.tools["horust"]), "..", ".crates.toml")) as f:
                return next(x for x in f if x.startswith('"horust ')).split()[1]
        except (OSError, StopIteration):
            return "?"

    def configure(self, services):
        os.makedirs(self.p("logs"), exist_ok=True)
        os.makedirs(self.p("uds"), exist_ok=True)
        for n, a in services.items():
            self.write(f"services/{n}.toml", f"""command = "{shlex.join(a)}"
stdout = "{self.p('logs', n + '.log')}"
stdout-rotate-size = "{ROT} B"
[restart]
strategy = "always"
backoff = "0s"
attempts = 1000000
[environment]
keep-env = true
[termination]
wait = "5s"
""")

    def up(self):
        self.root = self.spawn([self.tools["horust"], "--services-path", self.p("services"),
                                "--uds-folder-path", self.p("uds")])

    def status_argv(self):
        return None

    def stop_service(self, name):
        return False


class Docker(Adapter):
    name, title, needs = "docker", "Docker Engine", ("dockerd", "docker", "containerd")
    note = ("network none, json-file log, restart always (its first delay of 100 ms is fixed), "
            "daemon running beforehand, containers created beforehand, started by 4 clients at once")
    start_reps = 2
    max_services = 200
    live_restore = False

    def version(self):
        return self.sh([self.tools["dockerd"], "--version"]).split()[2].rstrip(",")

    def cli(self, *a):
        return [self.tools["docker"], "-H", f"unix://{self.p('d.sock')}", *a]

    def configure(self, services):
        self.services = services

    def boot(self):
        self.daemon()
        root = self.p("image")
        os.makedirs(root, exist_ok=True)
        shutil.copy(self.child, self.p("image", proc.CHILD))
        self.sh(["sh", "-c", f"tar -C {root} -c . | {shlex.join(self.cli('import', '-', 'bench'))}"])
        cmds = []
        for n, a in self.services.items():
            cmds.append(shlex.join(self.cli(
                "create", "--name", n, "--restart", "always", "--network", "none",
                "--log-opt", "max-size=10m", "--log-opt", f"max-file={KEEP}",
                "-v", f"{self.p('stamps')}:{self.p('stamps')}", "bench", "/" + proc.CHILD, *a[1:])))
        self.write("create", "\n".join(cmds) + "\n")
        self.sh(["sh", "-c", f"xargs -P 4 -I@ sh -c @ < {self.p('create')} > /dev/null"], timeout=600)

    def daemon(self):
        argv = [self.tools["dockerd"], "--data-root", self.p("data"), "--exec-root", self.p("x"),
                "--pidfile", self.p("d.pid"), "-H", f"unix://{self.p('d.sock')}", "--bridge=none",
                "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        self.root = self.spawn(argv + (["--live-restore"] if self.live_restore else []))
        self.wait_for(lambda: subprocess.run(self.cli("version"), stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode == 0, "dockerd", 60)

    def up(self):
        self.write("names", "\n".join(self.services) + "\n")
        self.sh(["sh", "-c", f"xargs -P 4 -n 10 {shlex.join(self.cli('start'))} < {self.p('names')} > /dev/null"],
                timeout=600)

    def recover(self):
        if os.path.exists(self.p("d.pid")):
            os.unlink(self.p("d.pid"))
        self.daemon()

    def helper_pid(self, name):
        cid = self.sh(self.cli("inspect", "-f", "{{.Id}}", name)).strip()
        for p in proc.overhead(self.run):
            if proc.comm(p).startswith("containerd-shim") and cid in proc.argv(p):
                return p

    def status_argv(self):
        return self.cli("ps")

    def stop_service(self, name):
        self.sh(self.cli("stop", "-t", "5", name))

    def shutdown(self):
        ids = self.sh(self.cli("ps", "-aq"), check=False).split()
        for i in range(0, len(ids), 50):
            self.sh(self.cli("rm", "-f", *ids[i:i + 50]), check=False, timeout=600)
        super().shutdown()

    def logs(self, name):
        cid = self.sh(self.cli("inspect", "-f", "{{.Id}}", name)).strip()
        return glob.glob(self.p("data", "containers", cid, f"{cid}-json.log*"))


class DockerLive(Docker):
    name, title, live_restore = "docker-live", "Docker Engine, live-restore", True
    only = ("kill",)


class Devnetd(Adapter):
    name, title, needs = "devnetd", "devnetd", ("devnetd", "dvbctl", "dvb-plugin-exec")
    rotation, capture = "10 MB segments, copied out of the file that the child writes itself", "file"
    note = "`plugin: exec` devnets of at most 250 services, backoff 0 s; up includes the start of the daemon"

    PER_DEVNET = 250                    # what one loopback /24 can address

    def __init__(self, *a):
        super().__init__(*a)
        self.env.update(DVB_HOME=self.p("h"), NO_COLOR="1")
        for name in ("DVB_SOCKET", "DVB_ADDRESS"):
            self.env.pop(name, None)
        self.env["PATH"] = os.path.dirname(self.tools["devnetd"]) + os.pathsep + self.env["PATH"]

    def version(self):
        return self.sh([self.tools["devnetd"], "--version"]).split()[-1]

    def configure(self, services):
        names = list(services)
        documents = []
        for at in range(0, len(names), self.PER_DEVNET):
            listed = [dict(name=n, command=services[n], env=dict(BENCH_RUN=self.run))
                      for n in names[at:at + self.PER_DEVNET]]
            documents.append(dict(apiVersion="devnet.builder/v1", kind="Devnet", metadata=dict(name=self.devnet(at)),
                                  spec=dict(plugin="exec", services=listed, localhost=False,
                                            restart=dict(policy="always", backoff="0s", maxRestarts=1_000_000))))
        self.devnets = {n: self.devnet(i - i % self.PER_DEVNET) for i, n in enumerate(names)}
        self.write("net.yaml", "".join(f"---\n{json.dumps(d)}\n" for d in documents))      # JSON is YAML

    @staticmethod
    def devnet(at):
        return f"bench{at}"

    def cli(self, *a):
        return [self.tools["dvbctl"], *a]

    def up(self):
        self.sh(self.cli("apply", "-f", self.p("net.yaml")))

    def recover(self):
        self.sh(self.cli("daemon", "start"))

    def main_pid(self):
        with open(self.p("h", "devnetd.lock")) as f:
            return int(f.readline())      # then its socket and its home

    def status_argv(self):
        return self.cli("get", "nodes", "bench0")

    def stop_service(self, name):
        self.sh(self.cli("stop", f"{self.devnets[name]}/{name}"))

    def shutdown(self):
        self.sh(self.cli("delete", "devnets", "--all", "--yes"), check=False)
        self.sh(self.cli("daemon", "stop", "--with-nodes"), check=False)

    def logs(self, name):
        return glob.glob(self.p("h", "devnets", "default", self.devnets[name], "nodes", name, "logs", "*.log"))

    def whole_log(self, name):
        """By its own reader: what is rotated is moved and compressed meanwhile."""
        with open(self.p("whole.log"), "wb") as f:
            subprocess.run(self.cli("logs", "--tail", "1000000000", f"{self.devnets[name]}/{name}"), env=self.env, cwd=self.run,
                           stdin=subprocess.DEVNULL, stdout=f, check=True, timeout=120)
        return [self.p("whole.log")]


PEERS = {c.name: c for c in (Floor, FloorPump, Devnetd, S6, Runit, Supervisord, Circus, Horust, Pm2, Pueue,
                             Docker, DockerLive)}
# Rows which stay blank, and why.
BLANK = {"systemd": "must be PID 1", "process-compose": "its Go module was not to be had",
         "overmind": "its Go module was not to be had"}
