#!/bin/sh
# story.sh: the demo's story across the two machines that `vagrant up` made.
# Ends with 0 only if every step did what it should.
set -eu
edge() { vagrant ssh edge -c "$1" -- -q; }
client() { vagrant ssh client -c "$1" -- -q; }
step() { printf '\n== %s\n' "$*"; }
# knock ADDRESS: the greeting, or nothing.
knock() { client "python3 -c \"
import socket
s = socket.create_connection(('192.168.56.10', 587), 4, ('$1', 0))
print(s.makefile().readline().strip())\" 2>&1 | tail -1"; }

client 'command -v python3 >/dev/null' || { echo "the box has no python3, which the client speaks SMTP with: install it into the box"; exit 1; }

step "edge works at once"
edge 'sudo synward status'
edge 'systemctl show synward -p ActiveState,SubState,NRestarts'
edge 'sudo synward status' | grep -q 'enforcing'

step "an allowed address submits a mail"
knock 192.168.56.20 | grep '^220 '
client "python3 -c \"
import smtplib, ssl
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
s = smtplib.SMTP('192.168.56.10', 587, timeout=30, source_address=('192.168.56.20', 0))
s.starttls(context=c); s.login('alice', 'demo-only-password')
s.sendmail('alice@example.net', ['bob@example.org'], 'Subject: hello\r\n\r\nhello\r\n')
print('accepted')\"" | grep accepted
edge 'sudo synward queue list' | grep bob@example.org

step "a stranger meets silence"
knock 192.168.56.66 | grep -i 'timed out'
edge 'sudo synward explain 192.168.56.66 --port 587' | grep 'drop (no-entry)'

step "the agent is killed with -9: nothing changes"
relay=$(edge "pgrep -x synward-relay" | tr -d '\r')
# systemd would have the next agent up before anybody has knocked. It is held
# back for as long as that takes.
hold=/run/systemd/system/synward.service.d/hold.conf
edge "sudo mkdir -p ${hold%/*} && printf '[Service]\nRestartSec=1h\n' | sudo tee $hold >/dev/null && sudo systemctl daemon-reload"
edge 'sudo systemctl kill -s KILL --kill-who=main synward'
knock 192.168.56.66 | grep -i 'timed out'
knock 192.168.56.20 | grep '^220 '
edge 'sudo synward status 2>&1' | grep 'agent  *down' # nobody was there meanwhile

step "and systemd starts it again"
edge "sudo rm $hold && sudo systemctl daemon-reload" # its RestartSec counts again, from the kill
edge 'for i in $(seq 60); do sudo synward status 2>/dev/null | grep -q "agent *running" && exit 0; sleep 1; done; exit 1'
[ "$(edge "pgrep -x synward-relay" | tr -d '\r')" = "$relay" ] || { echo "the relay did not outlive the agent"; exit 1; }

step "all steps did what they should"
