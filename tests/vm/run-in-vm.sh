#!/bin/bash
# Runs a command under a real systemd (PID 1, user managers, unified cgroup v2, delegated controllers) in a throw-away VM, without KVM.
#
#   run-in-vm.sh SHARED_DIR COMMAND [ARG...]     stdout, stderr and exit status are the command's; one argument is a shell line
#   run-in-vm.sh --build | --clean               makes the images only; removes all of them
#
#   SHARED_DIR   host folder, readable for others; read-only at /shared in the guest, where the command begins
#   VM_SUITE     bookworm (systemd 252, kernel 6.1) | bookworm-backports (254, 6.12) | trixie (257, 6.12)
#   VM_USER      tester (uid 1000, lingers) | guest (uid 1001, does not) | root; in root's commands `as USER CMD...` logs USER in
#   VM_MEM=2048  VM_SMP=2  VM_TIMEOUT=600        MiB, processors, seconds
#   VM_LOG       host folder for console.log and journal.txt
#   VM_CACHE     images and snapshots of booted guests [~/.cache/run-in-vm]
#   Seconds that a command writes to /ctl/sleep the guest stands still, its clocks leaping; then the file is empty again.
#   A command that exits with 194 is run again after the guest has booted anew: same disk, another boot id.
#   exit 124: VM_TIMEOUT reached;  125: the VM or its build failed
#
# Needs root and apt to build an image (mmdebstrap and qemu-system-x86 are installed where they are missing); about a minute on an idle
# machine. Each run resumes the snapshot: same boot id and pids; the clock is set.
set -uo pipefail

VM_SUITE=${VM_SUITE:-bookworm} VM_USER=${VM_USER:-tester}
VM_MEM=${VM_MEM:-2048} VM_SMP=${VM_SMP:-2} VM_TIMEOUT=${VM_TIMEOUT:-600}
VM_CACHE=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/run-in-vm}
NICE="nice -n ${VM_NICE:-5}"
# package mirrors: those that apt on this machine uses
uris() { apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sort -u; }
MIRROR=${VM_MIRROR:-$(uris | grep -v security | head -1)}; MIRROR=${MIRROR%/}
SECMIRROR=${VM_SECMIRROR:-$(uris | grep security | head -1)}; SECMIRROR=${SECMIRROR:-${MIRROR}-security}; SECMIRROR=${SECMIRROR%/}
PKGS=systemd-sysv,passwd,login,dbus,dbus-user-session,libpam-systemd,iproute2,procps,kmod

