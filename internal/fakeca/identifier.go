package fakeca

import (
	"net/netip"
	"slices"
	"strings"
)

// normalise checks the identifiers of a new order and returns them in lower case, each once.
func normalise(asked []Identifier) ([]Identifier, *Problem) {
	if len(asked) == 0 {
		return nil, malformed("an order needs an identifier")
	}
	if len(asked) > 100 {
		return nil, malformed("an order has at most 100 identifiers")
	}
	var out []Identifier
	var subs []Problem
	for _, id := range asked {
		if kind, detail := faultOf(id); kind != "" {
			sub := NewProblem(kind, 0, detail)
			sub.Type, sub.Identifier = problemPrefix+kind, &Identifier{id.Type, id.Value}
			subs = append(subs, *sub)
			continue
		}
		id.Value = strings.ToLower(id.Value)
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if len(subs) == 0 {
		return out, nil
	}
	p := malformed("%s", subs[0].Detail)
	p.Type, p.Subproblems = subs[0].Type, subs
	if len(subs) == 1 {
		p.Subproblems = nil
	}
	return nil, p
}

// faultOf says what is wrong with an identifier; "" means nothing.
func faultOf(id Identifier) (kind, detail string) {
	switch id.Type {
	case "ip":
		addr, err := netip.ParseAddr(id.Value)
		if err != nil || addr.Zone() != "" || addr.String() != id.Value {
			return "malformed", "an ip identifier is not an address in its canonical form (RFC 5952)"
		}
		return "", ""
	case "dns":
		if !isDNSName(strings.TrimPrefix(strings.ToLower(id.Value), "*.")) {
			return "rejectedIdentifier", "the identifier " + id.Value + " is not a name that the CA issues for"
		}
		return "", ""
	}
	return "unsupportedIdentifier", "the identifier type " + id.Type + " is not supported"
}

// isDNSName reports whether s is a lower-case host name of two labels or more that is not an address.
func isDNSName(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// challengesFor picks the types that can prove an identifier.
func (c *CA) challengesFor(id Identifier) []string {
	var out []string
	for _, kind := range c.opt.Challenges {
		overDNS := strings.HasPrefix(kind, "dns-")
		if strings.HasPrefix(id.Value, "*.") && !overDNS || id.Type == "ip" && overDNS {
			continue
		}
		out = append(out, kind)
	}
	return out
}
