# What the scripts in the guest have in common. Sourced.
set -euo pipefail
export PATH=/shared/bin:$PATH NO_COLOR=1
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}

say() { echo "ok    $*"; }
# What of the suite's table has passed here; said at its end.
covers() { for item; do echo "covered $item"; done; }

# Each check ends the run when it does not hold, with what a developer would look at.
die() {
  echo "FAIL  $*" >&2
  tail -n 25 ~/.devnet-builder/logs/devnetd.log >&2 || true
  dvbctl get nodes -A -o wide >&2 || true
  systemctl --user --no-pager --full status devnetd.service >&2 || true
  exit 1
}

is() { # WHAT GOT WANTED
  [ "$2" = "$3" ] && say "$1" || die "$1: $2 instead of $3"
}

# The first value of a key in a node's JSON.
field() { dvbctl get node "$1" -o json | sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\).*/\1/p" | head -1; }
pid() { field "$1" pid; }
leaf() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(pid "$1")/cgroup")"; }
unit() { systemctl --user is-active "$1" || true; }

# For what has no event to wait for: SECONDS COMMAND...
within() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.5
  done
}
