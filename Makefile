# synward: `make help` lists what there is to do.
GO    ?= go
# Loading the filter and making network namespaces takes root; building does not.
SUDO  := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BUILD := build
RACE  ?= -race
TESTS ?= ./...
KERNELS ?= 6.1 6.12

.DEFAULT_GOAL := help
.PHONY: help build demo test test-kernels bench bench-policy bench-relay fuzz generate package package-test vagrant-test lint clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build/synward and build/synward-relay
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./cmd/...

demo: build ## the whole story on three hosts made of namespaces (root; HOLD=1 keeps them up)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/demo ./test/demo
	$(SUDO) $(BUILD)/demo $(if $(HOLD),-hold)

test: ## every test, with the race detector (root; installs the tools that they run)
	test/tools.sh
	$(GO) test $(RACE) $(if $(SUDO),-exec "$(SUDO) -E") -timeout 15m $(TESTS)

bench: ## the filter beside nftables and iptables, under a flood (root; ARGS="-quick", "-write" for docs/)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./test/bench
	$(SUDO) test/bench/run.sh $(ARGS)

bench-policy: build ## the agent with up to a million prefixes: times and memory (root; ARGS="-sizes 100000", "-write" for docs/)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./test/benchpolicy
	$(SUDO) $(BUILD)/benchpolicy $(ARGS)

bench-relay: ## the relay beside Postfix and OpenSMTPD: rates, CPU, latency, memory (root; ARGS="-rounds 1")
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./cmd/synward-relay ./test/benchrelay
	$(SUDO) test/benchrelay/run.sh $(ARGS)

test-kernels: ## the loader's tests on other kernels, in QEMU (root; KERNELS="6.1 6.12 6.18 7.3")
	@command -v qemu-system-x86_64 >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends qemu-system-x86
	$(SUDO) test/kernels/fetch.sh $(BUILD)/kernels $(KERNELS)
	CGO_ENABLED=0 GOARCH=amd64 $(GO) build -trimpath -o $(BUILD)/kernels-bin/ ./test/kernels ./test/kernels/guest
	CGO_ENABLED=0 GOARCH=amd64 $(GO) test -trimpath -c -o $(BUILD)/kernels-bin/loader.test ./loader
	CGO_ENABLED=0 GOARCH=amd64 $(GO) test -trimpath -c -o $(BUILD)/kernels-bin/nic.test ./test/kernels/nic
	CGO_ENABLED=0 GOARCH=amd64 $(GO) test -trimpath -c -o $(BUILD)/kernels-bin/interfaces.test ./test/interfaces
	$(SUDO) $(BUILD)/kernels-bin/kernels -kernels $(BUILD)/kernels -bin $(BUILD)/kernels-bin $(ARGS) $(KERNELS)

fuzz: ## a long run of the datapath against its models: FUZZ_ROUNDS policies, 2,000 frames each by XDP, 1,950 by TCX
	$(GO) test $(if $(SUDO),-exec "$(SUDO) -E") ./loader -run Differential -count 1 -timeout 6h -v -args -rounds $(or $(FUZZ_ROUNDS),5000)
	$(GO) test $(if $(SUDO),-exec "$(SUDO) -E") ./test/differential -count 1 -timeout 6h -v -args -rounds $(or $(FUZZ_ROUNDS),5000)
	$(GO) test $(if $(SUDO),-exec "$(SUDO) -E") ./loader -run '^$$' -fuzz FuzzFrame -fuzztime 10m

generate: ## the BPF object and its Go side anew (clang-19, libbpf-dev)
	$(GO) generate ./loader ./test/bench
	clang-format-19 -i bpf/*.h bpf/*.c test/bench/*.c

package: ## build/packages/*.deb and *.rpm for amd64 and arm64 (ARCH=amd64 for one)
	GO="$(GO)" packaging/build.sh $(ARCH)

package-test: ## installs .deb and .rpm, upgrades them under traffic, purges them (root; mmdebstrap, systemd-nspawn)
	@command -v mmdebstrap >/dev/null && command -v systemd-nspawn >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends mmdebstrap systemd-container
	for v in 1.0.0 1.0.1; do GO="$(GO)" VERSION=$$v OUT=$(BUILD)/package/test packaging/build.sh $$($(GO) env GOARCH) || exit 1; done
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./test/upgrade
	$(SUDO) packaging/test-packages.sh $(BUILD)/package/test

vagrant-test: ## the demo's story across the machines of the Vagrantfile (make package, vagrant)
	vagrant up
	packaging/vagrant/story.sh

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

clean: ## remove build/
	rm -rf $(BUILD)
