// Package certwright gives any Go server automatic HTTPS: it gets certificates
// from Let's Encrypt or any other ACME CA, renews them while the server runs,
// and answers handshakes from memory.
//
// # Ways to use it
//
// One call, for a server that has ports 80 and 443 to itself:
//
//	err := certwright.Serve(ctx, handler, "example.com", "www.example.com")
//
// A Manager around servers of your own:
//
//	m, err := certwright.New(certwright.Config{Email: "admin@example.com", AgreeToTerms: true})
//	if err != nil {
//		return err
//	}
//	defer m.Close(ctx)
//	if err := m.ManageSync(ctx, []string{"example.com"}); err != nil {
//		return err
//	}
//	go http.ListenAndServe(":80", m.HTTPHandler(nil))
//	return m.TLS(&http.Server{Addr: ":443", Handler: handler}).ListenAndServeTLS("", "")
//
// A listener, for servers that take connections and know nothing of TLS:
//
//	ln, err := m.Listen("tcp", ":443")
//
// Or only its certificates, in a tls.Config of your own, with whatever speaks
// TLS:
//
//	conf := &tls.Config{
//		GetCertificate: m.GetCertificate,
//		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
//	}
//
// # What it guarantees
//
//   - A handshake for a name with a valid certificate in memory waits for no
//     network and no disk. Once that is parsed, which the first handshake for it
//     does, it takes no lock and allocates nothing, but for a few bytes where a
//     name has several key types.
//   - What is served is stored. Key, chain and metadata are one record, replaced
//     in one atomic and durable step; no crash, full disk, lost lock, failed
//     renewal or changed configuration leaves a name without its last good pair:
//     what is stored and covers it is served.
//   - One certificate is ordered once, whatever the number of goroutines,
//     processes and hosts that share the storage and want it.
//   - A name that is managed stays managed until [Manager.Unmanage]. A failure
//     is backed off, in storage too, and the CA's Retry-After is obeyed; one
//     name's or one issuer's trouble delays no other's.
//   - Nothing outlives [Manager.Close].
//   - No state is global: two Managers in one process do not know of each other,
//     and on one host they take turns at the ports of the challenges.
//   - Every error says which name, issuer and step failed, what the CA, or who
//     answered in its place, said and, where it is known, what to set;
//     [Manager.Status] says what each name has, what is being done and what
//     happens next.
//   - No private key, EAB key or password is in an error, an event, a log line or
//     Status.
//   - An Issuer, a Solver or a Storage that panics or hangs is the trouble of
//     those names only that need it, and what strangers send costs bounded memory,
//     goroutines, threads and storage calls.
//
// # Where things are
//
// Package storage has the contract of a [Storage] and its locks, a folder
// (storage.OpenDir), one in memory, and encryption at rest (storage.Seal);
// storage/plugin makes a Storage of a plugin for CertMagic, and
// storage/storagetest says whether one of your own keeps the contract. Package
// adopt takes over what CertMagic, Caddy, autocert, lego or certbot stored; zaplog
// logs to zap; acmetest is a CA for tests. What only some need is linked only by
// programs that import it.
//
// # Words
//
// A name is a DNS name or an IP address. An issuer issues certificates; a CA is
// the organisation behind it. To issue is to get any certificate, to renew is to
// issue one that replaces another, to load is to read one from storage, and to
// adopt is to take what another instance or another program has stored. A leaf
// with its intermediates is a chain; with its key, a bundle. A lease is a lock
// that can be lost, an instance is one process. A hold is a time before which an
// issuer is not asked again. Work that blocks runs in lanes: one for storage, one
// for each issuer, and others for what is asked beside. Terms of the protocol are
// those of RFC 8555, RFC 8737 (tls-alpn-01), RFC 8738 (IP addresses) and RFC 9773
// (renewal information).
package certwright
