# Everything that one does with this repository. `make` lists it.

SHELL := bash
.DEFAULT_GOAL := help

# Tests that start kkv, a broker, npm or a browser; all other packages are fast and need nothing but Go.
slow := /test/(apachekafka|browser|docs|e2e|jsclient|kafkaproof|kube|mutations|nodejs)$$
fast_packages = $$(go list ./... | grep -vE '$(slow)')

# The linter is built once for each version of it and of Go.
linter := .cache/bin/golangci-lint-$(shell cat tools/golangci/go.sum <(go version) | cksum | cut -d' ' -f1)

# Further flags for go test: make unit ARGS='-run TestX -v'
ARGS ?=

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## Every check there is, with all that this machine has (what CI runs); 10 to 15 minutes
	@test/all

.PHONY: unit
unit: ## The fast tests: seconds
	go test $(ARGS) $(fast_packages)

.PHONY: race
race: ## The fast tests, and kkv from outside on its embedded broker, with the race detector
	go test -race $(ARGS) $(fast_packages)
	KKV_TEST_RACE=1 go test -count=1 -timeout 8m -skip ApacheKafka $(ARGS) ./test/e2e

.PHONY: e2e
e2e: ## kkv as a process, on its embedded broker; the commands and links of the pages
	go test -count=1 -timeout 8m -skip ApacheKafka $(ARGS) ./test/e2e
	go test -count=1 -timeout 5m $(ARGS) ./test/docs

.PHONY: e2e-kafka
e2e-kafka: ## kkv as a process, on Apache Kafka (Java and Maven)
	go test -count=1 -timeout 12m $(ARGS) ./test/apachekafka
	go test -count=1 -timeout 12m -run ApacheKafka $(ARGS) ./test/e2e
	go test -count=1 -timeout 12m $(ARGS) ./test/kafkaproof

.PHONY: nodejs
nodejs: ## The JavaScript client, and the example on the original's npm client (Node.js and npm)
	go test -count=1 -timeout 5m $(ARGS) ./test/jsclient
	go test -count=1 -timeout 8m $(ARGS) ./test/nodejs

.PHONY: browser
browser: ## The demo page in headless Chromium
	go test -count=1 -timeout 5m $(ARGS) ./test/browser

.PHONY: kube
kube: ## Image and manifests, on a real Kubernetes API server (root); builds it the first time (3 minutes)
	test/kube/get >/dev/null
	go test -count=1 -timeout 5m $(ARGS) ./test/kube

.PHONY: picture
picture: ## Take README's picture of the page anew (Chromium)
	KKV_TEST_PICTURE=$(CURDIR)/docs/pictures/dev.png go test -count=1 -run TestDevPicture ./test/browser

.PHONY: seeds
seeds: ## 200 runs of random traffic through random faults, in virtual time; the bugs of test/mutations, each of which must be found
	go test -count=1 -timeout 10m ./test/robustness -seeds 200 $(ARGS)
	go test -count=1 -timeout 10m $(ARGS) ./test/mutations

.PHONY: robustness
robustness: ## Such runs until one fails, or until stopped
	go test -count=1 -timeout 0 ./test/robustness -seeds 0 $(ARGS)

.PHONY: lint
lint: $(linter) ## golangci-lint, pinned in tools/golangci; builds it the first time (2 to 3 minutes)
	$(linter) run
	go mod tidy -diff

$(linter):
	cd tools/golangci && go build -ldflags='-s -w' -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: bench
bench: ## kkv beside its rivals (Linux, Java, Maven; Redis and wrk if there): about a quarter of an hour
	@bench/run $(ARGS)

.PHONY: fmt
fmt: ## Format all Go code
	gofmt -w -s $$(go list -f '{{.Dir}}' ./...)

.PHONY: build
build: ## bin/kkv, one static file
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/kkv ./cmd/kkv

.PHONY: run
run: ## kkv dev: broker, gateway, cache and demo page on loopback
	go run ./cmd/kkv dev $(ARGS)

.PHONY: clean
clean: ## Remove what the targets above have fetched and built
	rm -rf .cache bin examples/nodejs/node_modules clients/js/node_modules
