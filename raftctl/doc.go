// Package raftctl is the operator's tool as a library: the command tree, its output and its exit codes. Command
// cmd/raftctl only calls Main.
//
// Every command that reads prints a table, or with -o json, yaml or ndjson the message of the admin API with a stable
// schema. A command that destroys says what it would do and ends with exit code 5 unless --yes is given. Exit codes: 0
// done, 1 error, 2 usage, 3 not found, 4 unhealthy or unreachable, 5 refused.
//
// It talks to brokers through package sdk alone. It runs plugins (`plugin test`, `plugin run`) in the broker's own engine,
// without a cluster, and starts local clusters (`dev`) as processes of the millrace program.
package raftctl
