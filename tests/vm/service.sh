#!/bin/bash
# devnetd as a service of a user manager: units, socket, limits, and nodes that do not notice what becomes of the daemon. Runs in the
# guest, in a login session of a user who lingers.
. /shared/lib.sh

cat >"$HOME/box.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: box}
spec:
  plugin: exec
  services:
    - {name: idle, command: [sleep, "100000"], resources: {memory: 64Mi, memoryHigh: 48Mi, cpu: "0.5", tasks: 16}}
    - name: forker
      command: [sh, -c, "(for i in 1 2 3 4 5 6 7 8; do sleep 100000 & done); exec sleep 100000"]
      resources: {tasks: 4}
Y
cat >"$HOME/hog.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: hog}
spec:
  plugin: exec
  services:
    - {name: eater, command: [tail, /dev/zero], resources: {memory: 32Mi}, restart: {policy: never}}
Y

cat >"$HOME/house.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: house}
spec:
  plugin: exec
  devnetResources: {memory: 48Mi, cpu: "0.5", tasks: 40}
  services:
    - {name: bystander, command: [sleep, "100000"]}
    - {name: eater, command: [tail, /dev/zero], after: [bystander], restart: {policy: never}}
Y

cat >"$HOME/chain.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: chain}
spec: {plugin: commonware, validators: 2, blockTime: 2s, resources: {memory: 256Mi, tasks: 64}}
Y

# Units, socket activation
dvbctl daemon install --now || die "daemon install"
is "install --now starts the service" "$(unit devnetd.service)" active
dvbctl daemon stop || die "daemon stop"
is "daemon stop stays stopped" "$(unit devnetd.service)" inactive
is "the socket goes on listening" "$(unit devnetd.socket)" active
rc=0; dvbctl daemon status 2>/dev/null || rc=$?
is "status tells that it does not run" $rc 5
is "and does not start it" "$(unit devnetd.service)" inactive
dvbctl get devnets >/dev/null || die "get"
is "a client that connects starts it" "$(unit devnetd.service)" active
covers socket
within 20 eval "journalctl --user -u devnetd --no-pager | grep -q 'devnetd::daemon: serving'" ||
  die "the journal has not got what devnetd says: $(journalctl --user -u devnetd --no-pager 2>&1 | tail -n 5)"
say "journalctl --user -u devnetd shows what it says"
covers journal
dvbctl daemon doctor || die "doctor"
dvbctl daemon status | grep "cgroups: *systemd: .*, systemd $(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" ||
  die "the driver is $(dvbctl daemon status | grep cgroups)"

# Limits
dvbctl up "$HOME/box.yaml" || die "up"
idle=$(leaf box/idle)
case $idle in */devnet.slice/devnet-*.scope/nodes/default/box/idle@*) say "nodes live in the scope of the home" ;; *) die "idle is in $idle" ;; esac
is "nodes that start side by side all get their limits at once" "$(field box/idle restartCount)$(field box/forker restartCount)" 00
is memory.max "$(cat "$idle/memory.max")" 67108864
is memory.high "$(cat "$idle/memory.high")" 50331648
is memory.oom.group "$(cat "$idle/memory.oom.group")" 1
is cpu.max "$(cat "$idle/cpu.max")" "50000 100000"
is pids.max "$(cat "$idle/pids.max")" 16
forker=$(leaf box/forker)
within 20 grep -q 'max [1-9]' "$forker/pids.events" || die "the kernel refused no fork: $(cat "$forker/pids.events")"
is "a fork beyond the limit fails" "$(wc -l <"$forker/cgroup.procs")" 3
covers limits
tree=$(systemd-cgls --no-pager -l --user-unit devnet.slice)
for leaf in holder box 'idle@' 'forker@'; do grep -q -- "$leaf" <<<"$tree" || die "systemd-cgls shows no $leaf: $tree"; done
say "systemd-cgls shows who belongs to what"

