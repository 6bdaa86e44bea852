package records_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"reflect"
	"runtime"
	"testing"

	"github.com/certwright/certwright/internal/records"
)

// TestBundleIsSmall counts what a bundle takes in memory beside its leaf's DER.
func TestBundleIsSmall(t *testing.T) {
	if size := reflect.TypeFor[records.Bundle]().Size(); size > 120 {
		t.Errorf("a Bundle has %d bytes, more than 120", size)
	}
	const n = 1000
	s := newFakeStorage()
	ca := newFakeCA(t)
	made := records.New(s, records.Options{})
	names := make([][]string, n)
	ids := make([]string, n)
	der := 0
	for i := range n {
		names[i] = []string{fmt.Sprintf("host-%04d.example", i)}
		b := ca.bundle(made, names[i], func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: bytes.Repeat([]byte{5}, 500)}}
		})
		store(t, made, b)
		leaf, err := b.Leaf()
		check(t, err)
		der += len(leaf.Raw)
		ids[i] = b.ID()
		_, err = made.LoadBundle(context.Background(), ids[i], now) // the storage counts in memory
		check(t, err)
	}
	r := records.New(s, records.Options{})
	loaded := make([]*records.Bundle, n)
	before := heap()
	for i, id := range ids {
		got, err := r.LoadBundle(context.Background(), id, now)
		check(t, err)
		got.ShareNames(names[i])
		loaded[i] = got.Bundle
	}
	each := (heap() - before) / n
	t.Logf("%d bytes a bundle, %d of them the leaf's DER", each, der/n)
	// The key is 32 bytes, and what holds both is rounded up to a size class.
	if limit := int64(der/n + 120 + 32 + 128); each > limit {
		t.Errorf("%d bytes a bundle, more than %d", each, limit)
	}
	runtime.KeepAlive(loaded)
	runtime.KeepAlive(s)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkLoadBundle(b *testing.B) {
	s := newFakeStorage()
	ca := newFakeCA(b)
	r := records.New(s, records.Options{})
	bundle := ca.bundle(r, []string{"a.example"}, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: bytes.Repeat([]byte{5}, 500)}}
	})
	store(b, r, bundle)
	id := bundle.ID()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LoadBundle(b.Context(), id, now); err != nil {
			b.Fatal(err)
		}
	}
}
