#!/bin/sh
# Called as `prerm remove|upgrade` by dpkg, and with a count by rpm (0 = the
# last copy goes). An upgrade leaves the agent running: the new package
# restarts it.
set -e
case "$1" in
remove | deconfigure | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now synward.service || true
fi
# A filter that nobody could change any more must not stay behind.
/usr/bin/synward unload || true
