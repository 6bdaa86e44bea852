package main

import "testing"

// TestBinarySize builds the same program on each library, as it would be
// shipped. The one on certwright is at most a twentieth larger than that on
// CertMagic, and the one on no library is the smallest.
func TestBinarySize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four programs")
	}
	sizes, err := measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, column := range columns {
		t.Log(row(column, sizes[column]))
		if sizes[column] < sizes["limit"] {
			t.Errorf("the program on %s has %d bytes, less than the %d of the limit", column, sizes[column], sizes["limit"])
		}
	}
	if sizes["certwright"]*20 > sizes["certmagic"]*21 {
		t.Errorf("the program on certwright has %d bytes, more than 1.05 × the %d of that on CertMagic", sizes["certwright"], sizes["certmagic"])
	}
}

func TestRow(t *testing.T) {
	if got, want := row("autocert", 7_471_369), "row size autocert 7.471 MB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
