// Package metadatapb holds the messages of the metadata log, generated from millrace/metadata/v1/metadata.proto by
// `make generate`. It never holds logic: broker/metadata folds facts into images, broker/controller makes them.
package metadatapb
