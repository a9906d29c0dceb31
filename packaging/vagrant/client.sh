#!/bin/sh
# client.sh ADDRESS STRANGER: the second address beside the first, on the same
# interface, as another source.
set -eu
nic=$(ip -o -4 addr show | awk -v a="$1/" 'index($4, a) == 1 {print $2}')
[ -n "$nic" ] || { echo "no interface has $1"; exit 1; }
ip addr replace "$2/24" dev "$nic"