# Limits of a chain's nodes, and what they use
dvbctl up "$HOME/chain.yaml" --timeout 5m || die "up chain"
dvbctl wait chain/validator-0 --for=condition=LimitsEnforced --timeout 20s || die "no condition: $(dvbctl describe chain/validator-0)"
validator=$(leaf chain/validator-0)
case $validator in */nodes/default/chain/validator-0@*) say "validators live in the scope too" ;; *) die "validator-0 is in $validator" ;; esac
is "a validator's memory.max" "$(cat "$validator/memory.max")" 268435456
is "a validator's pids.max" "$(cat "$validator/pids.max")" 64
is "a validator is charged for what it has" "$([ "$(cat "$validator/memory.current")" -gt 1000000 ] && echo yes)" yes
cell() { dvbctl top chain | awk -v column="$1" 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == column) at = i} $1 == "chain/validator-0" && at {print $at}'; }
case $(cell MEMORY) in [1-9]*) say "top shows a validator's memory: $(cell MEMORY)" ;; *) die "top shows no memory: $(dvbctl top chain)" ;; esac
if head -c1 "$validator/memory.pressure" >/dev/null 2>&1; then
  case $(cell PRESSURE) in [0-9]*) say "and its pressure: $(cell PRESSURE)" ;; *) die "top shows no pressure: $(dvbctl top chain)" ;; esac
fi
dvbctl delete chain --yes || die "delete chain"
covers chain-limits

# Lack of memory
dvbctl apply -f "$HOME/hog.yaml" || die "apply"
within 30 dvbctl get node hog/eater || die "apply makes no node"
dvbctl wait hog/eater --for=Failed --timeout 60s || die "the hog lives"
is "an OOM kill is named" "$(field hog/eater class)" oom
dvbctl describe hog/eater | grep 'lack of memory: it reached its limit of 32 MiB' || die "the certificate does not name the limit: $(dvbctl describe hog/eater)"
dvbctl describe hog/eater | grep -E 'Limit reached: .* of 32(.0)?Mi, peak [1-9]' || die "no limit and peak in the certificate: $(dvbctl describe hog/eater)"
dvbctl delete hog --yes || die "delete hog"
is "an OOM kill hurts nobody else" "$(cat "$idle/cgroup.procs")" "$(pid box/idle)"

# Limits of a whole devnet
dvbctl apply -f "$HOME/house.yaml" || die "apply"
within 30 dvbctl get node house/eater || die "apply makes no node"
dvbctl wait house/eater --for=Failed --timeout 60s || die "the eater lives"
is "an OOM kill within a devnet's limit is named" "$(field house/eater class)" oom
dvbctl describe house/eater | grep 'its devnet reached the limit of 48 MiB of all its nodes together' || die "the devnet's limit is not named: $(dvbctl describe house/eater)"
dvbctl describe house/eater | grep "Limit reached: the devnet's of 48Mi, peak" || die "no limit in the certificate: $(dvbctl describe house/eater)"
bystander=$(leaf house/bystander)
house=$(dirname "$bystander")
is "the bystander lives" "$(cat "$bystander/cgroup.procs")" "$(pid house/bystander)"
is "the devnet's memory.max" "$(cat "$house/memory.max")" 50331648
is "the devnet's cpu.max" "$(cat "$house/cpu.max")" "50000 100000"
is "the devnet's pids.max" "$(cat "$house/pids.max")" 40
dvbctl wait house --for=condition=LimitsEnforced --timeout 20s || die "no condition"
sed -i 's/memory: 48Mi, //' "$HOME/house.yaml"
dvbctl apply -f "$HOME/house.yaml" || die "apply"
within 20 grep -qx max "$house/memory.max" || die "the limit is not lifted: $(cat "$house/memory.max")"
is "limits of a devnet change under its nodes" "$(cat "$bystander/cgroup.procs")" "$(pid house/bystander)"
dvbctl delete house --yes || die "delete house"
covers devnet-limits OOM

# Freeze
dvbctl freeze box/idle || die "freeze"
is "a frozen node stands still" "$(grep -c 'frozen 1' "$idle/cgroup.events")" 1
systemctl --user kill -s KILL devnetd.service; within 30 eval '[ "$(unit devnetd.service)" = active ]' || die "not restarted"
is "over a crash of devnetd" "$(grep -c 'frozen 1' "$idle/cgroup.events")" 1
dvbctl thaw box/idle || die "thaw"
is "and goes on" "$(grep -c 'frozen 0' "$idle/cgroup.events")" 1
covers freeze

