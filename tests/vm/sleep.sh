#!/bin/bash
# The machine stands still for a minute, as a laptop does whose lid is closed: nothing is restarted for it, and nobody is called sick.
# Runs in the guest, as a user who lingers. The host stops and continues the whole guest, whose clocks then leap.
. /shared/lib.sh

cat >"$HOME/box.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: box}
spec:
  plugin: exec
  services:
    - {name: idle, command: [sleep, "100000"]}
Y
cat >"$HOME/sea.yaml" <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: sea}
spec: {plugin: commonware, validators: 2, blockTime: 2s}
Y
nodes() { dvbctl get nodes -o json | grep -E '"(name|pid|restartCount)":'; }
height() { dvbctl describe sea | sed -n 's/^Height: *//p'; }
reach() { dvbctl wait sea --for="height=$1" --timeout 60s || die "no blocks: $(dvbctl describe sea)"; }
warnings() { dvbctl events --limit 0 -o json | grep -ci '"type": "warning"' || true; }

dvbctl daemon install --now || die "daemon install"
dvbctl up "$HOME/box.yaml" || die "up box"
dvbctl up "$HOME/sea.yaml" --timeout 180s || die "up sea"
reach 3
before=$(nodes) warned=$(warnings) high=$(height) since=$SECONDS

echo 60 >/ctl/sleep
within 90 eval '[ ! -s /ctl/sleep ]' || die "the host did not put the guest to sleep"
[ $((SECONDS - since)) -ge 55 ] || die "the clock did not leap: this tests nothing"
reach $((high + 5))
is "the same processes, none restarted" "$(nodes)" "$before"
is "warnings for the sleep" "$(($(warnings) - warned))" 0
# The manager's clock leapt too, so its watchdog may have found devnetd silent for a minute. Once, then: that is no storm.
[ "$(systemctl --user show -P NRestarts devnetd.service)" -le 1 ] || die "devnetd was restarted again and again"
is "devnetd" "$(unit devnetd.service)" active
dvbctl delete sea box --yes || die "delete"
dvbctl daemon uninstall || die "uninstall"
covers sleep
