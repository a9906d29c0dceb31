// Package version says which version the two programs are of.
package version

import "runtime/debug"

// release is the package's version. Only the linker sets it (packaging/build.sh),
// for what is packed may come from a tree without git.
var release string

// String is the package's version, else the module's or the commit's that this
// was built from, else "(devel)".
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
