// Package acmetest runs an ACME certificate authority inside the calling
// process, for tests and for programs that show automatic HTTPS at work without
// a network. The authority is Let's Encrypt's Pebble; it validates for real,
// against listeners on loopback and against a DNS server that comes with it.
//
//	ca := acmetest.Start(t)
//	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client()}
//
// The validator connects to [CA.HTTPPort] for http-01 and to [CA.TLSPort] for
// tls-alpn-01, whatever the name; every name resolves to 127.0.0.1 unless
// [CA.SetRecord] says otherwise. Never trust the roots of a CA of this package
// outside a test: it issues for any name that resolves to it.
//
// The DNS server is authoritative for every name; the zone of a name is its last
// two labels, or the deepest zone of [CA.AddZone] it is in. Methods that take a
// DNS name take it in any case, with a final dot or without; one that starts with
// "*." stands for every name below it that has no record itself (RFC 4592).
//
// # What Pebble leaves to know
//
//   - An order that names no profile gets a random one of [Options.Profiles].
//     The default has one profile only.
//   - A certificate's NotAfter is one second before NotBefore plus the lifetime,
//     since the last second counts (RFC 5280 section 4.1.2.5).
//   - Identifiers, authorizations and challenges come in random order, and
//     Retry-After is at random a number of seconds or a date.
//   - Of several addresses of a name the validator dials only one: an AAAA
//     record if there is any, else the first A record.
//   - Pebble takes some settings from the process environment only. They are
//     set while [New] and [CA.Restart] construct it and put back at once; two
//     constructions never overlap.
//   - Pebble never ends the goroutine that hands out validations, one for each
//     New and each Restart. With go.uber.org/goleak pass
//     goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks").
//     A validation under way when the CA closes ends by itself, after 15 seconds
//     at most.
//
// Where Pebble's own handlers race or deadlock when they run side by side,
// requests are taken one after the other, and a finalize request is answered
// once the certificate is registered; the order still says "processing", so a
// client has to poll. Except with [Options.ReuseAuthorizations] no
// authorization is ever used twice.
package acmetest
