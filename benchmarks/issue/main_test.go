package main

import (
	"fmt"
	"testing"
)

// TestColumns has every column get certificates in the ways in which it is
// measured: with a new account, and with one that is there.
func TestColumns(t *testing.T) {
	ca, err := startCA()
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	b := &bench{}
	for _, challenge := range []string{"http-01", "tls-alpn-01", "dns-01"} {
		b.set = settings{ca: ca, challenge: challenge, inFlight: 4}
		each := 7.0 // requests
		if challenge == "dns-01" {
			b.set.dns, each = newZone(ca), 3
		}
		for _, k := range kinds {
			if k.slow && challenge != "http-01" {
				continue // it answers the one that it prefers
			}
			t.Run(fmt.Sprintf("%s %s", k.name, challenge), func(t *testing.T) {
				c, err := k.open(b.set)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{6, 1} {
					m, err := b.one(t.Context(), c, b.fresh(n))
					if err != nil {
						t.Fatal(err)
					}
					if least := each * float64(n); m.requests < least || m.total < m.requests || m.ms <= 0 {
						t.Errorf("%d certificates: %+v, want at least %v requests", n, m, least)
					}
					if challenge == "dns-01" && m.calls < float64(2*n) {
						t.Errorf("%d certificates: %v calls of the provider", n, m.calls)
					}
				}
				if err := c.close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		list []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{1, 2}, 1.5}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		var list []measured
		for _, v := range row.list {
			list = append(list, measured{ms: v})
		}
		if got := median(list, func(m measured) float64 { return m.ms }); got != row.want {
			t.Errorf("median of %v is %v, want %v", row.list, got, row.want)
		}
	}
}
