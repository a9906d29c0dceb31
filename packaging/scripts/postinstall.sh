#!/bin/sh
# Called as `postinst configure [OLD]` by dpkg, and with a count by rpm.
set -e
case "$1" in abort-*) exit 0 ;; esac

# Where systemd is not there (a chroot, an image) the tools may be missing too.
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers /usr/lib/sysusers.d/synward.conf
else
	getent group synward >/dev/null || groupadd --system synward
	getent passwd synward-relay >/dev/null || useradd --system --user-group --no-create-home \
		--home-dir /var/spool/synward --shell /usr/sbin/nologin synward-relay
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create /usr/lib/tmpfiles.d/synward.conf
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if [ -n "$2" ] || [ "$1" = 2 ]; then
		# An upgrade. The filter in the kernel enforces all the while.
		systemctl try-restart synward.service || true
	else
		# Harmless: the configuration that comes with the package only observes.
		systemctl enable --now synward.service || echo "synward did not start: journalctl -u synward says why" >&2
	fi
elif command -v systemctl >/dev/null && [ -z "$2" ] && [ "$1" != 2 ]; then
	systemctl enable synward.service >/dev/null 2>&1 || true
fi
