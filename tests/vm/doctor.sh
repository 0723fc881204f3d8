#!/bin/bash
# What `daemon doctor` names, its own command mends: no linger, no delegated controllers. Runs in the guest, as root, who is also `sudo`.
export HOME=/home/guest
. /shared/lib.sh
sudo() { "$@"; }

doctor() { as guest bash -c '. /shared/lib.sh; dvbctl daemon doctor'; }
verdict() { doctor | sed -n "s/^\([a-z]*\)  *$1: .*/\1/p"; }
remedy() { doctor | sed -n "/^[a-z]* *$1:/{n;s/^ *try: //p}"; }
cat >/home/guest/box.yaml <<'Y'
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: box}
spec:
  plugin: exec
  services:
    - {name: idle, command: [sleep, "100000"], resources: {cpu: "0.5"}}
Y

# Linger. No polkit runs here, so the half that users can do themselves is refused, as on a small server.
is "doctor on linger" "$(verdict linger)" warn
mend=$(remedy linger)
case $mend in "loginctl enable-linger || sudo "*) ;; *) die "the mend of linger: $mend" ;; esac
! as guest loginctl enable-linger 2>/dev/null || die "a user without polkit lingers by himself: this part tests nothing"
eval "${mend#*|| }" || die "the command fails: $mend"
is "after its command, linger" "$(verdict linger)" ok

# Delegation. A manager that starts with fewer controllers than it needs, then the command.
folder=/etc/systemd/system/user@.service.d
mkdir -p "$folder"; printf '[Service]\nDelegate=no\nDelegate=memory pids\n' >"$folder/10-little.conf"
systemctl daemon-reload; systemctl restart user@1001.service
is "doctor on delegation" "$(verdict delegation)" warn
as guest bash -c '. /shared/lib.sh
dvbctl up "$HOME/box.yaml" || die up
dvbctl wait box/idle --for=condition=LimitsEnforced=False --timeout 20s || die "a limit that nobody enforces is not told"' || exit 1
say "a limit that cannot be enforced is a condition"
mend=$(remedy delegation)
eval "$mend" >/dev/null || die "the command fails: $mend"
is "after its command, delegation" "$(verdict delegation)" ok
as guest bash -c '. /shared/lib.sh
dvbctl wait box/idle --for=condition=LimitsEnforced --timeout 60s || die "the limit is not enforced: $(dvbctl describe box/idle)"
dvbctl wait box --for=Running --timeout 30s || die "box is not back"
is "the limit" "$(cat "$(leaf box/idle)/cpu.max")" "50000 100000"
dvbctl delete box --yes && dvbctl daemon stop' || exit 1
covers doctor
