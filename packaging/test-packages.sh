#!/bin/sh
# test-packages.sh FOLDER: installs, upgrades, removes and purges the .deb in it
# (1.0.0, then 1.0.1) in a fresh Debian 12 root, and looks at what is left; then
# .deb and .rpm with systemd running there, under traffic. rpm's own program runs
# the .rpm, on Debian's userland (root; mmdebstrap, systemd-nspawn).
set -eu
packages=$(realpath "$1")
old=$(ls "$packages"/synward_1.0.0_*.deb) new=$(ls "$packages"/synward_1.0.1_*.deb)
root=$(mktemp -d /var/tmp/synward-deb.XXXXXX)
trap 'rm -rf "$root"' EXIT
mmdebstrap --quiet --variant=minbase --include=systemd,dbus,procps,iproute2,openssl,rpm bookworm "$root"
cp "$old" "$root/tmp/old.deb"
cp "$new" "$root/tmp/new.deb"
run() { unshare -mpf --mount-proc="$root/proc" chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
fail() { echo "$*"; exit 1; }

run dpkg -i /tmp/old.deb
run synward config check
[ "$(run synward --version)" = "synward version 1.0.0" ] || fail "1.0.0 says that it is $(run synward --version)"
[ "$(run stat -c '%U %a' /var/spool/synward)" = "synward-relay 700" ] || fail "the spool is not the relay's"
[ "$(run stat -c '%U %a' /var/lib/synward)" = "root 700" ] || fail "the state is not root's"
run getent group synward
run systemd-analyze verify --man=no synward.service

echo '# mine' >> "$root/etc/synward/synward.toml"
touch "$root/var/lib/synward/store.db"
run dpkg -i /tmp/new.deb
[ "$(run synward --version)" = "synward version 1.0.1" ] || fail "1.0.1 says that it is $(run synward --version)"
grep -q '# mine' "$root/etc/synward/synward.toml" || fail "the upgrade has overwritten the configuration"

run dpkg -r synward
[ -e "$root/etc/synward/synward.toml" ] && [ -e "$root/var/lib/synward/store.db" ] || fail "removing took configuration or state"
run dpkg -P synward
for left in /etc/synward /var/lib/synward /var/spool/synward /usr/bin/synward; do
	[ ! -e "$root$left" ] || fail "purging has left $left"
done
echo "install, upgrade, remove and purge did what they should"

build/upgrade -root "$root" -old "$old" -new "$new"
build/upgrade -root "$root" -old "$(ls "$packages"/synward-1.0.0-*.rpm)" -new "$(ls "$packages"/synward-1.0.1-*.rpm)"
