#!/usr/bin/env bash
# Installs what the tests run beside synward: a resolver, mail clients, Postfix.
# test/tools.sh [PACKAGE…]; more packages may be named. Debian and Ubuntu; by
# sudo where need be. Where all is there, nothing happens.
set -euo pipefail
missing=()
for pkg in iproute2 nftables util-linux unbound zsh fish swaks libnet-ssleay-perl curl msmtp python3 postfix libsasl2-modules "$@"; do
	dpkg -s "$pkg" >/dev/null 2>&1 || missing+=("$pkg")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing ${missing[*]}"
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
# RUNLEVEL=1: no service of these is started.
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends "${missing[@]}"
