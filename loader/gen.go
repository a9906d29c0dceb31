package loader

// The generated files are committed, so that a clone builds without clang.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type state -type port -type config -type rule -type entry -type hit -type row -type counter -type event -type probe -type source -type usage -type page -type chunk -type chunk6 -type index -type flow -type reason -type decision -type prefix4 -type prefix6 filter ../bpf/filter.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -D__TARGET_ARCH_x86 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types tcx ../bpf/tcx.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -D__TARGET_ARCH_x86 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
