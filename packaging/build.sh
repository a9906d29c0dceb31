#!/bin/sh
# build.sh [ARCH…]: build/packages/*.deb and *.rpm for amd64 and arm64. Needs
# Go alone: nfpm is pinned in packaging/nfpm.mod. VERSION and OUT (the folder) may be
# set.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
out=${OUT:-build/packages}
work=build/package
mkdir -p "$out" "$work/man"

# Where both are given no git is needed.
commit=
[ -n "${VERSION:-}" ] || commit=$(git rev-parse --short=12 HEAD)
stamp=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# Without a tag it is a version before the first one, by time and commit.
version=${VERSION:-$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/' || true)}
version=${version:-0.0.0~$(date -u -d "@$stamp" +%Y%m%d%H%M%S).$commit}
PKG_VERSION=$version PKG_MAN=$work/man
# nfpm takes the time of every file from it: the same commit, the same package.
SOURCE_DATE_EPOCH=$stamp
export PKG_VERSION PKG_MAN SOURCE_DATE_EPOCH

CGO_ENABLED=0 GOFLAGS= $GO build -modfile=packaging/nfpm.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
# With VERSION the tree need not be git's: hence not by Go's own stamp.
says="-X github.com/synward/synward/cmd/version.release=$version"
CGO_ENABLED=0 $GO build -trimpath -ldflags "$says" -o "$work/host/" ./cmd/synward
[ "$("$work/host/synward" --version)" = "synward version $version" ] || { echo "the program does not say that it is $version"; exit 1; }
rm -f "$work"/man/*
"$work/host/synward" man "$work/man"
gzip -9nf "$work"/man/*.8

for arch in ${*:-amd64 arm64}; do
	PKG_ARCH=$arch PKG_BUILD=$work/$arch
	export PKG_ARCH PKG_BUILD
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch $GO build -trimpath -ldflags "-s -w $says" -o "$PKG_BUILD/" ./cmd/...
	for kind in deb rpm; do
		"$work/nfpm" package --config packaging/nfpm.yaml --packager $kind --target "$out/"
	done
done
