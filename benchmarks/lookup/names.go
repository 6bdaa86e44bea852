//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
)

// expectMiss turns errors into certificates and certificates into errors.
func expectMiss(get harness.Get) harness.Get {
	none := new(tls.Certificate)
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if _, err := get(hello); err == nil {
			return nil, errors.New("there is a certificate")
		}
		return none, nil
	}
}

func upper(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = strings.ToUpper(name)
	}
	return out
}

func unknown(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("none%06d.nowhere.example", i))
	}
	return names
}

// underWildcards returns as many names as there are plain ones.
func underWildcards(c *corpus.Corpus) []string {
	zones := c.Wildcards()
	names := make([]string, c.N)
	for i := range names {
		names[i] = fmt.Sprintf("www%04d", i/len(zones)) + zones[i%len(zones)][1:]
	}
	return names
}
