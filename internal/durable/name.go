package durable

import "strings"

// IsDevice reports whether Windows takes a lower-case file name for a device: it
// does so whatever follows the first dot.
func IsDevice(name string) bool {
	stem, _, _ := strings.Cut(name, ".")
	switch stem {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(stem) == 4 && (stem[:3] == "com" || stem[:3] == "lpt") && '0' <= stem[3] && stem[3] <= '9'
}
