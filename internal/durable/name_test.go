package durable

import "testing"

func TestIsDevice(t *testing.T) {
	for name, want := range map[string]bool{
		"con": true, "nul.txt": true, "com1.example.com": true, "lpt0": true,
		"console": false, "example.con": false, "com": false, "comx.example.com": false, "com10": false, "": false,
	} {
		if got := IsDevice(name); got != want {
			t.Errorf("IsDevice(%q) = %v, want %v", name, got, want)
		}
	}
}
