#!/usr/bin/env bash
# Installs the filters that synward is measured beside, where they are missing,
# and runs the benchmark. Arguments go to it.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for pkg in nftables iptables ipset iproute2 util-linux; do
	dpkg -s "$pkg" >/dev/null 2>&1 || missing+=("$pkg")
done
if [ ${#missing[@]} -gt 0 ]; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
exec build/bench -json build/bench.json -svg build/bench.svg "$@"