die() { echo "run-in-vm: $*" >&2; exit 125; }
say() { echo "run-in-vm: $*" >&2; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.1f", b-a}'; }

need() {
  local miss=() p
  for p in "$@"; do command -v "${p%%:*}" >/dev/null || miss+=("${p#*:}"); done
  [ ${#miss[@]} = 0 ] && return
  say "installing ${miss[*]}"
  $NICE apt-get install -y --no-install-recommends "${miss[@]}" >/dev/null 2>&1 ||
    { apt-get update >/dev/null 2>&1; $NICE apt-get install -y --no-install-recommends "${miss[@]}" >/dev/null 2>&1; } ||
    die "cannot install ${miss[*]}"
}

guest_files() { # $1 = root: users, trimmed boot, the agent
  local R=$1 u
  echo vm >"$R/etc/hostname"; echo '127.0.0.1 localhost vm' >"$R/etc/hosts"
  echo 0123456789abcdef0123456789abcdef >"$R/etc/machine-id"; : >"$R/etc/fstab"
  mkdir -p "$R"/{shared,ctl,var/lib/systemd/linger,etc/systemd/system/multi-user.target.wants} "$R/var/log/journal"
  chroot "$R" useradd -m -s /bin/bash -u 1000 tester || die "no useradd in the image"
  chroot "$R" useradd -m -s /bin/bash -u 1001 guest
  touch "$R/var/lib/systemd/linger/tester"          # = loginctl enable-linger tester
  # Nothing here is what is under test; each unit costs 0.2-1 s under emulation.
  for u in getty.target systemd-firstboot.service systemd-sysusers.service systemd-random-seed.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount systemd-repart.service \
    systemd-pcrphase-sysinit.service systemd-pcrphase.service systemd-machine-id-commit.service \
    kmod-static-nodes.service systemd-modules-load.service systemd-ask-password-console.path \
    systemd-ask-password-wall.path systemd-remount-fs.service systemd-initctl.socket remote-fs.target \
    cryptsetup.target veritysetup.target integritysetup.target systemd-tmpfiles-clean.timer \
    systemd-boot-random-seed.service systemd-sysext.service systemd-hwdb-update.service \
    systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-pcrmachine.service \
    modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service modprobe@loop.service getty@tty1.service; do
    ln -sfn /dev/null "$R/etc/systemd/system/$u"
  done
  rm -f "$R"/etc/systemd/system/timers.target.wants/*
  mkdir -p "$R/etc/systemd/system-generators" "$R/etc/systemd/user-generators"
  for u in "$R"/lib/systemd/system-generators/*; do ln -sfn /dev/null "$R/etc/systemd/system-generators/${u##*/}"; done
  for u in "$R"/lib/systemd/user-generators/*; do [ -e "$u" ] && ln -sfn /dev/null "$R/etc/systemd/user-generators/${u##*/}"; done
  ln -sfn /lib/systemd/system/multi-user.target "$R/etc/systemd/system/default.target"
  cat >"$R/etc/systemd/system/vmagent.service" <<'E'
[Unit]
Description=run-in-vm agent
After=multi-user.target user@1000.service systemd-logind.service dbus.service
Wants=user@1000.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/vmagent
StandardOutput=journal
TimeoutStartSec=infinity
# the test's process must not be judged by the agent's own limits
TasksMax=infinity
E
  ln -sfn ../vmagent.service "$R/etc/systemd/system/multi-user.target.wants/vmagent.service"
  cat >"$R/usr/local/bin/as" <<'E'
#!/bin/bash
# as USER CMD...: (root only) run CMD in a fresh login session of USER, the way ssh would (PAM, logind session scope)
u=$1; shift; printf -v c '%q ' "$@"
exec su -l "$u" -c "cd $(printf %q "$PWD") 2>/dev/null; exec $c"
E
  cat >"$R/usr/local/sbin/vmagent" <<'E'
#!/bin/bash
# Started at the end of boot: say '?' on ttyS1 until the host answers 'GO <epoch> <entropy>', then mount and run.
exec 2>/dev/console
up0=$(cut -d' ' -f1 /proc/uptime)
stty -F /dev/ttyS1 raw -echo; exec 3<>/dev/ttyS1
while :; do echo '?' >&3; read -r -t 0.25 w epoch ent <&3 && [ "$w" = GO ] && break; done
date -s "@$epoch" >/dev/null; echo "$ent" >/dev/urandom
o=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o $o,cache=none ctl /ctl; mount -t 9p -o $o,cache=loose,ro shared /shared
. /ctl/env                      # U, ...
date +%s.%N >/ctl/t_start; echo "$up0" >/ctl/uptime_ready; cut -d' ' -f1 /proc/uptime >/ctl/uptime_start
if [ "$U" = root ]; then (cd /shared; bash /ctl/cmd) </dev/null >>/ctl/stdout 2>>/ctl/stderr
else su -l "$U" -c 'cd /shared; exec bash /ctl/cmd' </dev/null >>/ctl/stdout 2>>/ctl/stderr; fi
rc=$?
if [ $rc = 194 ]; then umount /shared /ctl; systemctl reboot; exit; fi
date +%s.%N >/ctl/t_end
[ -z "${WANT_JOURNAL:-}" ] || journalctl -b --no-pager -o short-precise >/ctl/journal.txt 2>&1
echo $rc >/ctl/rc
umount /shared /ctl 2>/dev/null
systemctl poweroff -ff
E
  chmod 755 "$R/usr/local/bin/as" "$R/usr/local/sbin/vmagent"
}

build_root() { # -> $D/root.img, $D/debs/*.deb
  local D=$1 suite=$VM_SUITE base=${VM_SUITE%-backports} R=$1/root
  local src=("deb $MIRROR $base main" "deb $MIRROR $base-updates main" "deb $SECMIRROR $base-security main") opt=()
  [ "$suite" = "$base" ] || { src+=("deb $MIRROR $suite main"); opt=("--aptopt=APT::Default-Release \"$suite\""); }
  mkdir -p "$D/debs"
  # The kernel, and busybox for the initrd: fetched by the same apt, unpacked here, not installed anywhere.
  cat >"$D/fetch" <<'E'
set -e; cd "$1"; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
k=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
apt-get -qq -o APT::Sandbox::User=root download "$k" busybox-static
E
  $NICE mmdebstrap --quiet --mode=root --variant=essential --include="$PKGS" "${opt[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    --customize-hook="sh '$D/fetch' '$D/debs'" \
    "$base" "$R" "${src[@]}" >"$D/build.log" 2>&1 || { tail -20 "$D/build.log" >&2; die "mmdebstrap failed"; }
  guest_files "$R"
}

build_boot() { # kernel + tiny initrd (busybox and a dozen modules) + disk image
  local D=$1 R=$1/root K m i=10 n
  mkdir -p "$D/x" "$D/ird"/{bin,dev,proc,sys,newroot,m}
  for m in "$D"/debs/*.deb; do dpkg-deb -x "$m" "$D/x"; done
  cp "$D"/x/boot/vmlinuz-* "$D/vmlinuz"
  K=$(basename "$D"/x/boot/vmlinuz-*); K=${K#vmlinuz-}
  if [ -d "$D/x/usr/lib/modules/$K" ]; then mkdir -p "$D/x/lib/modules"; mv "$D/x/usr/lib/modules/$K" "$D/x/lib/modules/"; fi
  mkdir "$R/k"; cp -al "$D/x/lib" "$R/k/"
  chroot "$R" depmod -b /k "$K"
  for m in virtio_pci virtio_blk crc32c ext4 9pnet_virtio 9p overlay autofs4; do
    chroot "$R" modprobe -d /k -S "$K" --show-depends $m
  done | awk '$1=="insmod" && !s[$2]++{print $2}' >"$D/mods"
  while read -r m; do
    n=$D/ird/m/$i-$(basename "$m"); i=$((i+1)); cp "$R$m" "$n"
    case $n in *.xz) xz -d "$n";; *.zst) zstd -dq --rm "$n";; esac
  done <"$D/mods"
  rm -rf "$R/k"
  find "$D/x" -name busybox -path '*bin*' -type f -exec cp {} "$D/ird/bin/busybox" \;
  cat >"$D/ird/init" <<'E'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
for m in /m/*.ko; do $b insmod $m 2>/dev/null; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do $b usleep 10000; n=$((n+1)); done
$b mount -t ext4 -o rw,noatime /dev/vda /newroot || { echo "vm: no root"; $b poweroff -f; }
for d in dev proc sys; do $b mount --move /$d /newroot/$d; done
exec $b switch_root /newroot /lib/systemd/systemd
E
  chmod 755 "$D/ird/init"
  (cd "$D/ird" && find . | "$D/ird/bin/busybox" cpio -o -H newc 2>/dev/null) >"$D/initrd"
  truncate -s 3G "$D/root.img"
  mkfs.ext4 -q -F -O ^has_journal,^metadata_csum -E lazy_itable_init=1 -m 0 -d "$R" "$D/root.img"
  rm -rf "$R" "$D/x" "$D/ird" "$D/debs" "$D/fetch"
}

qemu_args() { # $1 = disk, $2 = drive options, $3 = run dir
  Q=(qemu-system-x86_64 -nodefaults -no-user-config -M pc,usb=off,vmport=off -accel tcg,thread=multi,tb-size=512
    -cpu max,la57=off -smp "$VM_SMP" -m "$VM_MEM" -display none
    -kernel "$IMG/vmlinuz" -initrd "$IMG/initrd"
    -append "console=ttyS0 root=/dev/vda rw quiet loglevel=4 mitigations=off panic=-1 random.trust_cpu=on tsc=reliable no_timer_check selinux=0 apparmor=0 audit=0 nowatchdog systemd.show_status=0"
    -drive "id=d0,if=none,file=$1,format=raw,cache=unsafe,$2" -device virtio-blk-pci,drive=d0
    -fsdev "local,id=ctl,path=$3/ctl,security_model=none" -device virtio-9p-pci,fsdev=ctl,mount_tag=ctl
    -fsdev "local,id=sh,path=$SHARED,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=sh,mount_tag=shared
    -chardev "file,id=s0,path=$3/console.log" -serial chardev:s0
    -chardev "pipe,id=s1,path=$3/s1" -serial chardev:s1)
}

snapshot() { # boot once, stop when the agent says '?', save RAM and disk: later runs start there
  local T line pid t0; T=$IMG/tmp-snap; [ -e "$S/state" ] && return
  rm -rf "$T"; mkdir -p "$T/ctl" "$T/empty"; mkfifo "$T/s1.in" "$T/s1.out" "$T/mon"
  say "booting once for the snapshot"; t0=$(now)
  cp --sparse=always "$IMG/root.img" "$T/disk.img"
  local SHARED=$T/empty; qemu_args "$T/disk.img" discard=unmap "$T"
  exec 7<>"$T/mon" 8<>"$T/s1.out"
  $NICE "${Q[@]}" -monitor stdio <&7 >"$T/mon.log" 2>&1 & pid=$!
  if ! read -r -t 300 line <&8; then kill $pid; die "no answer from the guest, see $T/console.log"; fi
  printf 'migrate_set_parameter max-bandwidth 8G\nmigrate "exec:cat >%s"\nquit\n' "$T/state" >&7
  wait $pid || die "snapshot failed, see $T/mon.log"
  exec 7>&- 8>&-
  [ -s "$T/state" ] || die "empty snapshot, see $T/mon.log"
  rm -f "$T"/s1.* "$T/mon"; mv "$T" "$S"
  say "snapshot: $(since "$t0") s, $(du -h "$S/state" | cut -f1)"
}

build() {
  # the image is keyed by everything that goes into it: the builder functions, suite, packages
  local t0 KEY; KEY=$VM_SUITE-$( { declare -f build_root build_boot guest_files; echo "$PKGS"; } | sha256sum | cut -c1-10)
  IMG=$VM_CACHE/$KEY; mkdir -p "$VM_CACHE"
  exec 9>"$VM_CACHE/.lock-$KEY"; flock 9
  need qemu-system-x86_64:qemu-system-x86
  if [ ! -e "$IMG/ok" ]; then
    [ "$(id -u)" = 0 ] || die "building needs root"
    need mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs xz:xz-utils zstd:zstd; t0=$(now)
    say "building $KEY"; rm -rf "$IMG"; mkdir -p "$IMG"
    build_root "$IMG"; build_boot "$IMG"; touch "$IMG/ok"
    say "image: $(since "$t0") s, $(du -sh "$IMG" | cut -f1)"
  fi
  # a snapshot belongs to one qemu and one machine
  S=$IMG/snap-$VM_MEM-$VM_SMP-$( { declare -f qemu_args; qemu-system-x86_64 --version; } | sha256sum | cut -c1-8)
  snapshot
  exec 9>&-
}

[ $# -ge 1 ] || { sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"; exit 125; }
if [ "$1" = --clean ]; then rm -rf "$VM_CACHE"; exit; fi
if [ "$1" = --build ]; then build; exit; fi
[ $# -ge 2 ] || die "usage: run-in-vm.sh SHARED_DIR COMMAND..."
SHARED=$(cd "$1" && pwd) || die "no such folder: $1"; shift
case $SHARED in *[,\ ]*) die "no comma or space in SHARED_DIR, please";; esac
[ "$VM_USER" = root ] || [ -n "$(find "$SHARED" -maxdepth 0 -perm -005)" ] || die "$SHARED must be readable for others (chmod o+rx)"
build

T0=$(now); RUN=$(mktemp -d "${TMPDIR:-/tmp}/run-in-vm.XXXXXX"); mkdir "$RUN/ctl"
VMPID= TAILS=()
finish() {
  [ -z "$VMPID" ] || { kill "$VMPID" 2>/dev/null; kill -CONT "$VMPID" 2>/dev/null; wait "$VMPID" 2>/dev/null; }
  [ ${#TAILS[@]} = 0 ] || kill "${TAILS[@]}" 2>/dev/null
  if [ -n "${VM_LOG:-}" ]; then mkdir -p "$VM_LOG"; cp "$RUN/console.log" "$RUN"/ctl/* "$VM_LOG/" 2>/dev/null; fi
  rm -rf "$RUN"
}
trap finish EXIT; trap 'exit 130' INT TERM HUP
if [ $# = 1 ]; then printf '%s\n' "$1"; else printf '%q ' "$@"; echo; fi >"$RUN/ctl/cmd"
printf 'U=%q\nWANT_JOURNAL=%q\n' "$VM_USER" "${VM_LOG:+1}" >"$RUN/ctl/env"
: >"$RUN/ctl/stdout"; : >"$RUN/ctl/stderr"; : >"$RUN/console.log"; : >"$RUN/ctl/sleep"; chmod 666 "$RUN/ctl/sleep"

mkfifo "$RUN/s1.in" "$RUN/s1.out"
qemu_args "$S/disk.img" snapshot=on "$RUN"
TMPDIR=$RUN $NICE "${Q[@]}" -incoming "exec:cat $S/state" -monitor none >"$RUN/qemu.log" 2>&1 & VMPID=$!
exec 8<>"$RUN/s1.out" 7<>"$RUN/s1.in"
ok=; for _ in $(seq 300); do
  if read -r -t 1 line <&8; then ok=1; break; fi
  kill -0 $VMPID 2>/dev/null || break
done
[ -n "$ok" ] || { cat "$RUN/qemu.log" "$RUN/console.log" >&2; die "the guest did not come up"; }
# (the serial FIFO is 16 bytes; qemu feeds it as the guest drains it)
go() { echo "GO $(now) $(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')" >&7; told=$SECONDS; }
go
tail -q -n +1 -s 0.1 --pid=$VMPID -f "$RUN/ctl/stdout" & TAILS+=($!)
tail -q -n +1 -s 0.1 --pid=$VMPID -f "$RUN/ctl/stderr" >&2 & TAILS+=($!)

end=$(( $(date +%s) + VM_TIMEOUT ))
while kill -0 $VMPID 2>/dev/null && [ ! -s "$RUN/ctl/rc" ]; do
  [ "$(date +%s)" -lt $end ] || { say "timeout after $VM_TIMEOUT s"; exit 124; }
  if read -r nap <"$RUN/ctl/sleep"; then kill -STOP $VMPID; sleep "$nap"; kill -CONT $VMPID; : >"$RUN/ctl/sleep"; fi
  # After a reboot the agent asks again. Within three seconds of an answer it is the old question.
  if read -r -t 0.1 line <&8 && [ $((SECONDS - told)) -gt 3 ]; then go; fi
done
for _ in $(seq 50); do kill -0 $VMPID 2>/dev/null || break; sleep 0.1; done
kill $VMPID 2>/dev/null; wait $VMPID; VMPID=
wait "${TAILS[@]}"; TAILS=()   # they end with the VM, having printed the rest
[ -s "$RUN/ctl/rc" ] || { cat "$RUN/console.log" >&2; die "the VM ended without a result"; }
say "test ran $(awk 'NR==FNR{a=$1;next}{printf "%.1f", $1-a}' "$RUN/ctl/t_start" "$RUN/ctl/t_end") s in the guest (clock there), ready after $(cat "$RUN/ctl/uptime_ready") s of guest time, all $(since "$T0") s"
exit "$(cat "$RUN/ctl/rc")"
