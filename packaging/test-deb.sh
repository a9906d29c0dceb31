#!/bin/sh
# test-deb.sh FILE.deb: installs, upgrades, removes and purges the package in a
# fresh Debian 12 root, and looks at what is left (root; mmdebstrap).
set -eu
deb=$(realpath "$1")
root=$(mktemp -d /var/tmp/synward-deb.XXXXXX)
trap 'rm -rf "$root"' EXIT
mmdebstrap --quiet --variant=minbase --include=systemd,procps bookworm "$root"
cp "$deb" "$root/tmp/synward.deb"
run() { unshare -mpf --mount-proc="$root/proc" chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
fail() { echo "$*"; exit 1; }

run dpkg -i /tmp/synward.deb
run synward config check
[ "$(run stat -c '%U %a' /var/spool/synward)" = "synward-relay 700" ] || fail "the spool is not the relay's"
[ "$(run stat -c '%U %a' /var/lib/synward)" = "root 700" ] || fail "the state is not root's"
run getent group synward
run systemd-analyze verify --man=no synward.service

echo '# mine' >> "$root/etc/synward/synward.toml"
touch "$root/var/lib/synward/store.db"
run dpkg -i /tmp/synward.deb
grep -q '# mine' "$root/etc/synward/synward.toml" || fail "the upgrade has overwritten the configuration"

run dpkg -r synward
[ -e "$root/etc/synward/synward.toml" ] && [ -e "$root/var/lib/synward/store.db" ] || fail "removing took configuration or state"
run dpkg -P synward
for left in /etc/synward /var/lib/synward /var/spool/synward /usr/bin/synward; do
	[ ! -e "$root$left" ] || fail "purging has left $left"
done
echo "install, upgrade, remove and purge did what they should"
