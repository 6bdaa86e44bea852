package keypath_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/keypath"
)

func TestElements(t *testing.T) {
	percent, underscore := keypath.Scheme{Mark: '%', Lead: "+"}, keypath.Scheme{Mark: '_', Lead: "_-"}
	long := strings.Repeat("x", 199)
	tests := []struct {
		scheme keypath.Scheme
		key    string
		want   []string
	}{
		{percent, "v1/*.example.com+p256.pem", []string{"v1", "%2a.example.com%2bp256.pem"}},
		{underscore, "v1/*.example.com+p256.pem", []string{"v1", "_2a.example.com_2bp256.pem"}},
		{percent, "a_b", []string{"a_b"}},
		{underscore, "a_b", []string{"a_5fb"}},
		{underscore, "A/é", []string{"_41", "_c3_a9"}},
		{underscore, ".a../b", []string{"_2ea_2e_2e", "b"}},
		{underscore, long + "yz", []string{long + "y", "_-z"}},
		{percent, long + ".z", []string{long, "+.z"}},
	}
	for _, device := range []string{"con", "nul.txt", "com1.example.com", "lpt0"} {
		tests = append(tests, struct {
			scheme keypath.Scheme
			key    string
			want   []string
		}{percent, device, []string{percent.EscapeByte(device[0]) + device[1:]}})
	}
	for _, plain := range []string{"console", "example.con", "com", "comx.example.com", "com10"} {
		tests = append(tests, struct {
			scheme keypath.Scheme
			key    string
			want   []string
		}{percent, plain, []string{plain}})
	}
	for _, tt := range tests {
		got := tt.scheme.Elements(tt.key)
		if !slices.Equal(got, tt.want) {
			t.Errorf("Elements(%q) = %q, want %q", tt.key, got, tt.want)
		}
		if back := tt.scheme.Key(strings.Join(got, "/")); back != tt.key {
			t.Errorf("Key of %q = %q, want %q", got, back, tt.key)
		}
		for _, e := range got {
			if !tt.scheme.CanName(e) {
				t.Errorf("CanName(%q) = false", e)
			}
		}
	}
	for _, other := range []string{"lost+found", "Upper", ".git", "é"} {
		if percent.CanName(other) {
			t.Errorf("CanName(%q) = true", other)
		}
	}
}
