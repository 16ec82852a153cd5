# Every command here is also what the checks run; `make generate` needs only Go.
BIN := $(CURDIR)/bin
BUF := github.com/bufbuild/buf/cmd/buf@v1.59.0
GEN := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1

.PHONY: build test generate tools

build:
	go build -o $(BIN)/ ./cmd/...

test:
	go test ./...

tools:
	@mkdir -p $(BIN)/tools
	@for tool in $(BUF) $(GEN); do GOBIN=$(BIN)/tools go install $$tool || exit 1; done

# generate makes the protobuf and Connect code again; the checks compare it with what is checked in.
generate: tools
	cd broker/adminapi && PATH=$(BIN)/tools:$$PATH buf generate
	cd broker/metadata && PATH=$(BIN)/tools:$$PATH buf generate
