#!/usr/bin/env bash
# Installs Postfix where it is missing, without letting it start or configure
# itself, unpacks OpenSMTPD, which cannot be installed beside it, into build/, and
# runs the benchmark. Arguments go to benchrelay.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for pkg in postfix sasl2-bin libsasl2-modules libevent-2.1-7 libdb5.3; do
	dpkg -s "$pkg" >/dev/null 2>&1 || missing+=("$pkg")
done
if [ ${#missing[@]} -gt 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	# "No configuration": no main.cf is written, so the system's Postfix cannot start.
	echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
	apt-get update -qq
	RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if [ ! -x build/opensmtpd/usr/sbin/smtpd ]; then
	mkdir -p build/opensmtpd
	(cd build/opensmtpd && { apt-get download -qq opensmtpd || { apt-get update -qq && apt-get download -qq opensmtpd; }; })
	dpkg -x build/opensmtpd/opensmtpd_*.deb build/opensmtpd
fi
exec build/benchrelay -json build/bench-relay.json -svg build/bench-relay.svg "$@"
