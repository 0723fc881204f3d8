#!/bin/bash
# A user who does not linger logs out: all ends in order, and comes back at the next login. Runs in the guest, as root.
export HOME=/home/guest
. /shared/lib.sh

as guest bash -c '. /shared/lib.sh
cat >"$HOME/box.yaml" <<Y
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: box}
spec:
  plugin: exec
  services:
    - {name: idle, command: [sleep, "100000"]}
Y
dvbctl daemon install --now 2>"$HOME/install.err" || die install
grep -q enable-linger "$HOME/install.err" || die "install does not tell about linger"
dvbctl up "$HOME/box.yaml" || die up
pid box/idle >"$HOME/before"' || exit 1

log=/home/guest/.devnet-builder/logs/devnetd.log
before=$(cat /home/guest/before)
ended() { [ "$(systemctl is-active user@1001.service)" != active ] && ! pgrep -u guest >/dev/null; }
within 60 ended || { pgrep -u guest -a >&2; echo "FAIL  processes outlive the logout" >&2; exit 1; }
say "after the logout nothing of the user runs"
tail -n 1 "$log" | grep -q 'ended' || { tail "$log" >&2; echo "FAIL  devnetd did not end in order" >&2; exit 1; }
starts=$(grep -c serving "$log")

as guest bash -c '. /shared/lib.sh
dvbctl wait box --for=Running --timeout 60s || die "box is not back"
pid box/idle >"$HOME/after"
dvbctl delete box --yes; dvbctl daemon uninstall' || exit 1
[ "$(cat /home/guest/after)" != "$before" ] || { echo "FAIL  the old pid is still reported" >&2; exit 1; }
[ "$(grep -c serving "$log")" -gt "$starts" ] || exit 1
say "at the next login the devnet is back"
covers logout
