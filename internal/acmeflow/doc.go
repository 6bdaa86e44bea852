// Package acmeflow runs the ACME protocol (RFC 8555) from the directory to the
// downloaded chain. It is the only package that imports acmez.
//
// acmez keeps the nonces, signs and sends; this package decides what is sent
// when, and reads the replies. It stands in acmez's HTTP transport for that:
//   - A request that failed ends the context of its operation, so that acmez,
//     which would send the same again up to ninety times, makes one request for
//     each call, and what follows is decided in one place, [Client.call]: after a
//     lost reply to a finalize request a look at the order and not a second one
//     (P8), after a 429 nothing (R5, R6), and a 429 for a nonce is told as one (P2).
//   - acmez gets an object without members for each reply. It stops at a member
//     or a challenge that it does not expect (P11, P13), and has no room for the words
//     of a server that is no CA (F26).
//   - acmez gets the directory from here, under a URL that names its content: it
//     keeps directories for the whole process, and fetches them under a lock for
//     all CAs (F5).
//   - acmez's client is thrown away when it was idle, and its old nonces with it (P1).
package acmeflow
