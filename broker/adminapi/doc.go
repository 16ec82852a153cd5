// Package adminapi holds the types of the admin API, generated from millrace/admin/v1/admin.proto: protobuf messages and,
// in adminapiconnect, the Connect clients and handlers. `make generate` makes them again with pinned generators. It never
// holds logic: broker/admin serves these services, sdk and raftctl call them.
package adminapi
