// Package acmeflow runs the ACME protocol (RFC 8555) from the directory to the
// downloaded chain. It is the only package that imports acmez.
//
// acmez encodes, signs and decodes; this package decides what is sent when. It
// does so by standing in acmez's HTTP transport: acmez makes exactly one HTTP
// request for each operation, and whether it is tried again, with what delay
// and whether something else has to be asked first, is decided in one place
// ([Client.call]). In that way a lost reply to a finalize request is followed
// by a look at the order and not by a second finalize, a 429 is one request,
// and a nonce that went stale costs one round trip.
package acmeflow