# Nodes do not blink
before=$(pid box/idle)
still() {
  is "$1: same process" "$(pid box/idle)" "$before"
  is "$1: same cgroup" "$(leaf box/idle)" "$idle"
  is "$1: same limit" "$(cat "$idle/memory.max")" 67108864
}
systemctl --user restart devnetd.service; still restart
systemctl --user stop devnetd.service
is "its unit is stopped, the node is not" "$(cat "$idle/cgroup.procs")" "$before"
still stop
covers restart
main() { systemctl --user show -P MainPID devnetd.service; }
started() { dvbctl daemon status -o json | sed -n 's/^ *"startedAt": "\([^"]*\)".*/\1/p'; }
# It is executed anew in the same process, and the unit hears of it.
reloads() { # WHAT COMMAND...
  local what=$1 process began; shift
  process=$(main) began=$(started)
  "$@" || die "$what"
  within 30 eval "[ \"\$(started)\" != '$began' ]" || die "$what: it was not executed anew"
  is "$what: same process" "$(main)" "$process"
  is "$what: the unit" "$(unit devnetd.service)" active
  still "$what"
}
reloads "systemctl reload" systemctl --user reload devnetd.service
reloads "daemon reload" dvbctl daemon reload
process=$(main)
dvbctl daemon restart || die "daemon restart"
is "daemon restart: the unit" "$(unit devnetd.service)" active
is "daemon restart: another process" "$([ "$(main)" != "$process" ] && echo yes)" yes
is "daemon restart: it is the unit's that serves" "$(dvbctl daemon status -o json | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p')" "$(main)"
still "daemon restart"
covers reload
systemctl --user kill -s KILL devnetd.service; within 30 eval '[ "$(unit devnetd.service)" = active ]' || die "not restarted"; still "kill -9"
covers crash
systemctl --user daemon-reload; still daemon-reload
systemctl --user daemon-reexec; still daemon-reexec
is "the scope still stands" "$(systemctl --user list-units --no-legend 'devnet-*.scope' | wc -l)" 1

# A devnetd that hangs. The unit's 30 s are made 3 here: what counts is that it keeps its word, and is replaced when it does not.
drop=$HOME/.config/systemd/user/devnetd.service.d
mkdir -p "$drop"; printf '[Service]\nWatchdogSec=3s\n' >"$drop/watchdog.conf"
systemctl --user daemon-reload; systemctl --user restart devnetd.service
hung=$(main)
within 8 eval '[ "$(main)" != "$hung" ]' && die "the watchdog fired although it does not hang"
systemctl --user kill -s STOP devnetd.service
within 30 eval '[ "$(main)" != "$hung" ] && [ "$(unit devnetd.service)" = active ]' || die "a hanging devnetd was not replaced"
still "watchdog"
covers watchdog
rm -r "$drop"; systemctl --user daemon-reload

# Without the service, from a login session
dvbctl daemon uninstall || die "uninstall"
is "uninstall stops the service" "$(unit devnetd.service)" inactive
still uninstall
dvbctl daemon status | grep 'cgroups: *systemd' || die "a devnetd that dvbctl started has no scope"
grep -q '/user@.*/app.slice/devnetd-' "/proc/$(dvbctl daemon status -o json | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p')/cgroup" || die "devnetd stayed in the login session"
dvbctl restart box/idle || die "restart box/idle"
within 30 eval '[ "$(pid box/idle)" -gt 0 ] && [ "$(pid box/idle)" != "$before" ]' || die "box/idle did not restart"
case $(leaf box/idle) in */devnet.slice/devnet-*.scope/*) say "its nodes are in the scope too" ;; *) die "restarted into $(leaf box/idle)" ;; esac
dvbctl delete box --yes || die "delete"
dvbctl daemon stop || die "stop"
gone() { [ -z "$(systemctl --user list-units --no-legend 'devnet-*.scope')" ]; }
within 20 gone || die "the scope stays: $(systemctl --user status 'devnet-*.scope')"
say "without devnets nothing is left of the scope"
covers uninstall
