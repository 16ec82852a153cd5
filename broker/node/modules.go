package node

import "github.com/millrace-io/millrace/broker/metadata"

// referenced lists the modules that some plugin version is made of.
func referenced(image *metadata.Image) []metadata.Digest {
	var digests []metadata.Digest
	for _, v := range image.Plugins() {
		digests = append(digests, v.Given, v.Metered)
	}
	return digests
}
