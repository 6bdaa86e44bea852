// Package hostname brings names to the one form in which certwright stores,
// compares and looks them up, and answers questions about names in that form.
//
// A normalised name is one of
//
//   - a DNS name in lower-case A-labels (RFC 5890 §2.3.2.1) without a trailing
//     dot, of letters, digits, hyphens and underscores,
//   - such a name with "*." in front,
//   - the canonical text of an IP address ([net/netip.Addr.String]), without
//     a zone and with IPv4-mapped IPv6 addresses written as IPv4.
//
// All functions are pure and safe for concurrent use.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 1035 §2.3.4 as they apply to the text form of a name.
const (
	maxName  = 253
	maxLabel = 63
)

const wildcard = "*."

// Normalize returns the normalised form of a name as a person writes it in
// configuration. It takes off one trailing dot, lower-cases, turns Unicode into
// A-labels by the lookup rules of UTS #46 (underscores stay allowed), takes IP
// addresses with or without brackets, and one "*." in front. It trims nothing
// else: an error says what is wrong with the name and what to write instead.
func Normalize(s string) (string, error) {
	if isPlain(strings.TrimPrefix(s, wildcard)) && len(s) <= maxName {
		return s, nil
	}
	name, err := normalize(s)
	if err != nil {
		return "", fmt.Errorf("normalizing name %q: %w", clip(s), err)
	}
	return name, nil
}

// isPlain reports whether a name without wildcard is a DNS name in normalised
// form for which nothing needs to be looked up, as nearly all are.
func isPlain(s string) bool {
	if formOf(s) != formLower || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	if strings.IndexByte(s, '-') < 0 {
		return true
	}
	for i := 1; i < len(s); i++ {
		if s[i] == '-' && (s[i-1] == '.' || s[i-1] == '-') || s[i] == '.' && s[i-1] == '-' {
			return false // a hyphen at an end, or an A-label
		}
	}
	return true
}

func normalize(s string) (string, error) {
	if err := checkWritten(s); err != nil {
		return "", err
	}
	if text, found, err := writtenIP(s); found {
		return text, err
	}
	if err := checkPort(s); err != nil {
		return "", err
	}
	star, base := "", s
	if IsWildcard(s) {
		star, base = wildcard, s[len(wildcard):]
	}
	base, err := toASCII(base)
	if err != nil {
		return "", err
	}
	base = strings.TrimSuffix(base, ".")
	if err := checkASCII(base); err != nil {
		return "", err
	}
	if len(star)+len(base) > maxName {
		return "", fmt.Errorf("it is longer than %d bytes", maxName)
	}
	return star + base, nil
}

// checkWritten refuses what is not a name at all but something around one.
func checkWritten(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty; write a name such as example.com")
	case len(s) > 4*maxName:
		return fmt.Errorf("it is longer than %d bytes", maxName)
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8 text")
	case strings.Contains(s, "://"):
		return errors.New("it is a URL; write the name alone, without scheme and path")
	case strings.ContainsAny(s, "/\\?#"):
		return errors.New("it has a path; write the name alone")
	case strings.Contains(s, "@"):
		return errors.New("it has a user part; write what follows the @ alone")
	case strings.ContainsAny(s, " \t\r\n\v\f"):
		return errors.New("it has a space; write one name without white space")
	case s == "*" || s == wildcard:
		return errors.New("a wildcard needs a name below it; write *.example.com")
	case strings.HasSuffix(s, ".."):
		return errors.New("it ends in two dots; write the name with one trailing dot or none")
	}
	return nil
}

// writtenIP reads an IP address with or without brackets. It reports whether s
// is meant as one.
func writtenIP(s string) (text string, found bool, err error) {
	in := strings.TrimSuffix(s, ".")
	bracketed := strings.HasPrefix(in, "[")
	if bracketed {
		inside, ok := strings.CutSuffix(in[1:], "]")
		if !ok {
			if strings.Contains(in, "]:") {
				return "", true, errors.New("it has a port; write the address without it")
			}
			return "", true, errors.New("its brackets do not match; write the address without brackets")
		}
		in = inside
	}
	addr, err := netip.ParseAddr(in)
	switch {
	case err == nil && addr.Zone() != "":
		return "", true, errors.New("an address with a zone is of one host only; write it without the zone")
	case err == nil:
		return addr.Unmap().String(), true, nil
	case bracketed || strings.Count(in, ":") > 1:
		return "", true, errors.New("it is not a valid IP address")
	}
	return "", false, nil
}

func checkPort(s string) error {
	name, port, found := strings.Cut(s, ":")
	if !found {
		return nil
	}
	if name != "" && digits(port) {
		return fmt.Errorf("it has a port; write %q", clip(name))
	}
	return errors.New("it has a colon; write the name alone")
}

// toASCII maps what needs mapping and leaves plain lower-case ASCII alone.
func toASCII(s string) (string, error) {
	s = lowerASCII(s)
	if isASCII(s) && !strings.HasPrefix(s, "xn--") && !strings.Contains(s, ".xn--") {
		return s, nil
	}
	profile := idna.New(
		idna.MapForLookup(),
		idna.BidiRule(),
		// Underscores are in use (RFC 8552); checkASCII looks at the rest.
		idna.StrictDomainName(false),
		// Names such as r3---sn-x.example are in use; checkASCII looks at the ends.
		idna.CheckHyphens(false),
	)
	out, err := profile.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("it is not a valid internationalised name: %w", err)
	}
	return out, nil
}

// checkASCII checks a name without wildcard after mapping.
func checkASCII(name string) error {
	if name == "" {
		return errors.New("it is empty; write a name such as example.com")
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
		last = label
	}
	if digits(last) {
		return errors.New("it ends in a number and is not an IP address; write four numbers from 0 to 255, without leading zeros")
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("it has an empty part between dots; write single dots and none in front")
	case len(label) > maxLabel:
		return fmt.Errorf("its part %q is longer than %d bytes", clip(label), maxLabel)
	case strings.Contains(label, "*"):
		return errors.New("a wildcard may only be the whole first part; write *.example.com")
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("its part %q begins or ends with a hyphen", label)
	}
	for i := range len(label) {
		if !isLDHU(label[i]) {
			return fmt.Errorf("its part %q has a character other than letters, digits, hyphen and underscore", clip(label))
		}
	}
	return nil
}

// clip keeps error texts short whatever the input.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
