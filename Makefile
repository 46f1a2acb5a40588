# Everything a contributor types. `make help` lists the targets.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

# ONCE=1 prints the demo's story and ends; without it the demo goes on serving.
ONCE ?=
demo_flags := $(if $(filter-out 0 false no,$(ONCE)),--once)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/keytrail, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/keytrail ./cmd/keytrail

.PHONY: demo
demo: ## Tell the whole story on an embedded store and a simulated Keycloak (ONCE=1: print it and end)
	@echo 'compiling … (the first time takes minutes)'
	@$(MAKE) --no-print-directory --silent build
	@bin/keytrail demo $(demo_flags)

.PHONY: test
test: ## Everything that guards a change: format, vet, lint, race tests, both stores, a real Keycloak
	@scripts/test.sh

.PHONY: lint
lint: ## go vet and golangci-lint (PKG=./folder/... narrows it)
	@scripts/lint.sh $(PKG)

.PHONY: fmt
fmt: ## Format every Go file
	@scripts/lint.sh --fix-format

.PHONY: keycloak
keycloak: ## Start a real Keycloak in the foreground and write keycloak.env for `keytrail serve`
	@scripts/prereq.sh keycloak
	@$(GO) build -o bin/keycloak ./internal/kcserver/cmd && exec bin/keycloak

.PHONY: clean
clean: ## Remove what was built here (downloads stay in the user's cache folder)
	rm -rf bin dist coverage.out
