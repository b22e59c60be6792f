# Holdfast: build, check, try and measure. `make help` lists the targets.

GO ?= go
BIN := bin/holdfast
# The rooms' own tests; ./test holds what needs the built binary.
ROOMS = $(shell $(GO) list ./... | grep -v /test)
# Tests that are shorter with the race detector, and run whole without it, and where they are.
WHOLE := IsKilled|StopAtEveryReady|KilledAnywhere|AcrossTheSize|RandomEvents$$|RandomEdits|PowerCut|AgainstMap|LoseAnyM$$|Crowds
WHOLE_ROOMS := ./blockcache ./erasure ./exchange ./uploader ./uploader/dataset ./uploader/provider
SOURCES := $(shell find cmd fs blockcache exchange uploader erasure -name '*.go' 2>/dev/null) go.mod go.sum

.PHONY: help build test check unit e2e long demo bench fuzz tools tools-demo clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: $(BIN) ## build bin/holdfast (static, without cgo)

$(BIN): $(SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/holdfast

test: tools check unit e2e ## formatting, vet, staticcheck, layering, unit tests with the race detector, end-to-end tests

check:
	@bad=$$(gofmt -l $$(find . -name '*.go' -not -name '*.pb.go')); if [ -n "$$bad" ]; then echo "not gofmt'ed:" $$bad; exit 1; fi
	$(GO) vet -tags long ./...
	$(GO) tool staticcheck -tags long ./...

unit:
	CGO_ENABLED=1 $(GO) test -race -timeout 6m $(ROOMS)
	$(GO) test -timeout 4m -run '$(WHOLE)' $(WHOLE_ROOMS)

e2e: build
	$(GO) test -parallel 3 -timeout 8m ./test/... # they wait more than they compute

long: tools build ## the same at full size: 1 GiB files, a million entries, thousands of seeds (about an hour)
	CGO_ENABLED=1 $(GO) test -tags long -timeout 40m $(ROOMS)
	$(GO) test -tags long -timeout 40m -v ./test/...

demo: tools-demo build ## a whole network on this machine, to watch
	$(BIN) demo

bench: tools build ## throughput and latency as ratios against the native file system and a raw stream
	$(GO) run ./test/bench

fuzz: ## every fuzz target for FUZZTIME (default 30s) each
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz'); do \
			echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $${FUZZTIME:-30s} -fuzzminimizetime 10x $$p || exit 1; \
		done; \
	done

tools:
	@.ci/tools fusermount3=fuse3 rsync=rsync getfattr=attr sqlite3=sqlite3 vim=vim git=git gcc=gcc fio=fio

tools-demo:
	@.ci/tools fusermount3=fuse3 rsync=rsync diff=diffutils

clean: ## remove what was built
	rm -rf bin
