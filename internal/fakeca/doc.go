// Package fakeca is a small ACME certification authority that does as it is told.
//
// It speaks RFC 8555 with ip identifiers (RFC 8738), renewal information with replaces (RFC 9773),
// profiles and external account binding, checks every signature and nonce, and signs real
// certificates. What sets it apart from a real CA is that a test can script its failures: a [Rule] answers, delays,
// hangs up or edits the reply of chosen requests, and the [CA] has methods that lose its nonces or
// accounts, take it down, pin an order's status or revoke a certificate.
//
// A CA is an [http.Handler]. [CA.Transport] reaches it in process, without a socket, a goroutine or
// a channel, so it lives inside a testing/synctest bubble and takes the bubble's time:
//
//	ca := fakeca.New(fakeca.Options{})
//	defer ca.On(fakeca.Rule{Endpoint: "newOrder", N: 1, Problem: fakeca.RateLimited(time.Hour, "slow down")})()
//	client := ca.Client() // and ca.Directory() for the directory URL
//
// The endpoints are directory, newNonce, newAccount, account, newOrder, order, authz, challenge,
// finalize, cert, renewalInfo, revokeCert and keyChange. A method given any other endpoint panics, so
// that a slip of the pen cannot make a test pass.
package fakeca
