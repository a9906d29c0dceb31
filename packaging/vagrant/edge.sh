#!/bin/sh
# edge.sh ADDRESS: synward from the .deb beside it, the filter on the NIC that
# has the address, the relay running, the client's address allowed. Offline,
# and may run again.
set -eu
nic=$(ip -o -4 addr show | awk -v a="$1/" 'index($4, a) == 1 {print $2}')
[ -n "$nic" ] || { echo "no interface has $1"; exit 1; }
arch=$(dpkg --print-architecture)
deb=$(ls -t /synward/packages/*_"$arch".deb | head -1) # the newest

mkdir -p /etc/synward
cat > /etc/synward/synward.toml <<CONF
[filter]
interfaces = ["$nic"]
mode       = "enforce"

[metrics]
listen = "/run/synward/metrics.sock"

[relay]
enabled  = true
hostname = "edge.example"
listen   = [{ port = 587, tls = "starttls" }, { port = 465, tls = "implicit" }, { port = 25, tls = "starttls" }]
CONF
DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i "$deb"
systemctl restart synward
synward allow add 192.168.56.20 --note "the client"
synward user list --json | grep -q '"alice"' || echo "demo-only-password" | synward user add alice --senders example.net
synward status
