#!/usr/bin/env bash
# fetch.sh DIR SERIES...: Debian's newest cloud kernel of each series (6.1, 6.12, …),
# unpacked under DIR/SERIES. Names change with every security update, hence the
# look-up. Only apt, with lists and sources of its own: the system's stay as they are.
set -euo pipefail

mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
state=$dir/.apt
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keys ] || { echo "no $keys: install debian-archive-keyring" >&2; exit 1; }
# the mirror that this machine uses, where it is a Debian
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/$' || true)
mirror=${mirror:-${DEBIAN_MIRROR:-}}
[ -n "$mirror" ] || { echo "no Debian mirror in apt's sources: set DEBIAN_MIRROR" >&2; exit 1; }
mirror=${mirror%/}

suites() {
	case $1 in
	5.10) echo bullseye bullseye-security ;;
	6.1 | 6.12) echo bookworm bookworm-security ;; # 6.12 by its security updates
	*) echo trixie trixie-security trixie-backports ;;
	esac
}

mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts"
for series; do suites "$series" | tr ' ' '\n'; done | sort -u | while read -r suite; do
	case $suite in *-security) url=$mirror-security ;; *) url=$mirror ;; esac
	echo "deb [arch=amd64 signed-by=$keys] $url $suite main"
done >"$state/sources.list"
cat >"$state/apt.conf" <<CONF
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "$state/parts";
Dir::Etc::preferences "$state/none";
Dir::Etc::preferencesparts "$state/parts";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
export APT_CONFIG=$state/apt.conf
apt-get update -qq

for series; do
	image=$(apt-cache search --names-only "^linux-image-${series//./\\.}[.-].*-cloud-amd64\$" |
		cut -d' ' -f1 | grep -vE 'unsigned|dbg|-rt-' | sort -V | tail -1)
	[ -n "$image" ] || { echo "Debian has no cloud kernel $series" >&2; exit 1; }
	release=${image#linux-image-}
	to=$dir/$series
	if [ "$(cat "$to/release" 2>/dev/null)" = "$release" ]; then
		echo "$series: $release is here"
		continue
	fi
	packages=("$image")
	if apt-cache show "linux-binary-$release" >/dev/null 2>&1; then # split since 7.2
		packages=("linux-base-$release" "linux-binary-$release" "linux-modules-$release")
	fi
	rm -rf "$to" "$dir/.debs"
	mkdir -p "$to" "$dir/.debs"
	(cd "$dir/.debs" && apt-get download -qq "${packages[@]}")
	for deb in "$dir"/.debs/*.deb; do dpkg-deb -x "$deb" "$to"; done
	rm -rf "$dir/.debs"
	echo "$release" >"$to/release"
	echo "$series: $release fetched"
done
