package kafka

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The keys of transactions. They enter the matrix with transactions: a client that finds them listed begins one.
var transactionKeys = []int16{24, 25, 26, 27, 28, 65, 66}

func TestT5TransactionsAreNotListedAndTheirRequestsEndTheConnection(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	versions := kmsg.NewPtrApiVersionsRequest()
	versions.Version, versions.ClientSoftwareName, versions.ClientSoftwareVersion = 4, "test", "1"
	listed := ask[*kmsg.ApiVersionsResponse](dialRaw(t, address), versions)
	for _, feature := range listed.SupportedFeatures {
		if feature.Name == "transaction.version" {
			t.Errorf("feature %s is listed", feature.Name)
		}
	}
	for _, key := range transactionKeys {
		if slices.ContainsFunc(listed.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == key }) {
			t.Errorf("api %d is listed", key)
		}
		c := dialRaw(t, address)
		c.send(filled(key, 0))
		c.closed()
	}
}

func TestATransactionalClientFailsAtOnce(t *testing.T) {
	f := newFace(t, nil)
	client := f.client(f.serveTCP(), kgo.TransactionalID("tx"))
	if err := client.BeginTransaction(); !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		t.Errorf("a transaction begins with %v", err)
	}
}
