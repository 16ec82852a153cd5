# Every command here is also what the checks run. `make generate`, `make lint` and `make builtins` install the tools that
# they need, pinned, below bin/tools.
BIN := $(CURDIR)/bin
BUF := github.com/bufbuild/buf/cmd/buf@v1.59.0
GEN := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
KILLS ?= 50
SEEDS ?= 10000
FROM ?= 1
BUBBLES ?= 200

.PHONY: build test race lint generate builtins builtins-check chaos kills crashes compat bench sim bubble mutants

build:
	go build -o $(BIN)/ ./cmd/...

test:
	go test ./...

# The packages with goroutines; the cores have none.
race:
	go test -race -short -shuffle=on ./internal/... ./broker/commitlog ./broker/replica ./broker/quorum ./broker/coordinator \
		./broker/delivery ./broker/kafka ./broker/node ./plugins/engine ./sdk/...

lint: $(BIN)/tools/staticcheck
	$(BIN)/tools/staticcheck ./...

$(BIN)/tools/staticcheck:
	GOBIN=$(BIN)/tools go install $(STATICCHECK)

# generate makes the protobuf and Connect code again; the checks compare it with what is checked in.
generate: $(BIN)/tools/buf
	cd broker/adminapi && PATH=$(BIN)/tools:$$PATH buf generate
	cd broker/metadata && PATH=$(BIN)/tools:$$PATH buf generate

$(BIN)/tools/buf:
	for tool in $(BUF) $(GEN); do GOBIN=$(BIN)/tools go install $$tool || exit 1; done

# builtins compiles the C sources of the built-in plugins; builtins-check compares the result with what is checked in.
builtins:
	sh plugins/builtin/build.sh

builtins-check:
	sh plugins/builtin/build.sh check

# kills runs real brokers under load, kills them at random moments, and compares with the delivery oracle; then again with
# a log so short that retention overtakes a group that lags.
chaos:
	go run ./internal/chaos -cluster -fault $(or $(FAULT),all) -for $(or $(FOR),60s) $(if $(SEED),-seed $(SEED))

kills:
	go run ./internal/chaos -kills $(KILLS)
	go run ./internal/chaos -kills $(KILLS) -retention

# crashes loses power at every file operation of recorded runs, of logs, of the metadata and of a whole node, again during
# recovery, and lets disks fail, fill up and rot at every place; the tests take samples of the same.
crashes:
	MILLRACE_CRASHES=all go test -v -count=1 -timeout 90m -run 'PowerLoss|Compaction|Damage|DisksThatLie|DiskThatFails|FullDisk' \
		./broker/commitlog ./broker/quorum ./broker/replica ./broker/node

# sim plays whole clusters in virtual time, a seed each; mutants does so with one rule broken at a time.
sim:
	go run ./internal/sim/play -from $(FROM) -seeds $(SEEDS)

# bubble runs whole nodes, with QUIC and Kafka clients, in virtual time over a simulated network and crashing disks, a seed each.
bubble:
	MILLRACE_SEED=$(FROM)+$(BUBBLES) go test -tags synctests -v -count=1 -timeout 0 -run TestClustersKeepTheirPromises ./internal/sim/bubble

mutants:
	go run ./internal/sim/play -mutants -seeds 1000

# compat runs other people's clients, installed from their registries, against a real broker.
compat:
	go run ./internal/compat

bench:
	go run ./internal/bench
