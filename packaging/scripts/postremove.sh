#!/bin/sh
# Called as `postrm remove|purge|upgrade…` by dpkg, and with a count by rpm.
set -e
if [ "$1" = purge ]; then
	# The queue too: what it still holds is lost, as purge promises.
	rm -rf /var/lib/synward /var/spool/synward /run/synward
	rm -f /etc/systemd/system/multi-user.target.wants/synward.service
	rmdir /etc/synward 2>/dev/null || true
fi
case "$1" in
remove | purge | 0)
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
	fi
	;;
esac
