#!/bin/bash
# The machine is booted anew under a running devnet: it comes back by itself, in order. Runs in the guest, as a user who lingers, twice:
# exit status 194 asks for the reboot.
. /shared/lib.sh

if [ ! -e "$HOME/rebooted" ]; then
  cat >"$HOME/box.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: box}
spec:
  plugin: exec
  services:
    - {name: first, command: [sh, -c, "sleep 1; echo set; exec sleep 100000"], readiness: {log: set}}
    - {name: second, command: [sleep, "100000"], after: [first]}
Y
  dvbctl daemon install --now || die "daemon install"
  dvbctl up "$HOME/box.yaml" || die "up"
  cat /proc/sys/kernel/random/boot_id >"$HOME/rebooted"
  sync
  exit 194
fi

[ "$(cat /proc/sys/kernel/random/boot_id)" != "$(cat "$HOME/rebooted")" ] || die "it was not booted"
dvbctl wait box --for=Running --timeout 90s || die "box is not back"
is "nobody had to start it" "$(unit devnetd.service)" active
for node in box/first box/second; do
  is "$node: restarts" "$(field $node restartCount)" 0
  kill -0 "$(pid $node)" || die "$node does not run"
  dvbctl describe $node | grep 'ended with the machine' || die "the certificate of $node: $(dvbctl describe $node)"
done
[[ $(field box/first startedAt) < $(field box/second startedAt) ]] || die "second came before first"
say "after a reboot the devnet is back, in order"
dvbctl delete box --yes || die "delete"
dvbctl daemon uninstall || die "uninstall"
covers reboot
